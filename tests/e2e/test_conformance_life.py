"""Pods while they live: probes, hooks, updates that reach volumes, generation, resize, ephemeral containers, eviction by taints."""

import base64
import json
import time

import pytest

from api import Api
from machine import eventually

IMAGE = "test/busybox:1"
KEEP = "trap 'exit 0' TERM; sleep 1000 & wait"
MERGE = "application/merge-patch+json"


@pytest.fixture(scope="module")
def api(cluster):
    a = Api(cluster)
    yield a
    a.close()


def pod(name, script=KEEP, spec=None, **container):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"name": name}}, "spec": {"terminationGracePeriodSeconds": 5, "containers": [
        {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], **container}], **(spec or {})}}


def get(cluster, ns, name):
    return cluster.get("pod", name, "-n", ns)


def status(cluster, ns, name):
    return get(cluster, ns, name)["status"]["containerStatuses"][0]


def running(cluster, ns, name, seconds=20):
    return eventually(lambda: (lambda p: p if p["status"].get("phase") == "Running" else None)(get(cluster, ns, name)), seconds, f"{name} runs")


def test_probes(cluster, ns):
    fast = {"periodSeconds": 1, "failureThreshold": 1}
    httpd = "mkdir /w; echo ok > /w/healthz; httpd -f -p 8080 -h /w"
    table = {
        "exec-good": (pod("exec-good", "touch /tmp/health; " + KEEP, livenessProbe={"exec": {"command": ["cat", "/tmp/health"]}, **fast}), False),
        "exec-bad": (pod("exec-bad", "touch /tmp/health; sleep 2; rm /tmp/health; " + KEEP, livenessProbe={"exec": {"command": ["cat", "/tmp/health"]}, "initialDelaySeconds": 1, **fast},
                         spec={"terminationGracePeriodSeconds": 1}), True),
        "http-good": (pod("http-good", httpd, livenessProbe={"httpGet": {"path": "/healthz", "port": 8080}, "initialDelaySeconds": 2, **fast}), False),
        "http-bad": (pod("http-bad", httpd, livenessProbe={"httpGet": {"path": "/none", "port": 8080}, "initialDelaySeconds": 2, **fast}, spec={"terminationGracePeriodSeconds": 1}), True),
        "tcp-good": (pod("tcp-good", httpd, livenessProbe={"tcpSocket": {"port": 8080}, "initialDelaySeconds": 2, **fast}), False),
        "tcp-bad": (pod("tcp-bad", livenessProbe={"tcpSocket": {"port": 8080}, "initialDelaySeconds": 1, **fast}, spec={"terminationGracePeriodSeconds": 1}), True),
        "startup": (pod("startup", "sleep 3; touch /tmp/up; " + KEEP, startupProbe={"exec": {"command": ["test", "-f", "/tmp/up"]}, "periodSeconds": 1, "failureThreshold": 30},
                        livenessProbe={"exec": {"command": ["test", "-f", "/tmp/up"]}, **fast}), False),
    }
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": [p for p, _ in table.values()] + [
        pod("not-ready", readinessProbe={"exec": {"command": ["false"]}, **fast}),
        pod("ready-late", readinessProbe={"exec": {"command": ["true"]}, "initialDelaySeconds": 4, "periodSeconds": 1})]}, "-n", ns)
    begin = running(cluster, ns, "ready-late")["status"]["containerStatuses"][0]["state"]["running"]["startedAt"]
    for name, (_, restarts) in table.items():
        if restarts:
            eventually(lambda: status(cluster, ns, name)["restartCount"] > 0, 30, f"{name} restarts")
    ready = eventually(lambda: [c for c in get(cluster, ns, "ready-late")["status"]["conditions"] if c["type"] == "Ready" and c["status"] == "True"], 20, "ready")[0]
    assert ready["lastTransitionTime"] > begin[:17] or ready["lastTransitionTime"] >= begin
    for name, (_, restarts) in table.items():
        if not restarts:
            eventually(lambda: status(cluster, ns, name)["ready"], 15, f"{name} ready")
            assert status(cluster, ns, name)["restartCount"] == 0, name
    s = status(cluster, ns, "not-ready")
    assert not s["ready"] and s["restartCount"] == 0
    assert "Liveness probe failed" in cluster.kubectl("get", "events", "-n", ns)


