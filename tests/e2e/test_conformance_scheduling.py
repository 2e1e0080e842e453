"""What upstream's conformance asks of the scheduler: predicates, preemption, priorities, limits, quotas. Room is counted in a resource of our own."""

import json

import pytest

from api import Api
from machine import eventually

IMAGE = "test/busybox:1"
FOO = "example.com/foo"
KEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]
MERGE, JSON_PATCH = "application/merge-patch+json", "application/json-patch+json"


@pytest.fixture(scope="module")
def api(cluster):
    a = Api(cluster)
    yield a
    a.close()


@pytest.fixture
def room(cluster, api):
    """Five foo on the node, and priorities."""
    r = api.call("PATCH", "/api/v1/nodes/node1/status", {"status": {"capacity": {FOO: "5"}}}, MERGE)
    assert r.status == 200, r
    eventually(lambda: cluster.get("node", "node1")["status"]["allocatable"].get(FOO) == "5", 15, "allocatable foo")
    for name, value in (("conf-low", 1), ("conf-mid", 100), ("conf-high", 1000)):
        api.post("/apis/scheduling.k8s.io/v1/priorityclasses", {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": name}, "value": value})
    yield


def foo_pod(name, n, priority=None, labels=None, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": labels or {}, **({"finalizers": spec.pop("finalizers")} if "finalizers" in spec else {})},
            "spec": {"terminationGracePeriodSeconds": 1, **({"priorityClassName": priority} if priority else {}), "containers": [{"name": "c", "image": IMAGE, "command": KEEP,
            "resources": {"requests": {FOO: str(n)}, "limits": {FOO: str(n)}}}], **spec}}


def running(cluster, ns, name):
    return cluster.get("pod", name, "-n", ns)["status"].get("phase") == "Running"


def refused(cluster, ns, name, text):
    def told():
        for c in cluster.get("pod", name, "-n", ns)["status"].get("conditions", []):
            if c["type"] == "PodScheduled" and c["status"] == "False" and c["reason"] == "Unschedulable" and text in c["message"]:
                return True
    eventually(told, 10, f"{name} refused: {text}")


def test_resource_limits(cluster, ns, room):
    cluster.apply(foo_pod("a", 4), "-n", ns)
    cluster.apply(foo_pod("b", 2), "-n", ns)
    refused(cluster, ns, "b", f"Insufficient {FOO}")
    cluster.kubectl("delete", "pod", "a", "-n", ns)
    eventually(lambda: running(cluster, ns, "b"), 15, "b runs")


def test_selectors(cluster, ns):
    def pod(name, **spec):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE, "command": KEEP}], **spec}}
    cluster.apply(pod("s", nodeSelector={"conf": "x"}), "-n", ns)
    refused(cluster, ns, "s", "didn't match Pod's node affinity/selector")
    cluster.kubectl("label", "node", "node1", "conf=x")
    eventually(lambda: running(cluster, ns, "s"), 15, "s runs")
    cluster.kubectl("label", "node", "node1", "conf-")
    near = {"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"labelSelector": {"matchLabels": {"x": "y"}}, "topologyKey": "kubernetes.io/hostname"}]}}}
    cluster.apply(pod("near", **near), "-n", ns)
    refused(cluster, ns, "near", "didn't match pod affinity rules")
    cluster.kubectl("label", "pod", "s", "x=y", "-n", ns)
    eventually(lambda: running(cluster, ns, "near"), 15, "near runs")
    far = json.loads(json.dumps(near).replace("podAffinity", "podAntiAffinity"))
    cluster.apply(pod("far", **far), "-n", ns)
    refused(cluster, ns, "far", "didn't match pod anti-affinity rules")


def test_claims(cluster, ns):
    """A pod waits for its claim to be there and bound; one that waits for its consumer is bound where the pod goes."""
    cluster.apply({"apiVersion": "storage.k8s.io/v1", "kind": "StorageClass", "metadata": {"name": f"late-{ns}"}, "provisioner": "kubernetes.io/no-provisioner",
                   "volumeBindingMode": "WaitForFirstConsumer"})

    def pod(name, claim):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE, "command": KEEP,
                "volumeMounts": [{"name": "v", "mountPath": "/v"}]}], "volumes": [{"name": "v", "persistentVolumeClaim": {"claimName": claim}}]}}

    def volume(name, klass, node=None):
        affinity = {"nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]}]}}} if node else {}
        return {"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{name}-{ns}"}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"],
                "storageClassName": klass, "hostPath": {"path": f"/tmp/{name}-{ns}", "type": "DirectoryOrCreate"}, **affinity}}

    def claim(name, klass):
        return {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "namespace": ns}, "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": klass,
                "resources": {"requests": {"storage": "1Gi"}}}}
    cluster.apply(pod("a", "now"), "-n", ns)
    refused(cluster, ns, "a", 'persistentvolumeclaim "now" not found')
    cluster.apply(claim("now", f"now-{ns}"))
    refused(cluster, ns, "a", "unbound immediate")
    cluster.apply(volume("now", f"now-{ns}"))
    eventually(lambda: running(cluster, ns, "a"), 15, "a runs")
    cluster.apply(claim("late", f"late-{ns}"))
    cluster.apply(volume("elsewhere", f"late-{ns}", "node2"))
    cluster.apply(pod("b", "late"), "-n", ns)
    refused(cluster, ns, "b", "didn't find available persistent volumes to bind")
    cluster.apply(volume("here", f"late-{ns}", "node1"))
    eventually(lambda: running(cluster, ns, "b"), 15, "b runs")
    assert cluster.get("pvc", "late", "-n", ns)["spec"]["volumeName"] == f"here-{ns}"
    cluster.kubectl("delete", "pv", f"now-{ns}", f"here-{ns}", f"elsewhere-{ns}", "--wait=false")


