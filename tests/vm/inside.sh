#!/bin/bash
# What tests/vm/run.sh runs inside by default: the main job on a whole Debian 12 with systemd and cgroup v2 alone, and the tests that say something about
# that. A line `ok NAME` or `not ok NAME` for each; emulated, it takes some minutes.
set -u
bad=0
try() { # try NAME COMMAND…
	name=$1; shift
	begin=$(date +%s)
	if "$@" >/tmp/try.log 2>&1; then echo "ok $name ($(($(date +%s) - begin)) s)"; return 0; fi
	tail -n 40 /tmp/try.log
	echo "not ok $name"
	bad=$((bad + 1))
}
v2_alone() { [ "$(stat -f -c %T /sys/fs/cgroup)" = cgroup2fs ] && ! grep -q ' cgroup ' /proc/mounts; }
no_network() { [ "$(ls /sys/class/net)" = lo ]; }
quickstart() { ./quickstart.sh; }
programs() { tc filter show dev eth0 ingress | grep skiff_in && tc filter show dev eth0 egress | grep skiff_out && [ "$(grep -c "no flow cache" /var/lib/skiff/skiff.log)" = 0 ]; }
no_programs() { tc qdisc show && ! tc qdisc show | grep clsact; }

export SKIFF_SLOW=10
export KUBECONFIG=/etc/skiff/kubeconfig
try "cgroup v2 alone" v2_alone
try "no network device" no_network
# What speaks with the kernel itself: this one's verifier, nftables and links are older than a developer's. Modules come by themselves.
for folder in linux network proxy; do
	for t in build/test/$folder/*_test; do
		try "$t" "$t"
	done
done
# A node needs an address and a route, as any machine has; nothing is behind them.
ip link add eth0 type veth peer name wire0 && ip link set wire0 up && ip link set eth0 up && ip addr add 192.0.2.10/24 dev eth0 && ip route add default dev eth0
try "quickstart" quickstart
try "limits of a pod are in its groups" tests/vm/limits.sh
try "status" build/skiff status
try "the flow cache is on the links" programs
try "quickstart reset" ./quickstart.sh reset
try "no link has a program" no_programs
try "the unit: reload, restart and stop end no container" tests/vm/unit.sh
# test_probes is left out: its probes have a second to answer, which an emulated machine may take to start a program.
for t in "tests/e2e/test_main_job.py" "tests/e2e/test_conformance_node.py" "tests/e2e/test_conformance_life.py"; do
	try "$t" python3 -m pytest -q -p no:cacheprovider --deselect tests/e2e/test_conformance_life.py::test_probes "$t"
done
try "a connection's packets and the rules" python3 -m pytest -q -p no:cacheprovider tests/e2e/test_three_machines.py -k few_packets
[ "$bad" = 0 ]
