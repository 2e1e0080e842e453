# skiff: `make` builds build/skiff; `make test-FOLDER` its unit tests; `make unit` all of them; `make SAN=1 …` with ASan and UBSan.
# BUILD=DIR puts the outcome elsewhere.

# V=1 shows the commands.
Q = $(if $(V),,@)
BUILD ?= build$(if $(SAN),-san)
CC = $(if $(shell command -v ccache),ccache )gcc
PKGS = libuv openssl libnghttp2 sqlite3 yaml-0.1 libmnl libcap zlib libzstd
# Loaded on first use (base/lazy.h), so not linked; libknot brings gnutls, so the few functions of it that we call are linked in.
LAZY_PKGS = libarchive libnftables libsystemd
OPT ?= -O2
WARN = -Wall -Wextra -Werror -Wno-unused-parameter -Wno-missing-field-initializers -Wmissing-prototypes -Wstrict-prototypes -Wshadow=local -Wvla
CFLAGS += -std=gnu17 -g $(OPT) $(WARN) -fno-strict-aliasing -ffunction-sections -fdata-sections -fstack-protector-strong -D_GNU_SOURCE \
	-Isrc -I$(BUILD) $(shell pkg-config --cflags $(PKGS) $(LAZY_PKGS) libknot)
LDFLAGS += -pthread -Wl,--gc-sections -Wl,--as-needed
LIBS = $(shell pkg-config --libs $(PKGS)) -lhttp_parser -lm -ldl
STATIC_LIBS = -l:libknot.a
TEST_LIBS = $(LIBS) $(shell pkg-config --libs $(LAZY_PKGS)) -lcmocka
ifdef SAN
CFLAGS += -fsanitize=address,undefined -fno-omit-frame-pointer -fno-sanitize-recover=undefined
LDFLAGS += -fsanitize=address,undefined
endif

# Lowest layer last: the order in which the linker reads them.
FOLDERS = cmd dns proxy network kubelet engine scheduler controllers client apiserver registry etcd store net codec model linux io base
SRC = $(foreach f,$(FOLDERS),$(wildcard src/$(f)/*.c src/$(f)/*/*.c))
TESTS = $(filter %_test.c,$(SRC))
GEN = $(BUILD)/gen/types.h
GEN_C = $(BUILD)/gen/types.c
SCHEMAS = $(shell find api -name '*.schema' 2>/dev/null)

obj = $(patsubst %.c,$(BUILD)/%.o,$(1))
lib_src = $(filter-out %_test.c src/cmd/main.c,$(wildcard src/$(1)/*.c src/$(1)/*/*.c))

.PHONY: all unit unit-build unit-list check clean $(foreach f,$(FOLDERS),lib-$(f) test-$(f))
.SECONDARY:
all: $(BUILD)/skiff

