# make -f Makefile -f bench/store.mk bench-store: builds and runs the store's benchmark on a database in $(BUILD).
.PHONY: bench-store
$(BUILD)/bench-store: $(BUILD)/bench/store.o $(BUILD)/libstore.a $(BUILD)/libbase.a
	$(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
bench-store: $(BUILD)/bench-store
	$(BUILD)/bench-store $(BUILD)
