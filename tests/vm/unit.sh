#!/bin/bash
# examples/skiff.service under systemd: starts, and neither reload, restart nor stop ends a container.
set -eu
install -m 755 build/skiff /usr/local/bin/skiff
install -m 644 examples/skiff.service /etc/systemd/system/
systemctl daemon-reload
systemctl start skiff
trap 'journalctl -u skiff --no-pager | tail -n 30' ERR
within() { # SECONDS COMMAND…
	end=$((SECONDS + $1)); shift
	until "$@" >/dev/null 2>&1; do [ $SECONDS -lt $end ] || { echo "not within its time: $*"; return 1; }; sleep 0.2; done
}
within 120 kubectl get --raw /readyz
within 120 sh -c 'kubectl wait --for=condition=Ready node --all --timeout=60s'
# The image of quickstart is there when this runs after it; otherwise a pod of any shell does.
mkdir -p /tmp/unit-root/bin && cp /bin/busybox /tmp/unit-root/bin/ && ln -sf busybox /tmp/unit-root/bin/sleep && tar -C /tmp/unit-root -cf /tmp/unit.tar .
skiff image import /tmp/unit.tar unit/busybox:1
kubectl create -f - <<'Y'
apiVersion: v1
kind: Pod
metadata: {name: stays}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "unit/busybox:1", command: [sleep, "100000"]}]
Y
within 120 sh -c 'kubectl wait --for=condition=Ready pod stays --timeout=60s'
state() { kubectl get pod stays -o 'jsonpath={.status.containerStatuses[0].containerID} {.status.containerStatuses[0].restartCount} {.status.containerStatuses[0].state.running.startedAt}'; }
before=$(state)
container=$(pgrep -x -f 'sleep 100000')
pid=$(systemctl show -P MainPID skiff)
systemctl reload skiff
within 60 kubectl get --raw /readyz
[ "$(systemctl show -P MainPID skiff)" = "$pid" ]
systemctl restart skiff
within 120 kubectl get --raw /readyz
[ "$(systemctl show -P MainPID skiff)" != "$pid" ]
systemctl stop skiff
[ -z "$(pgrep -x skiff)" ]
[ "$(pgrep -x -f 'sleep 100000')" = "$container" ]
systemctl start skiff
within 120 sh -c 'kubectl wait --for=condition=Ready node --all --timeout=60s'
[ "$(state)" = "$before" ]
within 60 sh -c 'tc filter show dev eth0 ingress | grep -q skiff_in'
[ "$(journalctl -u skiff --no-pager | grep -c "no flow cache")" = 0 ]
[ "$(pgrep -x -f 'sleep 100000')" = "$container" ]
kubectl delete pod stays
within 60 sh -c "! kill -0 $container"
systemctl stop skiff
skiff uninstall
[ -z "$(tc qdisc show | grep clsact)" ]
