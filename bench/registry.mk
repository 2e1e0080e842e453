# make bench-registry: builds and runs the registry's benchmark over the memory store (ARGS=FILE: over SQLite).
.PHONY: bench-registry
$(BUILD)/bench-registry: $(BUILD)/bench/registry.o $(foreach f,registry store codec model io base gen,$(BUILD)/lib$(f).a)
	$(Q)echo "  ld bench-registry"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)
bench-registry: $(BUILD)/bench-registry
	$(BUILD)/bench-registry $(ARGS)