$(BUILD)/schemac: tools/schemac.c $(wildcard tools/schemac/*.c tools/schemac/*.h)
	@mkdir -p $(@D)
	$(Q)gcc -std=gnu17 -g -O1 -Wall -Wextra -D_GNU_SOURCE -o $@ $(filter %.c,$^)

# One run makes types.h and types.c; the empty recipe makes make look at types.c again.
$(GEN): $(BUILD)/schemac $(SCHEMAS)
	@mkdir -p $(BUILD)/gen
	$(BUILD)/schemac -o $(BUILD)/gen api
$(GEN_C): $(GEN)
	@:

$(BUILD)/gen/%.o: $(BUILD)/gen/%.c src/model/model.h
	$(Q)echo "  cc $<"; $(CC) $(CFLAGS) -c -o $@ $<

$(BUILD)/%.o: %.c | $(GEN)
	@mkdir -p $(@D)
	$(Q)echo "  cc $<"; $(CC) $(CFLAGS) -MMD -MP -c -o $@ $<

define folder_rules
$(BUILD)/lib$(1).a: $(call obj,$(call lib_src,$(1)))
	@rm -f $$@
	$(Q)ar rcs $$@ $$^
lib-$(1): $(BUILD)/lib$(1).a
test-$(1): $(patsubst src/%.c,$(BUILD)/test/%,$(filter src/$(1)/%,$(TESTS)))
	@set -e; for t in $$^; do echo "# $$$$t"; $$$$t; done
endef
$(foreach f,$(FOLDERS),$(eval $(call folder_rules,$(f))))

$(BUILD)/libgen.a: $(BUILD)/gen/types.o
	@rm -f $@
	$(Q)ar rcs $@ $^

# What a folder's tests link: itself and what LAYERS lets it include, all the way down.
layers_of = $(shell awk -v want=$(1) 'BEGIN { FS = ":" } /^[a-z]/ { dep[$$1] = $$2 } \
	function add(f,  n, i, p) { if (f in seen) return; seen[f] = 1; n = split(dep[f], p, " "); for (i = 1; i <= n; i++) add(p[i]) } \
	END { add(want); for (f in seen) print f }' src/LAYERS)
test_libs = $(foreach f,$(FOLDERS) gen,$(if $(filter $(f),$(call layers_of,$(1))),$(BUILD)/lib$(f).a))
define test_rules
$(BUILD)/test/$(1)/%: $(BUILD)/src/$(1)/%.o $(call test_libs,$(1))
	@mkdir -p $$(@D)
	$(Q)echo "  ld $$(@F)"; $(CC) $(CFLAGS) $(LDFLAGS) -o $$@ $$< -Wl,--start-group $$(filter %.a,$$^) $(STATIC_LIBS) -Wl,--end-group $(TEST_LIBS)
endef
$(foreach f,$(FOLDERS),$(eval $(call test_rules,$(f))))

unit: $(foreach f,$(FOLDERS),test-$(f))
UNIT = $(patsubst src/%.c,$(BUILD)/test/%,$(TESTS))
unit-build: $(UNIT)
unit-list:
	@echo $(UNIT)

$(BUILD)/skiff: $(call obj,src/cmd/main.c) $(foreach f,$(FOLDERS) gen,$(BUILD)/lib$(f).a)
	$(Q)echo "  ld skiff"; $(CC) $(CFLAGS) $(LDFLAGS) -o $@.new $(filter %.o,$^) -Wl,--start-group $(filter %.a,$^) $(STATIC_LIBS) -Wl,--end-group $(LIBS) && mv $@.new $@

check:
	tools/check-layers
	tools/check-style

clean:
	rm -rf build build-san

# ---- fuzzers: fuzz/FOLDER_WHAT.c holds LLVMFuzzerTestOneInput and links FOLDER and what lies below it; its inputs are fuzz/corpus/FOLDER_WHAT/*.
# fuzz-replay runs each over its inputs (any compiler, SAN=1 too); fuzz-FOLDER_WHAT fuzzes (clang; FUZZ_SECONDS=60). ----
FUZZERS = $(filter-out replay,$(patsubst fuzz/%.c,%,$(wildcard fuzz/*.c)))
FUZZ_SECONDS ?= 60
fuzz_layers = $(call layers_of,$(firstword $(subst _, ,$(1))))
fuzz_libs = $(foreach f,$(FOLDERS) gen,$(if $(filter $(f),$(call fuzz_layers,$(1))),$(BUILD)/lib$(f).a))
fuzz_src = $(foreach f,$(FOLDERS),$(if $(filter $(f),$(call fuzz_layers,$(1))),$(call lib_src,$(f)))) $(if $(filter gen,$(call fuzz_layers,$(1))),$(GEN_C))
define fuzz_rules
$(BUILD)/fuzz/$(1): $(BUILD)/fuzz/$(1).o $(BUILD)/fuzz/replay.o $(call fuzz_libs,$(1))
	$(Q)echo "  ld fuzz/$(1)"; $(CC) $(CFLAGS) $(LDFLAGS) -o $$@ $$(filter %.o,$$^) -Wl,--start-group $$(filter %.a,$$^) $(STATIC_LIBS) -Wl,--end-group $(LIBS)
fuzz-replay-$(1): $(BUILD)/fuzz/$(1)
	@echo "# fuzz-replay $(1)"; $(BUILD)/fuzz/$(1) fuzz/corpus/$(1)
fuzz-$(1): | $(GEN)
	@mkdir -p $(BUILD)/fuzz/found-$(1)
	clang -std=gnu17 -g -O1 -w -D_GNU_SOURCE -Isrc -I$(BUILD) -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined -pthread \
		-o $(BUILD)/fuzz/$(1)-clang fuzz/$(1).c $$(call fuzz_src,$(1)) $(STATIC_LIBS) $(LIBS)
	$(BUILD)/fuzz/$(1)-clang -max_total_time=$(FUZZ_SECONDS) -artifact_prefix=$(BUILD)/fuzz/found-$(1)/ $(BUILD)/fuzz/found-$(1) fuzz/corpus/$(1)
endef
$(foreach f,$(FUZZERS),$(eval $(call fuzz_rules,$(f))))
.PHONY: fuzz-replay $(foreach f,$(FUZZERS),fuzz-$(f) fuzz-replay-$(f))
fuzz-replay: $(foreach f,$(FUZZERS),fuzz-replay-$(f))

# ---- benchmarks: each bench/NAME.mk adds a target bench-NAME. ----
include $(wildcard bench/*.mk)

-include $(shell find $(BUILD) -name '*.d' 2>/dev/null)
