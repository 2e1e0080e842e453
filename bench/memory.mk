# make bench-memory: what a burst of load leaves in memory, as root (twelve minutes; PODS=2000 for a short look).
.PHONY: bench-memory
bench-memory: $(BUILD)/skiff $(BUILD)/bench-load
	SKIFF=$(abspath $(BUILD))/skiff bench/memory.py $(ARGS)
