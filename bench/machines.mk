# make bench-machines: the figures of three machines, as root (ARGS="join routes …": these alone). Needs the package iperf3.
.PHONY: bench-machines
bench-machines: $(BUILD)/skiff
	SKIFF=$(abspath $(BUILD))/skiff bench/machines.py $(ARGS)
