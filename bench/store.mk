# make bench-store: builds and runs the store's benchmark on a database in $(BUILD).
.PHONY: bench-store
$(BUILD)/bench-store: $(BUILD)/bench/store.o $(BUILD)/libstore.a $(BUILD)/libbase.a
	$(Q)echo "  ld bench-store"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
bench-store: $(BUILD)/bench-store
	$(BUILD)/bench-store $(BUILD)