def test_hooks(cluster, ns):
    # One server for every connection: both pods' hooks arrive at once, and a server of one connection after another would refuse one of them.
    server = "mkdir -p /w; nc -ll -p 8080 -e sh -c 'read a; echo \"$a\" >> /w/log; printf \"HTTP/1.0 200 OK\\r\\n\\r\\n\"'"
    cluster.apply(pod("server", server, spec={"terminationGracePeriodSeconds": 0}), "-n", ns)
    ip = running(cluster, ns, "server")["status"]["podIP"]
    get_hook = {"httpGet": {"host": ip, "port": 8080}}
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": [
        pod("hooks", lifecycle={"postStart": {"httpGet": {**get_hook["httpGet"], "path": "/post"}}, "preStop": {"httpGet": {**get_hook["httpGet"], "path": "/pre"}}}),
        pod("exec-hooks", lifecycle={"postStart": {"exec": {"command": ["sh", "-c", f"wget -qO- http://{ip}:8080/post-exec"]}},
            "preStop": {"exec": {"command": ["sh", "-c", f"wget -qO- http://{ip}:8080/pre-exec"]}}})]}, "-n", ns)

    def log():
        return cluster.kubectl("exec", "server", "-n", ns, "--", "cat", "/w/log", check=False)[1]
    for name in ("hooks", "exec-hooks"):
        running(cluster, ns, name)
    eventually(lambda: "GET /post " in log() and "GET /post-exec" in log(), 10, "post hooks")
    cluster.kubectl("delete", "pod", "hooks", "exec-hooks", "-n", ns)
    eventually(lambda: "GET /pre " in log() and "GET /pre-exec" in log(), 10, "pre hooks")


def test_updates_reach_volumes(cluster, ns):
    for kind, key in (("configmap", "cm"), ("secret", "sec")):
        cluster.kubectl("create", *([kind, "generic"] if kind == "secret" else [kind]), key, "--from-literal=k=1", "-n", ns)
    sources = [{"configMap": {"name": "cm"}}, {"secret": {"name": "sec"}}, {"configMap": {"name": "later", "optional": True}}, {"downwardAPI": {"items": [{"path": "labels",
               "fieldRef": {"fieldPath": "metadata.labels"}}]}}]
    volumes = [{"name": "cm", "configMap": {"name": "cm"}}, {"name": "sec", "secret": {"secretName": "sec"}}, {"name": "later", "configMap": {"name": "later", "optional": True}},
               {"name": "pro", "projected": {"sources": sources[2:]}}, {"name": "down", "downwardAPI": sources[3]["downwardAPI"]}]
    cluster.apply(pod("p", spec={"volumes": volumes}, volumeMounts=[{"name": v["name"], "mountPath": f"/{v['name']}"} for v in volumes]), "-n", ns)
    running(cluster, ns, "p")

    def read(path):
        return cluster.kubectl("exec", "p", "-n", ns, "--", "cat", path, check=False)[1]
    assert (read("/cm/k"), read("/sec/k")) == ("1", "1")
    cluster.kubectl("patch", "configmap", "cm", "-n", ns, "-p", '{"data":{"k":"2"}}')
    cluster.kubectl("patch", "secret", "sec", "-n", ns, "-p", json.dumps({"data": {"k": base64.b64encode(b"2").decode()}}))
    cluster.kubectl("create", "configmap", "later", "--from-literal=k=late", "-n", ns)
    cluster.kubectl("label", "pod", "p", "new=label", "-n", ns)
    for path, want in (("/cm/k", "2"), ("/sec/k", "2"), ("/later/k", "late"), ("/pro/k", "late")):
        eventually(lambda: read(path) == want, 60, f"{path} {want}")
    eventually(lambda: 'new="label"' in read("/down/labels") and 'new="label"' in read("/pro/labels"), 60, "labels")
    cluster.kubectl("delete", "configmap", "later", "-n", ns)
    eventually(lambda: read("/later/k") == "", 60, "gone from the volume")


def test_immutable(cluster, api, ns):
    for kind, plural in (("ConfigMap", "configmaps"), ("Secret", "secrets")):
        base = f"/api/v1/namespaces/{ns}/{plural}"
        assert api.post(base, {"apiVersion": "v1", "kind": kind, "metadata": {"name": "i"}, "immutable": True}).status == 201
        for change in ({"immutable": False}, {"data": {"a": "Yg=="}}):
            assert api.call("PATCH", f"{base}/i", change, MERGE).status == 422
        assert api.call("PATCH", f"{base}/i", {"metadata": {"labels": {"a": "b"}}}, MERGE).status == 200
    assert api.post(f"/api/v1/namespaces/{ns}/configmaps", {"metadata": {"name": "e"}, "data": {"": "v"}}).status == 422


