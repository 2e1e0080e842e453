#!/bin/bash
# Limits of a pod on cgroup v2: its groups have them, memory beyond them ends the container with OOMKilled, and the groups go with the pod.
set -eu
kubectl apply -f - <<'Y'
apiVersion: v1
kind: Pod
metadata: {name: limited}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - {name: calm, image: quickstart/busybox:1, command: [sleep, "1000"], resources: {requests: {cpu: 50m, memory: 16Mi}, limits: {cpu: 100m, memory: 32Mi}}}
  - {name: greedy, image: quickstart/busybox:1, command: [sh, -c, 'a=x; while true; do a=$a$a; done'], resources: {limits: {cpu: 500m, memory: 24Mi}}}
Y
field() { kubectl get pod limited -o "jsonpath={$1}"; }
until_is() { # SECONDS WANTED PATH
	end=$((SECONDS + $1))
	until [ "$(field "$3")" = "$2" ]; do [ $SECONDS -lt $end ] || { echo "$3: '$(field "$3")', expected '$2'"; kubectl get pod limited -o yaml; exit 1; }; done
}
until_is 60 OOMKilled '.status.containerStatuses[?(@.name=="greedy")].lastState.terminated.reason'
until_is 60 true '.status.containerStatuses[?(@.name=="calm")].ready'
uid=$(field .metadata.uid)
group=$(find /sys/fs/cgroup -type d -name "pod$uid")
[ -n "$group" ]
id=$(field '.status.containerStatuses[?(@.name=="calm")].containerID'); id=${id##*/}
calm=$(find "$group" -type d -name "*$id*" | head -n 1)
cat "$calm/memory.max" "$calm/cpu.max" "$calm/cpu.weight" "$group/memory.max" "$group/cpu.max" "$group/pids.max"
[ "$(cat "$calm/memory.max")" = $((32 * 1024 * 1024)) ]
[ "$(cat "$calm/cpu.max")" = "10000 100000" ]
[ "$(cat "$group/memory.max")" = $((56 * 1024 * 1024)) ]
[ "$(cat "$group/cpu.max")" = "60000 100000" ]
kubectl delete pod limited
end=$((SECONDS + 20))
while [ -e "$group" ]; do [ $SECONDS -lt $end ] || { echo "$group is left"; exit 1; }; done
