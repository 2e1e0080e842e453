#!/bin/sh
# Builds and runs the store's fault tests. Usage: tests/fault/run.sh [TEST …]   (kill nth rot full; BUILD=DIR as for make)
# Each test prints its seed: fault-store TEST NUMBER SEED repeats it.
cd "$(dirname "$0")/../.." || exit 2
build=${BUILD:-build}
make -s -f Makefile -f tests/fault/fault.mk BUILD="$build" fault-store || exit 2
failed=0
for t in ${*:-full nth rot kill}; do
	SKIFF_LOG=${SKIFF_LOG:-error} "$build/fault-store" "$t" || failed=$((failed + 1))
done
echo "fault-store: $failed failed"
[ "$failed" -eq 0 ]
