# Several machines on one host, for quickstart.sh --machines N: each is a set of namespaces (network, mounts, processes, host name) with a server or an
# agent in it, and one more namespace is the wire that joins them. The host has one link into the wire (skiff-wire), so that kubectl works from it. All
# is kept below $MACHINES; machines_remove ends every process and removes what there is.
#
# Names: m1 is the master, m2 … are nodes; addresses are 192.0.2.11, 192.0.2.12 …; the host's is 192.0.2.1.

MACHINES=${SKIFF_MACHINES:-/var/lib/skiff-machines}
M_NET=192.0.2
M_CONFIG=$MACHINES/kubeconfig

m_alive() { [ -f "$1" ] && read -r m_pid <"$1" && [ -n "$m_pid" ] && kill -0 "$m_pid" 2>/dev/null; }
m_child_of() { # the process inside the namespaces that PID made
	m_inner=$(cat "/proc/$1/task/$1/children" 2>/dev/null | cut -d' ' -f1)
	[ -n "$m_inner" ] && [ "$(cat "/proc/$m_inner/comm")" = sleep ]
}
# m_hold NAME UNSHARE-FLAGS…: namespaces held by a process; its pid goes to NAME/holder and NAME/init.
m_hold() {
	m_dir=$MACHINES/$1; m_name=$1; shift
	m_alive "$m_dir/holder" && return 0
	mkdir -p "$m_dir"
	setsid unshare "$@" --fork --kill-child sh -c "hostname $m_name 2>/dev/null; exec env --ignore-signal=CHLD sleep infinity" </dev/null >/dev/null 2>&1 &
	m_holder=$!
	wait_until 5 m_child_of "$m_holder" || return 1
	m_child_of "$m_holder"
	echo "$m_inner" >"$m_dir/init"
	echo "$m_holder" >"$m_dir/holder"
}
m_wire() { nsenter -t "$(cat "$MACHINES/wire/init")" -n -- "$@"; }
# m_in NAME COMMAND…: runs it on a machine.
m_in() { m_init=$(cat "$MACHINES/$1/init"); shift; nsenter -t "$m_init" -m -n -p -u -i -- "$@"; }
m_flags() { # NAME ADDRESS
	echo "--data-dir $MACHINES/$1/data --run-dir $MACHINES/$1/run --pod-log-dir $MACHINES/$1/podlogs --node-name $1 --node-ip $2 --node-lease 4"
}

machines_there() { [ -d "$MACHINES/m1" ]; }

m_make_wire() {
	m_alive "$MACHINES/wire/holder" && return 0
	m_hold wire --net || return 1
	m_wire sh -ec 'ip link set lo up; ip link add wire type bridge forward_delay 0; ip link set wire up
		sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true'
	ip link add skiff-wire type veth peer name host netns "$(cat "$MACHINES/wire/init")"
	ip addr add $M_NET.1/24 dev skiff-wire
	ip link set skiff-wire up
	m_wire sh -ec 'ip link set host master wire; ip link set host up'
}
m_make() { # NUMBER
	m_alive "$MACHINES/m$1/holder" && return 0
	m_hold "m$1" --mount --net --pid --uts --ipc --mount-proc --propagation private || return 1
	ip link add name "m$1" netns "$(cat "$MACHINES/wire/init")" type veth peer name eth0 netns "$(cat "$MACHINES/m$1/init")"
	m_wire sh -ec "ip link set m$1 master wire; ip link set m$1 up"
	m_in "m$1" sh -ec "ip link set lo up; ip link set eth0 up; ip addr add $M_NET.$((10 + $1))/24 dev eth0; ip route add default via $M_NET.1"
}
machines_make() { # COUNT
	[ "$1" -ge 1 ] && [ "$1" -le 200 ] || { echo "--machines $1: expected 1 to 200" >&2; return 1; }
	m_make_wire || return 1
	m_i=1
	while [ $m_i -le "$1" ]; do
		m_make $m_i || return 1
		m_i=$((m_i + 1))
	done
}

# m_run NUMBER COMMAND…: skiff in the background on that machine; its log is NAME/skiff.log.
m_run() {
	m_n=$1; shift
	m_alive "$MACHINES/m$m_n/skiff" && return 0
	m_init=$(cat "$MACHINES/m$m_n/init")
	setsid nsenter -t "$m_init" -m -n -p -u -i -- "$SKIFF" "$@" </dev/null >>"$MACHINES/m$m_n/skiff.log" 2>&1 &
	echo $! >"$MACHINES/m$m_n/skiff"
}
m_ready() { curl -sf --cacert "$MACHINES/m1/data/pki/ca.crt" "https://$M_NET.11:6443/readyz"; }
machines_server() {
	m_run 1 server $(m_flags m1 $M_NET.11) --kubeconfig "$MACHINES/m1/kubeconfig" --node-monitor-grace 5
	wait_until 30 m_ready || { tail -n 20 "$MACHINES/m1/skiff.log" >&2; return 1; }
	sed "s#https://[^ ]*#https://$M_NET.11:6443#" "$MACHINES/m1/kubeconfig" >"$M_CONFIG"
	chmod 600 "$M_CONFIG"
}
m_token() { m_line=$(m_in m1 "$SKIFF" token create --data-dir "$MACHINES/m1/data" --kubeconfig "$MACHINES/m1/kubeconfig" 2>/dev/null) && [ -n "$m_line" ]; }
machines_join() { # COUNT
	wait_until 20 m_token || return 1
	m_token
	echo "$m_line"
	m_i=2
	while [ $m_i -le "$1" ]; do
		m_run $m_i ${m_line#skiff } $(m_flags m$m_i $M_NET.$((10 + m_i)))
		m_i=$((m_i + 1))
	done
	m_count=$1
	wait_until 30 m_all_ready || { tail -n 10 "$MACHINES"/m*/skiff.log >&2; return 1; }
}
m_all_ready() { [ "$(kubectl --kubeconfig "$M_CONFIG" get nodes --no-headers | grep -cw Ready)" -ge "$m_count" ]; }
machines_import() { # COUNT TAR TAG
	m_i=1
	while [ $m_i -le "$1" ]; do
		m_in m$m_i "$SKIFF" image import --data-dir "$MACHINES/m$m_i/data" "$2" "$3" >/dev/null || return 1
		m_i=$((m_i + 1))
	done
}

# Asks each skiff to end, then ends the namespaces: with its first process the kernel ends every other inside, and takes links, mounts and rules with
# them. Groups of pods that nobody is in any more are left on the host's side, and are removed.
machines_remove() {
	for m_dir in "$MACHINES"/m*; do
		m_alive "$m_dir/skiff" || continue
		# nsenter waits for skiff, its only child.
		kill -TERM $(cat "/proc/$m_pid/task/$m_pid/children") || true
		wait_until 20 sh -c "! kill -0 $m_pid 2>/dev/null" || kill -KILL "$m_pid"
	done
	for m_dir in "$MACHINES"/*/; do
		m_alive "${m_dir}holder" || continue
		kill -KILL "$m_pid"
		wait_until 10 sh -c "! kill -0 $(cat "${m_dir}init") 2>/dev/null" || true
	done
	ip link delete skiff-wire 2>/dev/null || true
	for m_dir in "$MACHINES"/m*/data/kubelet/pods/*; do
		find /sys/fs/cgroup -depth -type d -path "*/kubepods/*" -name "pod${m_dir##*/}" -exec rmdir {} + 2>/dev/null || true
	done
	rm -rf "$MACHINES"
}
