#!/bin/sh
# From nothing to a running one-node cluster: `sudo ./quickstart.sh`. Again: says that it runs. `down` stops it and keeps its data (and its
# containers' records); `reset` removes everything that it made. Without network once the packages are there.
#
# `--machines 3` makes three machines of it on this host, each in namespaces of its own: a server and two agents that join it (scripts/machines.sh).
# `reset` removes those too.
#
# SKIFF_DATA, SKIFF_RUN, SKIFF_LOG_PODS, SKIFF_KUBECONFIG and SKIFF_LISTEN put things elsewhere (tests run it in a namespace of its own).
set -eu
cd "$(dirname "$0")"
. scripts/packages.sh
. scripts/machines.sh

DATA=${SKIFF_DATA:-/var/lib/skiff}
RUN=${SKIFF_RUN:-/run/skiff}
PODLOGS=${SKIFF_LOG_PODS:-/var/log/pods}
LISTEN=${SKIFF_LISTEN:-0.0.0.0:6443}
CONFIG=${SKIFF_KUBECONFIG:-/etc/skiff/kubeconfig}
SKIFF=$PWD/build/skiff
LOG=$DATA/skiff.log
PIDFILE=$RUN/server.pid
URL=https://127.0.0.1:${LISTEN##*:}

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
fail() { printf 'quickstart: %s\n' "$*" >&2; exit 1; }
now_ms() { date +%s%3N; }
# phase NAME COMMAND…: runs it and notes how long it took.
timings=
phase() {
	name=$1; shift
	t0=$(now_ms)
	"$@" || fail "$name failed"
	timings="$timings$(printf '  %-34s %6d ms' "$name" $(($(now_ms) - t0)))
"
}
k() { kubectl --kubeconfig "$CONFIG" "$@"; }
server_pid() { # prints the pid of the running server
	[ -f "$PIDFILE" ] && read -r pid <"$PIDFILE" && [ -n "$pid" ] && [ "$(readlink "/proc/$pid/exe" 2>/dev/null | sed 's/ (deleted)$//')" = "$SKIFF" ] && echo "$pid"
}

# wait_until SECONDS COMMAND…: asks again, 20 ms apart, until it says yes.
wait_until() {
	end=$(($(now_ms) + $1 * 1000)); shift
	until "$@" >/dev/null 2>&1; do
		[ "$(now_ms)" -lt "$end" ] || return 1
		sleep 0.02
	done
}
ready() { curl -sf --cacert "$DATA/pki/ca.crt" "$URL/readyz"; }

install_all() { install_packages $run_packages $build_packages && install_kubectl && make_user; }
build() { make -s -j"$(nproc)" all; }
start() {
	[ -n "$(server_pid)" ] && return 0
	mkdir -p "$DATA" "$RUN"
	setsid "$SKIFF" server --data-dir "$DATA" --run-dir "$RUN" --pod-log-dir "$PODLOGS" --listen "$LISTEN" --kubeconfig "$CONFIG" \
		</dev/null >>"$LOG" 2>&1 &
	echo $! >"$PIDFILE"
	wait_until 30 ready || { tail -n 20 "$LOG" >&2; return 1; }
}
node_ready() { k wait --for=condition=Ready node --all --timeout=60s; }
wait_node() { wait_until 30 sh -c "kubectl --kubeconfig '$CONFIG' get nodes -o name | grep -q ." && node_ready >/dev/null; }

# The image: busybox and nothing else, from the package on this machine. Leaves $tmp/busybox.tar.
make_image() {
	tmp=$(mktemp -d)
	mkdir -p "$tmp/root/bin" "$tmp/root/etc" "$tmp/root/tmp" "$tmp/root/root"
	cp /bin/busybox "$tmp/root/bin/busybox"
	for applet in sh ls cat echo httpd wget nslookup sleep hostname ps kill env id touch mkdir nc ip ping true false; do
		ln -s busybox "$tmp/root/bin/$applet"
	done
	printf 'root:x:0:0:root:/root:/bin/sh\n' >"$tmp/root/etc/passwd"
	printf 'root:x:0:\n' >"$tmp/root/etc/group"
	tar -C "$tmp/root" -cf "$tmp/busybox.tar" .
}
import_image() {
	"$SKIFF" image list --data-dir "$DATA" 2>/dev/null | grep -q quickstart/busybox && return 0
	make_image
	"$SKIFF" image import --data-dir "$DATA" "$tmp/busybox.tar" quickstart/busybox:1 >/dev/null
	rm -rf "$tmp"
}

