#!/bin/sh
# Fault tests. Usage: tests/fault/run.sh [TEST …]   (full nth rot kill: the store, by default; machines: three machines for 25 minutes; BUILD=DIR as for make)
# Each test prints its seed: fault-store TEST NUMBER SEED repeats it, SKIFF_FAULT_SEED=N tests/fault/run.sh machines too.
cd "$(dirname "$0")/../.." || exit 2
build=${BUILD:-build}
failed=0
# Words behind "machines" go to pytest.
if [ "${1:-}" = machines ]; then
	shift
	export SKIFF="${SKIFF:-$(realpath "$build/skiff")}" SKIFF_FAULT_LONG=1 SKIFF_FAULT_ROUNDS="${SKIFF_FAULT_ROUNDS:-50}" SKIFF_FAULT_SEED="${SKIFF_FAULT_SEED:-$(date +%s)}"
	echo "seed $SKIFF_FAULT_SEED"
	exec python3 -m pytest -q -s -p no:cacheprovider tests/e2e/test_faults.py "$@"
fi
make -s -f Makefile -f tests/fault/fault.mk BUILD="$build" fault-store || exit 2
for t in ${*:-full nth rot kill}; do
	SKIFF_LOG=${SKIFF_LOG:-error} "$build/fault-store" "$t" || failed=$((failed + 1))
done
echo "fault-store: $failed failed"
[ "$failed" -eq 0 ]