def test_generation(cluster, api, ns):
    base = f"/api/v1/namespaces/{ns}/pods"
    eventually(lambda: api.get(f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200, 10)
    made = api.post(base, {**pod("g"), "metadata": {"name": "g", "generation": 100}}).json
    assert made["metadata"]["generation"] == 1
    assert api.call("PATCH", f"{base}/g", {"metadata": {"labels": {"x": "y"}}}, MERGE).json["metadata"]["generation"] == 1
    tolerations = {"spec": {"tolerations": [*made["spec"]["tolerations"], {"key": "k", "operator": "Exists"}]}}
    assert api.call("PATCH", f"{base}/g", tolerations, MERGE).json["metadata"]["generation"] == 2
    for i in range(50):
        tolerations["spec"]["tolerations"].append({"key": f"k{i}", "operator": "Exists"})
        assert api.call("PATCH", f"{base}/g", tolerations, MERGE).status == 200
    eventually(lambda: get(cluster, ns, "g")["status"].get("observedGeneration") == 52 == get(cluster, ns, "g")["metadata"]["generation"], 20, "observed")
    api.call("DELETE", f"{base}/g", {"gracePeriodSeconds": 4})
    assert api.get(f"{base}/g").json["metadata"]["generation"] == 53


def test_resize(cluster, ns):
    res = {"requests": {"cpu": "100m", "memory": "64Mi"}, "limits": {"cpu": "200m", "memory": "128Mi"}}
    cluster.apply(pod("r", resources=res), "-n", ns)
    running(cluster, ns, "r")
    new = {"requests": {"cpu": "150m", "memory": "96Mi"}, "limits": {"cpu": "300m", "memory": "192Mi"}}
    cluster.kubectl("patch", "pod", "r", "-n", ns, "--subresource=resize", "-p", json.dumps({"spec": {"containers": [{"name": "c", "resources": new}]}}))
    eventually(lambda: status(cluster, ns, "r").get("resources") == new and status(cluster, ns, "r").get("allocatedResources") == new["requests"], 30, "the new size in status")
    p = get(cluster, ns, "r")
    assert status(cluster, ns, "r")["restartCount"] == 0
    assert not [c for c in p["status"]["conditions"] if c["type"] in ("PodResizePending", "PodResizeInProgress")], p["status"]["conditions"]


def test_ephemeral_container(cluster, api, ns):
    cluster.apply(pod("e"), "-n", ns)
    running(cluster, ns, "e")
    path = f"/api/v1/namespaces/{ns}/pods/e/ephemeralcontainers"
    p = api.get(path).json
    p["spec"]["ephemeralContainers"] = [{"name": "debugger", "image": IMAGE, "command": ["sh", "-c", "echo polo; sleep 1000"], "stdin": True, "tty": True, "targetContainerName": "c"}]
    assert api.call("PUT", path, p).status == 200
    eventually(lambda: "running" in get(cluster, ns, "e")["status"]["ephemeralContainerStatuses"][0]["state"], 20, "the debugger runs")
    assert "polo" in eventually(lambda: cluster.kubectl("logs", "e", "-c", "debugger", "-n", ns), 10)
    seen = [cluster.kubectl("exec", "e", "-c", c, "-n", ns, "--", "ls", "-l", "/proc/self/ns/pid").split("->")[1] for c in ("c", "debugger")]
    assert seen[0] == seen[1], "the debugger is among the processes of its target"
    r = api.call("PATCH", path, {"spec": {"ephemeralContainers": [{"name": "two", "image": IMAGE, "command": ["true"]}]}}, "application/strategic-merge-patch+json")
    assert r.status == 200 and len(r.json["spec"]["ephemeralContainers"]) == 2


def test_subpath_that_fails_may_be_mended(cluster, ns):
    p = pod("p", spec={"volumes": [{"name": "v", "emptyDir": {}}]}, env=[{"name": "N", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['mysubpath']"}}}],
            volumeMounts=[{"name": "v", "mountPath": "/v", "subPathExpr": "$(N)"}])
    p["metadata"]["annotations"] = {"mysubpath": "/absolute"}
    cluster.apply(p, "-n", ns)
    eventually(lambda: "CreateContainerConfigError" in json.dumps(get(cluster, ns, "p")["status"]), 15, "it waits")
    cluster.kubectl("annotate", "pod", "p", "mysubpath=mypath", "--overwrite", "-n", ns)
    running(cluster, ns, "p", 60)


def test_deadline_may_be_set(cluster, ns):
    cluster.apply(pod("d", spec={"activeDeadlineSeconds": 100}), "-n", ns)
    running(cluster, ns, "d")
    cluster.kubectl("patch", "pod", "d", "-n", ns, "-p", '{"spec":{"activeDeadlineSeconds":2}}')
    eventually(lambda: get(cluster, ns, "d")["status"].get("reason") == "DeadlineExceeded", 20, "the deadline")


def test_taint_evicts(cluster, ns):
    def tolerates(seconds):
        return {"terminationGracePeriodSeconds": 1, "tolerations": [{"key": "conf", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": seconds}]}
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": [pod("none", spec={"terminationGracePeriodSeconds": 1}), pod("least", spec=tolerates(1)),
                   pod("some", spec=tolerates(8))]}, "-n", ns)
    for name in ("none", "least", "some"):
        running(cluster, ns, name)
    cluster.kubectl("taint", "node", "node1", "conf=x:NoExecute")
    try:
        for name in ("none", "least"):
            eventually(lambda: cluster.kubectl("get", "pod", name, "-n", ns, check=False)[0] != 0, 6, f"{name} goes")
        assert "deletionTimestamp" not in get(cluster, ns, "some")["metadata"]
    finally:
        cluster.kubectl("taint", "node", "node1", "conf-")
    time.sleep(7)
    assert "deletionTimestamp" not in get(cluster, ns, "some")["metadata"], "the eviction was cancelled"


def test_host_things(cluster, ns):
    cluster.apply(pod("h", "hostname; " + KEEP, spec={"hostNetwork": True, "hostPID": True}), "-n", ns)
    p = running(cluster, ns, "h")
    assert p["status"]["podIP"] == p["status"]["hostIP"]
    assert cluster.kubectl("exec", "h", "-n", ns, "--", "sh", "-c", "ls /proc | grep -c '^[0-9]'").strip() != "1"


def test_runtime_class(cluster, api, ns):
    eventually(lambda: api.get(f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200, 10)
    r = api.post(f"/api/v1/namespaces/{ns}/pods", pod("none", spec={"runtimeClassName": "conf-none"}))
    assert r.status == 403, r
    base = "/apis/node.k8s.io/v1/runtimeclasses"
    assert api.post(base, {"apiVersion": "node.k8s.io/v1", "kind": "RuntimeClass", "metadata": {"name": "conf-over"}, "handler": "conf-over", "overhead": {"podFixed": {"cpu": "10m", "memory": "1Mi"}},
                           "scheduling": {"nodeSelector": {"no": "where"}}}).status == 201
    r = api.post(f"/api/v1/namespaces/{ns}/pods", pod("over", spec={"runtimeClassName": "conf-over"}))
    assert r.status == 201 and r.json["spec"]["overhead"] == {"cpu": "10m", "memory": "1Mi"} and r.json["spec"]["nodeSelector"] == {"no": "where"}, r
    api.call("DELETE", f"{base}/conf-over")


def test_invalid_sysctl(api, cluster, ns):
    eventually(lambda: api.get(f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200, 10)
    bad = [{"name": n, "value": "1"} for n in ("foo-", "kernel.shmmax", "safe-and-unsafe", "bar..")]
    r = api.post(f"/api/v1/namespaces/{ns}/pods", pod("s", spec={"securityContext": {"sysctls": bad}}))
    assert r.status == 422 and "foo-" in r.json["message"] and "bar.." in r.json["message"] and "kernel.shmmax" not in r.json["message"], r


WEBSOCKET = r"""
import base64, socket, ssl, struct, sys
data, path, protocol = sys.argv[1:4]
c = ssl.create_default_context(cafile=f"{data}/pki/ca.crt")
c.load_cert_chain(f"{data}/pki/admin.crt", f"{data}/pki/admin.key")
s = c.wrap_socket(socket.create_connection(("127.0.0.1", 6443), timeout=10), server_hostname="127.0.0.1")
s.sendall((f"GET {path} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
           f"Sec-WebSocket-Key: {base64.b64encode(b'0' * 16).decode()}\r\nSec-WebSocket-Protocol: {protocol}\r\n\r\n").encode())
f = s.makefile("rb")
print(f.readline().split()[1].decode(), flush=True)
while f.readline().strip():
    pass
while True:
    head = f.read(2)
    if len(head) < 2 or head[0] & 15 == 8:
        break
    n = head[1] & 127
    n = struct.unpack(">H", f.read(2))[0] if n == 126 else n
    sys.stdout.buffer.write(f.read(n))
    sys.stdout.flush()
"""


@pytest.mark.parametrize("path,protocol,want", [
    ("exec?command=echo&command=hi&stdout=1&stderr=1", "v4.channel.k8s.io", "101\n\x01hi\n\x03{\"metadata\":{},\"status\":\"Success\"}"),
    ("exec?command=echo&command=hi&stdout=1&stderr=1", "channel.k8s.io", "101\n\x01hi\n"),
    ("log", "binary.k8s.io", "101\nalive\n"),
    ("log", "base64.binary.k8s.io", "101\n" + base64.b64encode(b"alive\n").decode()),
])
def test_websockets(cluster, ns, path, protocol, want):
    cluster.apply(pod("w", "echo alive; " + KEEP), "-n", ns)
    running(cluster, ns, "w")
    eventually(lambda: cluster.kubectl("logs", "w", "-n", ns), 10, "a first line")
    assert cluster.run("python3", "-c", WEBSOCKET, cluster.data, f"/api/v1/namespaces/{ns}/pods/w/{path}", protocol).stdout == want