def test_host_ports(cluster, ns):
    def pod(name, ip, protocol="TCP"):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE, "command": KEEP, "ports": [
            {"containerPort": 54322, "hostPort": 54322, "hostIP": ip, "protocol": protocol}]}]}}
    for name, ip, protocol in (("p1", "127.0.0.1", "TCP"), ("p2", "192.0.2.10", "TCP"), ("p3", "192.0.2.10", "UDP")):
        cluster.apply(pod(name, ip, protocol), "-n", ns)
        eventually(lambda: running(cluster, ns, name), 15, f"{name} runs")
    cluster.apply(pod("p4", "0.0.0.0"), "-n", ns)
    refused(cluster, ns, "p4", "didn't have free ports")


@pytest.mark.parametrize("priority", ["conf-high", "system-cluster-critical"])
def test_preemption(cluster, api, ns, room, priority):
    where = "kube-system" if priority.startswith("system") else ns
    cluster.apply(foo_pod("low", 3, "conf-low", finalizers=["example.com/keep"]), "-n", ns)
    cluster.apply(foo_pod("mid", 2, "conf-mid"), "-n", ns)
    for name in ("low", "mid"):
        eventually(lambda: running(cluster, ns, name), 15, f"{name} runs")
    cluster.apply(foo_pod("high", 3, priority), "-n", where)
    eventually(lambda: cluster.get("pod", "low", "-n", ns)["metadata"].get("deletionTimestamp"), 15, "low must go")
    c = [c for c in cluster.get("pod", "low", "-n", ns)["status"]["conditions"] if c["type"] == "DisruptionTarget"]
    assert c and c[0]["status"] == "True" and c[0]["reason"] == "PreemptionByScheduler", c
    eventually(lambda: cluster.get("pod", "high", "-n", where)["status"].get("nominatedNodeName") in ("node1", None), 10)
    api.call("PATCH", f"/api/v1/namespaces/{ns}/pods/low", [{"op": "remove", "path": "/metadata/finalizers"}], JSON_PATCH)
    eventually(lambda: running(cluster, where, "high"), 20, "high runs")
    assert running(cluster, ns, "mid") and "Preempted" in cluster.kubectl("get", "events", "-n", ns)
    cluster.kubectl("delete", "pod", "high", "-n", where)


