# make -f Makefile -f tests/fault/fault.mk fault-store: builds the store's fault tests (tests/fault/run.sh runs them).
.PHONY: fault-store
FAULT_STORE = $(patsubst %,$(BUILD)/tests/fault/%.o,main world vfs kill nth rot full)
$(FAULT_STORE): CFLAGS += -Itests/fault
$(BUILD)/fault-store: $(FAULT_STORE) $(BUILD)/libstore.a $(BUILD)/libbase.a
	$(Q)echo "  ld fault-store"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $^ $(LIBS)
fault-store: $(BUILD)/fault-store
