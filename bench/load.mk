# make bench-load: builds the load generator that bench/cluster.py uses.
.PHONY: bench-load
$(BUILD)/bench-load: bench/load.c
	@mkdir -p $(@D)
	$(Q)echo "  ld bench-load"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -lssl -lcrypto
bench-load: $(BUILD)/bench-load