def test_preemption_spares_budgets(cluster, ns, room):
    cluster.apply(foo_pod("kept", 2, "conf-low", labels={"app": "kept"}), "-n", ns)
    cluster.apply(foo_pod("goes", 2, "conf-mid"), "-n", ns)
    eventually(lambda: running(cluster, ns, "kept") and running(cluster, ns, "goes"), 15)
    cluster.kubectl("create", "pdb", "b", "--selector=app=kept", "--min-available=1", "-n", ns)
    eventually(lambda: cluster.get("pdb", "b", "-n", ns)["status"].get("currentHealthy") == 1, 10)
    cluster.apply(foo_pod("high", 2, "conf-high"), "-n", ns)
    eventually(lambda: running(cluster, ns, "high"), 20, "high runs")
    assert running(cluster, ns, "kept") and cluster.kubectl("get", "pod", "goes", "-n", ns, check=False)[0] != 0


def test_replica_sets_preempt(cluster, ns, room):
    def rs(name, replicas, priority):
        p = foo_pod(name, 1, priority, {"name": name})
        return {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"name": name}}, "template":
                {"metadata": p["metadata"] | {"name": ""}, "spec": p["spec"]}}}
    cluster.apply(rs("r1", 3, "conf-low"), "-n", ns)
    cluster.apply(rs("r2", 2, "conf-mid"), "-n", ns)
    cluster.wait_pods("name=r1", 3, ns=ns)
    cluster.wait_pods("name=r2", 2, ns=ns)
    cluster.apply(rs("r3", 4, "conf-high"), "-n", ns)
    cluster.wait_pods("name=r3", 4, ns=ns)
    assert len(cluster.pods("name=r2", ns=ns)) == 1 and not cluster.pods("name=r1", ns=ns)


def test_priority_classes(api):
    base = "/apis/scheduling.k8s.io/v1/priorityclasses"
    body = {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "conf-p"}, "value": 7}
    assert api.post(base, body).status == 201
    r = api.call("PATCH", f"{base}/conf-p", {"value": 8}, MERGE)
    assert r.status in (403, 422) and "may not be changed in an update" in r.json["message"], r
    r = api.call("PUT", f"{base}/conf-p", {**body, "value": 9})
    assert r.status in (403, 422), r
    assert api.call("PATCH", f"{base}/conf-p", {"description": "d"}, MERGE).status == 200
    assert api.call("DELETE", f"{base}/conf-p").status == 200


def test_limit_range(cluster, api, ns):
    limits = {"type": "Container", "min": {"cpu": "50m", "memory": "100Mi"}, "max": {"cpu": "500m", "memory": "500Mi"}, "default": {"cpu": "500m", "memory": "500Mi"},
              "defaultRequest": {"cpu": "100m", "memory": "200Mi"}}
    cluster.apply({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "l"}, "spec": {"limits": [limits]}}, "-n", ns)

    def pod(name, **resources):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": IMAGE, "resources": resources}]}}
    base = f"/api/v1/namespaces/{ns}/pods"
    for name, given, requests, most in (
            ("none", {}, {"cpu": "100m", "memory": "200Mi"}, {"cpu": "500m", "memory": "500Mi"}),
            ("part", {"requests": {"cpu": "60m"}, "limits": {"memory": "300Mi"}}, {"cpu": "60m", "memory": "300Mi"}, {"cpu": "500m", "memory": "300Mi"})):
        got = api.post(base, pod(name, **given)).json["spec"]["containers"][0]["resources"]
        assert (got["requests"], got["limits"]) == (requests, most), got
    for name, given in (("small", {"requests": {"cpu": "10m"}}), ("big", {"requests": {"cpu": "600m"}, "limits": {"cpu": "600m"}})):
        assert api.post(base, pod(name, **given)).status == 403


