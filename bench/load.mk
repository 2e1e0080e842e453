# make bench-cluster: builds what bench/figures.py needs and runs it, as root (ARGS="idle get …": these figures alone).
.PHONY: bench-cluster bench-load
bench-cluster: $(BUILD)/skiff $(BUILD)/bench-load $(BUILD)/bench-codec
	SKIFF=$(abspath $(BUILD))/skiff bench/figures.py $(ARGS)
# make bench-load: its load generator.
$(BUILD)/bench-load: bench/load.c
	@mkdir -p $(@D)
	$(Q)echo "  ld bench-load"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -lssl -lcrypto
bench-load: $(BUILD)/bench-load
