"""The official Python client against a cluster: typed calls, a watch that sees each change once, a log, an exec over WebSocket.
Run inside the machine: python_client.py KUBECONFIG NAMESPACE. Prints "ok" at the end."""

import sys
import threading

from kubernetes import client, config, watch
from kubernetes.stream import stream

config.load_kube_config(sys.argv[1])
ns = sys.argv[2]
v1, apps = client.CoreV1Api(), client.AppsV1Api()

# A watch from a list's revision sees every change once and in order.
start = v1.list_namespaced_config_map(ns).metadata.resource_version
seen = []


def follow():
    for e in watch.Watch().stream(v1.list_namespaced_config_map, ns, resource_version=start, timeout_seconds=20):
        if e["object"].metadata.name.startswith("c-"):
            seen.append((e["type"], e["object"].metadata.name))
            if len(seen) == 15:
                return


t = threading.Thread(target=follow)
t.start()
for i in range(5):
    v1.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"c-{i}"), data={"n": "0"}))
for i in range(5):
    v1.patch_namespaced_config_map(f"c-{i}", ns, {"data": {"n": "1"}})
for i in range(5):
    v1.delete_namespaced_config_map(f"c-{i}", ns)
t.join()
assert seen == [(what, f"c-{i}") for what in ("ADDED", "MODIFIED", "DELETED") for i in range(5)], seen

# Pages of a list are exact.
for i in range(7):
    v1.create_namespaced_config_map(ns, client.V1ConfigMap(metadata=client.V1ObjectMeta(name=f"page-{i}", labels={"p": "y"})))
names, token = [], None
while True:
    page = v1.list_namespaced_config_map(ns, label_selector="p=y", limit=3, _continue=token)
    names += [o.metadata.name for o in page.items]
    token = page.metadata._continue
    if not token:
        break
assert names == [f"page-{i}" for i in range(7)], names

# A conflict is told as one.
a = v1.read_namespaced_config_map("page-0", ns)
b = v1.read_namespaced_config_map("page-0", ns)
a.data = {"who": "a"}
v1.replace_namespaced_config_map("page-0", ns, a)
b.data = {"who": "b"}
try:
    v1.replace_namespaced_config_map("page-0", ns, b)
    raise SystemExit("the second writer won silently")
except client.ApiException as e:
    assert e.status == 409, e

# A pod: created, watched until it runs, logs, exec, deleted.
v1.create_namespaced_pod(ns, client.V1Pod(
    metadata=client.V1ObjectMeta(name="p"),
    spec=client.V1PodSpec(termination_grace_period_seconds=0, containers=[client.V1Container(
        name="c", image="test/busybox:1", command=["sh", "-c", "echo started; sleep 1000"])])))
for e in watch.Watch().stream(v1.list_namespaced_pod, ns, field_selector="metadata.name=p", timeout_seconds=30):
    if e["object"].status.phase == "Running":
        break
else:
    raise SystemExit("the pod did not run")
assert v1.read_namespaced_pod_log("p", ns) == "started\n"
assert stream(v1.connect_get_namespaced_pod_exec, "p", ns, command=["echo", "from inside"], stdout=True, stderr=True, stdin=False, tty=False) == "from inside\n"
v1.delete_namespaced_pod("p", ns)
print("ok")
