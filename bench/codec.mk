# make bench-codec: what decoding and encoding one pod costs (ARGS=FILE: another pod, in JSON). Exit 1: a goal is missed.
.PHONY: bench-codec
$(BUILD)/bench-codec: $(BUILD)/bench/codec/codec_bench.o $(foreach f,codec model base gen,$(BUILD)/lib$(f).a)
	$(Q)echo "  ld bench-codec"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $< -Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(LIBS)
bench-codec: $(BUILD)/bench-codec
	$(BUILD)/bench-codec $(ARGS)