def test_quota_life(cluster, api, ns):
    hard = {"pods": "2", "configmaps": "10", "secrets": "10", "services": "3", "services.nodeports": "1", "services.loadbalancers": "1", "replicationcontrollers": "5",
            "count/replicasets.apps": "5", "persistentvolumeclaims": "5", "requests.storage": "10Gi", "requests.cpu": "1", "limits.memory": "1Gi", "resourcequotas": "2"}
    cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": hard}}, "-n", ns)

    def used(**want):
        want = {k.replace("__", "/").replace("_", "."): v for k, v in want.items()}
        eventually(lambda: (lambda u: u if {k: u.get(k) for k in want} == want else None)(cluster.get("quota", "q", "-n", ns)["status"].get("used", {})), 10, f"used {want}")
    used(pods="0", resourcequotas="1", services="0")
    assert cluster.get("quota", "q", "-n", ns)["status"]["hard"] == hard
    maps = int(cluster.get("quota", "q", "-n", ns)["status"]["used"]["configmaps"])
    cluster.kubectl("create", "configmap", "c", "-n", ns)
    used(configmaps=str(maps + 1))
    cluster.kubectl("delete", "configmap", "c", "-n", ns)
    used(configmaps=str(maps))
    cluster.kubectl("create", "service", "nodeport", "n", "--tcp=80", "-n", ns)
    used(services="1", services_nodeports="1", services_loadbalancers="0")
    assert cluster.kubectl("create", "service", "nodeport", "m", "--tcp=80", "-n", ns, check=False)[0] != 0
    cluster.kubectl("delete", "service", "n", "-n", ns)
    used(services="0", services_nodeports="0")
    secrets = int(cluster.get("quota", "q", "-n", ns)["status"]["used"]["secrets"])
    cluster.kubectl("create", "secret", "generic", "s", "-n", ns)
    used(secrets=str(secrets + 1))
    t = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": IMAGE}]}}
    cluster.apply({"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "rc"}, "spec": {"replicas": 0, "selector": {"a": "b"}, "template": t}}, "-n", ns)
    cluster.apply({"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": {"name": "rs"}, "spec": {"replicas": 0, "selector": {"matchLabels": {"a": "b"}}, "template": t}}, "-n", ns)
    used(replicationcontrollers="1", **{"count__replicasets_apps": "1"})
    cluster.kubectl("delete", "secret/s", "rc/rc", "rs/rs", "-n", ns)
    used(secrets=str(secrets), replicationcontrollers="0", **{"count__replicasets_apps": "0"})
    cluster.kubectl("patch", "quota", "q", "-n", ns, "-p", '{"spec":{"hard":{"pods":"3"}}}')
    eventually(lambda: cluster.get("quota", "q", "-n", ns)["status"]["hard"]["pods"] == "3", 10, "the new limit")
    p = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": IMAGE, "command": KEEP, "resources": {"requests": {"cpu": "500m"},
         "limits": {"memory": "100Mi"}}}], "terminationGracePeriodSeconds": 1}}
    cluster.apply(p, "-n", ns)
    used(pods="1", requests_cpu="500m", limits_memory="100Mi")
    p["metadata"]["name"], p["spec"]["containers"][0]["resources"]["requests"]["cpu"] = "p2", "600m"
    r = api.post(f"/api/v1/namespaces/{ns}/pods", p)
    assert r.status == 403 and "exceeded quota: q, requested: requests.cpu=600m, used: requests.cpu=500m, limited: requests.cpu=1" in r.json["message"], r
    cluster.kubectl("delete", "pod", "p", "-n", ns)
    used(pods="0", requests_cpu="0", limits_memory="0")


@pytest.mark.parametrize("scope,other,spec,outside", [
    ("BestEffort", "NotBestEffort", {}, {"resources": {"requests": {"cpu": "10m", "memory": "16Mi"}}}),
    ("Terminating", "NotTerminating", {"activeDeadlineSeconds": 3600}, {}),
])
def test_quota_scopes(cluster, ns, scope, other, spec, outside):
    for name, s in (("in", scope), ("out", other)):
        cluster.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": name}, "spec": {"hard": {"pods": "5"}, "scopes": [s]}}, "-n", ns)

    def used():
        return [cluster.get("quota", n, "-n", ns)["status"].get("used", {}).get("pods") for n in ("in", "out")]
    eventually(lambda: used() == ["0", "0"], 10)
    base = {"terminationGracePeriodSeconds": 1, "nodeSelector": {"no": "where"}}
    for name, s, c, want in (("a", spec, {}, ["1", "0"]), ("b", {}, outside, ["0", "1"])):
        cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {**base, **s, "containers": [{"name": "c", "image": IMAGE, **c}]}}, "-n", ns)
        eventually(lambda: used() == want, 10, f"{name}: {want}")
        cluster.kubectl("delete", "pod", name, "-n", ns)
        eventually(lambda: used() == ["0", "0"], 10)