apply() { k apply -f examples/quickstart.yaml; }
pods_running() { [ "$(k get pods -l app=hello --field-selector=status.phase=Running -o name | wc -l)" = 3 ] && k wait --for=condition=Ready pod -l app=hello --timeout=60s >/dev/null; }
wait_pods() { wait_until 60 pods_running; }
first_pod() { k get pods -l app=hello -o 'jsonpath={.items[0].metadata.name}'; }
ask_address() {
	ip=$(k get service hello -o 'jsonpath={.spec.clusterIP}')
	wait_until 20 sh -c "kubectl --kubeconfig '$CONFIG' exec $(first_pod) -- wget -qO- http://$ip/ >/dev/null" || return 1
	printf '  http://%s/ (the virtual address) answers:        %s\n' "$ip" "$(k exec "$(first_pod)" -- wget -qO- "http://$ip/")"
}
ask_name() {
	wait_until 20 sh -c "kubectl --kubeconfig '$CONFIG' exec $(first_pod) -- wget -qO- http://hello/ >/dev/null" || return 1
	printf '  http://hello.default.svc.cluster.local/ answers: %s\n' "$(k exec "$(first_pod)" -- wget -qO- http://hello.default.svc.cluster.local/)"
}
# Ends the first process of one container; the kubelet starts it again.
restarted() { [ "$(k get pod "$victim" -o 'jsonpath={.status.containerStatuses[0].restartCount}')" -gt "$before" ]; }
heal() {
	victim=$(first_pod)
	before=$(k get pod "$victim" -o 'jsonpath={.status.containerStatuses[0].restartCount}')
	k exec "$victim" -- kill 1 2>/dev/null || true
	wait_until 60 restarted || return 1
	printf '  container of %s was killed; restarts: %s -> %s\n' "$victim" "$before" "$(k get pod "$victim" -o 'jsonpath={.status.containerStatuses[0].restartCount}')"
	wait_pods
}

summary() {
	say "The cluster"
	k get nodes -o wide
	echo
	k get rc,pods,svc -o wide
	cat <<-EOM

	Next:
	  export KUBECONFIG=$CONFIG
	  kubectl get pods -A
	  kubectl scale rc hello --replicas=5
	  $SKIFF status
	  $SKIFF why $(first_pod)
	  ./quickstart.sh down      # stops it, keeps its data
	  ./quickstart.sh reset     # removes everything
	EOM
}

up() {
	phase "packages" install_all
	phase "build" build
	running=$(server_pid || true)
	phase "server to /readyz" start
	echo "kubeconfig: $CONFIG"
	phase "node Ready" wait_node
	phase "image import" import_image
	say "A replication controller of three pods, and a service in front of it"
	phase "apply" apply
	phase "three pods Running" wait_pods
	k get pods -l app=hello -o wide
	say "An answer through the service"
	phase "by virtual address" ask_address
	phase "by DNS name" ask_name
	if [ -z "$running" ]; then
		say "A container dies"
		phase "container replaced" heal
	fi
	summary
	say "Times"
	printf '%s' "$timings"
}

stopped() { [ -z "$(server_pid || true)" ]; }
import_everywhere() { make_image && machines_import "$count" "$tmp/busybox.tar" quickstart/busybox:1 && rm -rf "$tmp"; }
spread() { k get pods -l app=hello -o 'custom-columns=POD:.metadata.name,NODE:.spec.nodeName,ADDRESS:.status.podIP'; }
# Every pod asks through the service until each of the others has answered it once.
ask_each() {
	wait_until 20 sh -c "kubectl --kubeconfig '$CONFIG' exec $(first_pod) -- wget -qO- http://hello/ >/dev/null" || return 1
	k exec "$(first_pod)" -- sh -c 'for i in 1 2 3 4 5 6 7 8 9 10 11 12; do wget -qO- http://hello/; done' | sort | uniq -c
}
up_machines() {
	CONFIG=$M_CONFIG
	phase "packages" install_all
	phase "build" build
	phase "namespaces and wire" machines_make "$count"
	phase "server to /readyz" machines_server
	say "The other machines join by this line"
	phase "all nodes Ready" machines_join "$count"
	k get nodes -o wide
	phase "image import" import_everywhere
	say "A replication controller of three pods, and a service in front of it"
	phase "apply" apply
	phase "three pods Running" wait_pods
	spread
	say "Twelve questions through the service, from one of them"
	phase "answers" ask_each
	cat <<-EOM

	Next:
	  export KUBECONFIG=$CONFIG
	  kubectl get pods -A -o wide
	  nsenter -t \$(cat $MACHINES/m2/init) -m -n -p -u -i sh         # a shell on the second machine
	  nsenter -t \$(cat $MACHINES/wire/init) -n ip link set m2 down  # cuts it off
	  ./quickstart.sh reset                                         # removes everything
	EOM
	say "Times"
	printf '%s' "$timings"
}

stop_server() {
	pid=$(server_pid || true)
	[ -z "$pid" ] && return 0
	kill "$pid"
	wait_until 20 stopped || return 1
	rm -f "$PIDFILE"
}
down() {
	[ -z "$(server_pid || true)" ] && { echo "not running"; return 0; }
	stop_server || fail "the server (pid $(server_pid)) did not stop within 20 s"
	echo "stopped; containers keep running, data is kept in $DATA"
}
reset() {
	if machines_there; then
		machines_remove
	fi
	stop_server || fail "the server did not stop"
	if [ -x "$SKIFF" ] && { [ -e "$DATA" ] || [ -e "$RUN" ]; }; then
		"$SKIFF" uninstall --data-dir "$DATA" --run-dir "$RUN" --pod-log-dir "$PODLOGS" --kubeconfig "$CONFIG" || fail "not everything could be removed, see above"
	fi
	echo "nothing is left"
}

count=
if [ "${1:-}" = --machines ]; then
	count=${2:-}
	[ -n "$count" ] && [ -z "$(printf %s "$count" | tr -d 0-9)" ] || fail "--machines needs a number, as in --machines 3"
	shift 2
fi
case "${1:-up}" in
up) if [ -n "$count" ]; then up_machines; else up; fi ;;
down) down ;;
reset) reset ;;
*) echo "usage: $0 [--machines N] [up|down|reset]" >&2; exit 2 ;;
esac
