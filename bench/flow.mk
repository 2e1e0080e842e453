# make bench-flow: what the flow cache saves and costs, as root.
.PHONY: bench-flow
FLOW_FOLDERS = network client net codec model linux io base gen
$(BUILD)/bench-flow: $(BUILD)/bench/flow.o $(FLOW_FOLDERS:%=$(BUILD)/lib%.a)
	$(Q)echo "  ld bench-flow"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(BUILD)/bench/flow.o -Wl,--start-group $(filter %.a,$^) $(STATIC_LIBS) -Wl,--end-group $(TEST_LIBS)
bench-flow: $(BUILD)/bench-flow
	$(BUILD)/bench-flow
