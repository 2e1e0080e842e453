#!/bin/bash
# Every test: `sudo ./test.sh`. A part: `./test.sh unit|san|check|fuzz|fault|e2e [pytest words…]`. Last line: N passed, N failed.
#   check  layers, style, format unit   cmocka tests beside the code, recorded bytes included
#   san    the same under ASan and UBSan     fuzz  replay of every fuzzer's inputs
#   fault  kill -9, failing disks            e2e   real clients against real nodes, each in namespaces of its own
set -u
cd "$(dirname "$0")"
. scripts/packages.sh
passed=0 failed=0 failures=
out=build/test-output
mkdir -p "$out"

note() { printf '\n== %s\n' "$*"; }
count() { # count NAME PASSED FAILED
	passed=$((passed + $2)) failed=$((failed + $3))
	[ "$3" = 0 ] || failures="$failures $1"
	printf '   %s: %s passed, %s failed\n' "$1" "$2" "$3"
}
# one NAME COMMAND…: a check that passes or fails as a whole; its output is shown when it fails.
one() {
	name=$1; shift
	if "$@" >"$out/$name.log" 2>&1; then count "$name" 1 0; return 0; fi
	tail -n 60 "$out/$name.log"
	count "$name" 0 1
	return 1
}
# cmocka NAME BINARY…: counts the tests of each; a binary that dies or counts nothing is a failure.
cmocka() {
	name=$1; shift
	for t in "$@"; do
		log=$out/$name-$(basename "$t").log
		"$t" >"$log" 2>&1
		status=$?
		ok=$(grep -c '^\[       OK \]' "$log")
		bad=$(grep -c '^\[  FAILED  \] [a-zA-Z_]' "$log")
		bad=$((bad / 2 + bad % 2)) # each failure is named twice
		if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
		if [ "$status" = 0 ] && [ "$ok" = 0 ] && ! grep -q '^\[  SKIPPED \]' "$log"; then bad=1; fi
		[ "$bad" = 0 ] || tail -n 40 "$log"
		count "$name $(basename "$t")" "$ok" "$bad"
	done
}
run_pytest() { # NAME ARGUMENTS…: output and exit status into files
	name=$1; shift
	python3 -m pytest -q -rfEs -p no:cacheprovider --durations=15 "$@" >"$out/$name.log" 2>&1
	echo $? >"$out/$name.status"
}
count_pytest() { # NAME: shows and counts what run_pytest left
	status=$(cat "$out/$1.status")
	tail -n 60 "$out/$1.log"
	ok=$(tail -n 3 "$out/$1.log" | grep -oE '[0-9]+ passed' | grep -oE '[0-9]+' | tail -n 1)
	bad=$(tail -n 3 "$out/$1.log" | grep -oE '[0-9]+ (failed|error)' | grep -oE '[0-9]+' | paste -sd+ | bc)
	ok=${ok:-0} bad=${bad:-0}
	if [ "$status" != 0 ] && [ "$bad" = 0 ]; then bad=1; fi
	[ "$bad" = 0 ] || again "$1"
	count "$1" "$ok" "$bad"
}
# again NAME: up to three failures are tried once more, alone on the machine. One that then passes counts as passed and is named as flaky: a busy machine or a
# race, to be looked into. Changes ok and bad.
again() {
	mapfile -t ids < <(sed -nE 's/^(FAILED|ERROR) (tests[^ ]*::.*)$/\2/p' "$out/$1.log" | sed 's/ - .*//' | sort -u)
	[ "${#ids[@]}" -gt 0 ] && [ "${#ids[@]}" -le 3 ] && [ "${#ids[@]}" = "$bad" ] || return 0
	for id in "${ids[@]}"; do
		run_pytest "$1-again" "$id"
		if [ "$(cat "$out/$1-again.status")" = 0 ]; then
			echo "   FLAKY: $id failed beside others and passed alone"
			ok=$((ok + 1)) bad=$((bad - 1))
		else
			tail -n 40 "$out/$1-again.log"
		fi
	done
}

# Files whose tests start machines of their own, in two lanes of about the same length.
own_nodes="three_machines faults cni service_policies hostile_node join upgrade clock shutdown"
own_stores="etcd etcd_faults masters snapshot renewal kill quickstart full_disk_server full_disk_node machine"
files() { for t in "$@"; do echo "tests/e2e/test_$t.py"; done; }

part_build() { note build; one build make -j"$(nproc)" all unit-build && [ -x build/skiff ]; }
part_check() {
	note check
	one layers tools/check-layers
	one style tools/check-style
	one format tools/check-format
}
part_unit() { note unit; one unit-build make -j"$(nproc)" unit-build; cmocka unit $(make -s unit-list); }
part_san() { note "unit tests under ASan and UBSan"; one san-build make -j"$(nproc)" SAN=1 all unit-build; cmocka san $(make -s SAN=1 unit-list); }
part_fuzz() { note "fuzzers' inputs"; one fuzz-replay make -j"$(nproc)" fuzz-replay; }
part_fault() { note fault; tests/fault/run.sh >"$out/fault.log" 2>&1; s=$?; tail -n 30 "$out/fault.log"
	ok=$(grep -c '^ok ' "$out/fault.log"); bad=$(grep -c '^not ok ' "$out/fault.log"); [ "$s" = 0 ] || [ "$bad" != 0 ] || bad=1; count fault "$ok" "$bad"; }
# Figures first and alone, then the tests that share a machine beside those that have their own, in three lanes: they wait more than they work.
part_e2e() {
	note e2e
	one clients tests/tools/fetch-clients.sh
	one etcd tests/tools/fetch-etcd.sh
	if [ $# != 0 ]; then
		run_pytest e2e tests/e2e "$@"
		count_pytest e2e
		return
	fi
	run_pytest e2e-figures tests/e2e/test_figures.py
	run_pytest e2e-nodes $(files $own_nodes) &
	run_pytest e2e-stores $(files $own_stores) &
	run_pytest e2e-one $(ls tests/e2e/test_*.py | grep -vxF "$(files figures $own_nodes $own_stores)")
	wait
	for name in e2e-figures e2e-one e2e-nodes e2e-stores; do count_pytest $name; done
}

begin=$(date +%s)
if [ "$(id -u)" = 0 ]; then
	install_packages $run_packages $build_packages $test_packages || exit 1
	install_kubectl && install_test_tools && make_user || exit 1
fi
case "${1:-all}" in
all)
	part_check
	if part_build; then
		part_unit; part_fuzz; part_fault; part_san; part_e2e
	fi
	;;
check | unit | san | fuzz) "part_$1" ;;
fault | e2e) part=$1; shift; part_build && "part_$part" "$@" ;;
*) echo "usage: $0 [check|unit|san|fuzz|fault|e2e]" >&2; exit 2 ;;
esac
[ -z "$failures" ] || printf '\nfailed:%s\n' "$failures"
printf '\ntook %s s\n' $(($(date +%s) - begin))
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]
