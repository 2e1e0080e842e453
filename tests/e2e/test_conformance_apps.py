"""What upstream's conformance asks of the workload controllers."""

import json
import time

import pytest

from api import Api
from machine import eventually

IMAGE = "test/busybox:1"
MERGE, STRATEGIC = "application/merge-patch+json", "application/strategic-merge-patch+json"
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


@pytest.fixture(scope="module")
def api(cluster):
    a = Api(cluster)
    yield a
    a.close()


def template(labels, command=SLEEP, env="1", **spec):
    return {"metadata": {"labels": labels}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": IMAGE, "command": command, "env": [{"name": "V", "value": env}]}], **spec}}


def workload(kind, name, replicas=None, labels=None, api_version="apps/v1", **spec):
    labels = labels or {"app": name}
    body = {"selector": labels if kind == "ReplicationController" else {"matchLabels": labels}, "template": template(labels), **spec}
    if replicas is not None:
        body["replicas"] = replicas
    return {"apiVersion": "v1" if kind == "ReplicationController" else api_version, "kind": kind, "metadata": {"name": name, "labels": labels}, "spec": body}


def status(cluster, ns, what):
    return cluster.get(what, "-n", ns)["status"]


def patch(cluster, ns, what, body):
    return cluster.kubectl("patch", what, "-n", ns, "--type=merge", "-p", json.dumps(body))


def owner(cluster, ns, name):
    for o in cluster.get("pod", name, "-n", ns)["metadata"].get("ownerReferences", []):
        if o.get("controller"):
            return o["kind"], o["name"]
    return None


@pytest.mark.parametrize("kind", ["ReplicationController", "ReplicaSet"])
def test_adopt_and_release(cluster, ns, kind):
    cluster.kubectl("run", "orphan", "-n", ns, f"--image={IMAGE}", "--labels=app=w", "--command", "--", *SLEEP)
    cluster.apply(workload(kind, "w", 1), "-n", ns)
    eventually(lambda: owner(cluster, ns, "orphan") == (kind, "w"), 15, "adoption")
    assert len(cluster.get("pods", "-n", ns, "-l", "app=w")["items"]) == 1
    cluster.kubectl("label", "pod", "orphan", "app=other", "--overwrite", "-n", ns)
    eventually(lambda: owner(cluster, ns, "orphan") is None, 15, "release")
    eventually(lambda: len(cluster.get("pods", "-n", ns, "-l", "app=w")["items"]) == 1, 15, "a pod in its place")


@pytest.mark.parametrize("kind", ["ReplicationController", "ReplicaSet"])
def test_failure_condition(cluster, ns, kind):
    cluster.kubectl("create", "quota", "q", "--hard=pods=2", "-n", ns)
    eventually(lambda: cluster.get("quota", "q", "-n", ns)["status"].get("used"), 10)
    cluster.apply(workload(kind, "w", 3), "-n", ns)
    where = f"{kind.lower()}/w"

    def failed():
        return [c for c in status(cluster, ns, where).get("conditions", []) if c["type"] == "ReplicaFailure" and c["status"] == "True" and c["reason"] == "FailedCreate"]
    eventually(failed, 20, "ReplicaFailure")
    patch(cluster, ns, where, {"spec": {"replicas": 2}})
    eventually(lambda: not failed(), 20, "ReplicaFailure gone")


@pytest.mark.parametrize("kind", ["replicationcontrollers", "replicasets", "deployments", "statefulsets"])
def test_scale(cluster, api, ns, kind):
    names = {"replicationcontrollers": "ReplicationController", "replicasets": "ReplicaSet", "deployments": "Deployment", "statefulsets": "StatefulSet"}
    cluster.apply(workload(names[kind], "w", 1, **({"serviceName": "w"} if kind == "statefulsets" else {})), "-n", ns)
    base = f"/{'api/v1' if kind == 'replicationcontrollers' else 'apis/apps/v1'}/namespaces/{ns}/{kind}/w"
    scale = api.get(f"{base}/scale").json
    assert scale["kind"] == "Scale" and scale["apiVersion"] == "autoscaling/v1" and scale["spec"]["replicas"] == 1 and scale["metadata"]["name"] == "w"
    scale["metadata"]["resourceVersion"] = ""
    scale["spec"]["replicas"] = 2
    assert api.call("PUT", f"{base}/scale", scale).json["spec"]["replicas"] == 2
    assert api.get(base).json["spec"]["replicas"] == 2
    assert api.call("PATCH", f"{base}/scale", {"spec": {"replicas": 4}}, MERGE).json["spec"]["replicas"] == 4
    eventually(lambda: api.get(base).json["status"].get("readyReplicas") == 4, 30, "4 ready")
    assert api.get(f"{base}/scale").json["status"]["selector"] == "app=w"


def test_proportional_scaling(cluster, ns):
    d = workload("Deployment", "d", 10, strategy={"type": "RollingUpdate", "rollingUpdate": {"maxSurge": 3, "maxUnavailable": 2}})
    d["spec"]["template"]["spec"]["containers"][0]["command"] = ["sleep", "1000"]
    cluster.apply(d, "-n", ns)
    eventually(lambda: status(cluster, ns, "deploy/d").get("availableReplicas") == 10, 40, "10 available")
    patch(cluster, ns, "deploy/d", {"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "none/such:1", "imagePullPolicy": "Never"}]}}}})

    def sizes():
        sets = cluster.get("rs", "-n", ns, "-l", "app=d")["items"]
        sets.sort(key=lambda s: int(s["metadata"]["annotations"]["deployment.kubernetes.io/revision"]))
        return [s["spec"]["replicas"] for s in sets]
    eventually(lambda: sizes() == [8, 5], 20, "8 old and 5 new")
    patch(cluster, ns, "deploy/d", {"spec": {"replicas": 30}})
    eventually(lambda: sizes() == [20, 13], 20, "20 old and 13 new")


def test_deployment_ways(cluster, ns):
    """Recreate, rollover, history limit, rollback, pause."""
    cluster.apply(workload("Deployment", "r", 2, strategy={"type": "Recreate"}), "-n", ns)
    cluster.kubectl("rollout", "status", "deploy/r", "-n", ns, "--timeout=30s")
    first = cluster.get("pods", "-n", ns, "-l", "app=r")["items"][0]["metadata"]["labels"]["pod-template-hash"]
    patch(cluster, ns, "deploy/r", {"spec": {"template": template({"app": "r"}, env="2")}})
    seen = []

    def done():
        pods = cluster.get("pods", "-n", ns, "-l", "app=r")["items"]
        seen.append({p["metadata"]["labels"]["pod-template-hash"] for p in pods if p["status"]["phase"] == "Running"})
        return len(pods) == 2 and first not in seen[-1]
    eventually(done, 30, "new pods alone")
    assert not any(first in s and len(s) > 1 for s in seen), seen
    # rollover: a replica set of the same labels is adopted, and goes down
    old = workload("ReplicaSet", "old", 1, labels={"app": "o"})
    old["spec"]["template"] = template({"app": "o"}, env="old")
    cluster.apply(old, "-n", ns)
    eventually(lambda: status(cluster, ns, "rs/old").get("readyReplicas") == 1, 20)
    cluster.apply(workload("Deployment", "o", 1, minReadySeconds=1, revisionHistoryLimit=0, strategy={"type": "RollingUpdate", "rollingUpdate":
                  {"maxUnavailable": 0, "maxSurge": 1}}), "-n", ns)
    cluster.kubectl("rollout", "status", "deploy/o", "-n", ns, "--timeout=30s")
    eventually(lambda: cluster.kubectl("get", "rs", "old", "-n", ns, check=False)[0] != 0, 20, "the old set is beyond the history limit")
    # undo
    cluster.kubectl("rollout", "undo", "deploy/r", "-n", ns)
    eventually(lambda: {p["metadata"]["labels"]["pod-template-hash"] for p in cluster.pods("app=r", ns=ns)} == {first}, 30, "the first template again")


def test_statefulset_rolling_update(cluster, ns):
    cluster.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "s"}, "spec": {"clusterIP": "None", "selector": {"app": "s"}, "ports": [{"port": 80}]}}, "-n", ns)
    sts = workload("StatefulSet", "s", 3, serviceName="s", updateStrategy={"type": "RollingUpdate", "rollingUpdate": {"partition": 3}})
    cluster.apply(sts, "-n", ns)
    eventually(lambda: status(cluster, ns, "sts/s").get("readyReplicas") == 3, 30, "3 ready")
    old = status(cluster, ns, "sts/s")["currentRevision"]
    patch(cluster, ns, "sts/s", {"spec": {"template": template({"app": "s"}, env="2")}})
    new = eventually(lambda: (lambda s: s["updateRevision"] if s["updateRevision"] != old else None)(status(cluster, ns, "sts/s")), 10, "a new revision")

    def revisions():
        return [cluster.get("pod", f"s-{i}", "-n", ns)["metadata"]["labels"]["controller-revision-hash"] for i in range(3)]
    assert revisions() == [old] * 3
    patch(cluster, ns, "sts/s", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 2}}}})
    eventually(lambda: revisions() == [old, old, new], 30, "the canary")
    cluster.kubectl("delete", "pod", "s-0", "-n", ns)
    eventually(lambda: revisions() == [old, old, new] and status(cluster, ns, "sts/s").get("readyReplicas") == 3, 30, "the canary after a deletion")
    patch(cluster, ns, "sts/s", {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}})
    eventually(lambda: revisions() == [new] * 3 and status(cluster, ns, "sts/s")["currentRevision"] == new, 40, "all new")
    patch(cluster, ns, "sts/s", {"spec": {"template": template({"app": "s"}, env="1")}})
    eventually(lambda: revisions() == [old] * 3, 40, "back")


def test_statefulset_order(cluster, ns):
    """Grows in order, halts at an unhealthy pod, shrinks from the end; Parallel does not wait."""
    sts = workload("StatefulSet", "s", 1, serviceName="s")
    sts["spec"]["template"]["spec"]["containers"][0].update(readinessProbe={"exec": {"command": ["test", "-f", "/tmp/ready"]}, "periodSeconds": 1})
    cluster.apply(sts, "-n", ns)
    eventually(lambda: cluster.get("pod", "s-0", "-n", ns)["status"]["phase"] == "Running", 20)
    patch(cluster, ns, "sts/s", {"spec": {"replicas": 3}})
    time.sleep(1)
    assert cluster.kubectl("get", "pod", "s-1", "-n", ns, check=False)[0] != 0
    for i in range(3):
        eventually(lambda: cluster.get("pod", f"s-{i}", "-n", ns)["status"]["phase"] == "Running", 20, f"s-{i}")
        cluster.kubectl("exec", f"s-{i}", "-n", ns, "--", "touch", "/tmp/ready")
    eventually(lambda: status(cluster, ns, "sts/s").get("readyReplicas") == 3, 20, "3 ready")
    for i in range(3):
        cluster.kubectl("exec", f"s-{i}", "-n", ns, "--", "rm", "/tmp/ready")
    eventually(lambda: not status(cluster, ns, "sts/s").get("readyReplicas"), 20, "none ready")
    patch(cluster, ns, "sts/s", {"spec": {"replicas": 0}})
    time.sleep(1)
    assert len(cluster.get("pods", "-n", ns)["items"]) == 3, "unhealthy: it halts"
    for i in range(3):
        cluster.kubectl("exec", f"s-{i}", "-n", ns, "--", "touch", "/tmp/ready", check=False)
    eventually(lambda: not cluster.get("pods", "-n", ns)["items"], 40, "all gone")
    sts["spec"].update(podManagementPolicy="Parallel", replicas=2)
    sts["metadata"]["name"] = "b"
    cluster.apply(sts, "-n", ns)
    eventually(lambda: len(cluster.get("pods", "-n", ns)["items"]) == 2, 10, "both without waiting")


def test_statefulset_recreates_evicted(cluster, ns):
    """A pod that cannot run where it is (its port is taken) fails, is deleted and made again until the port is free."""
    blocker = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "blocker"}, "spec": {**template({})["spec"], "nodeName": "node1"}}
    blocker["spec"]["containers"][0]["ports"] = [{"containerPort": 21017, "hostPort": 21017}]
    cluster.apply(blocker, "-n", ns)
    eventually(lambda: cluster.get("pod", "blocker", "-n", ns)["status"]["phase"] == "Running", 20)
    sts = workload("StatefulSet", "s", 1, serviceName="s")
    sts["spec"]["template"]["spec"].update(nodeName="node1")
    sts["spec"]["template"]["spec"]["containers"][0]["ports"] = [{"containerPort": 21017, "hostPort": 21017}]
    cluster.apply(sts, "-n", ns)
    uids = set()

    def twice():
        code, out, _ = cluster.kubectl("get", "pod", "s-0", "-n", ns, "-o", "jsonpath={.metadata.uid}", check=False)
        if code == 0:
            uids.add(out)
        return len(uids) > 1
    eventually(twice, 30, "made again")
    cluster.kubectl("delete", "pod", "blocker", "-n", ns)
    eventually(lambda: status(cluster, ns, "sts/s").get("readyReplicas") == 1, 40, "s-0 ready")


def test_daemonset(cluster, ns):
    ds = workload("DaemonSet", "d")
    cluster.apply(ds, "-n", ns)
    pod = cluster.wait_pods("app=d", 1, ns=ns)[0]
    # a failed pod is made again
    cluster.kubectl("patch", "pod", pod["metadata"]["name"], "-n", ns, "--subresource=status", "--type=merge", "-p", '{"status":{"phase":"Failed"}}')
    eventually(lambda: [p["metadata"]["name"] for p in cluster.pods("app=d", ns=ns)] not in ([], [pod["metadata"]["name"]]), 20, "another pod")
    first = cluster.pods("app=d", ns=ns)[0]
    # rolling update to a broken image, then back without a restart of what is right
    patch(cluster, ns, "ds/d", {"spec": {"template": template({"app": "d"}, env="2")}})
    eventually(lambda: (lambda p: p and p[0]["metadata"]["name"] != first["metadata"]["name"] and p[0]["spec"]["containers"][0]["env"][0]["value"] == "2")(
        cluster.pods("app=d", ns=ns)), 30, "the new template")
    # byte for byte what upstream's controller would write: members sorted, HTML's characters escaped
    raw = cluster.kubectl("get", "--raw", f"/apis/apps/v1/namespaces/{ns}/controllerrevisions")
    revisions = json.loads(raw)["items"]
    assert len(revisions) == 2
    assert all(json.dumps(r["data"], sort_keys=True, separators=(",", ":")).replace("&", "\\u0026") in raw for r in revisions), raw
    cluster.kubectl("rollout", "undo", "ds/d", "-n", ns)
    eventually(lambda: (lambda p: p and p[0]["spec"]["containers"][0]["env"][0]["value"] == "1")(cluster.pods("app=d", ns=ns)), 30, "undone")
    # complex: a node selector that the node meets only for a while
    patch(cluster, ns, "ds/d", {"spec": {"template": {"spec": {"nodeSelector": {"daemon": "blue"}}}}})
    eventually(lambda: not cluster.get("pods", "-n", ns)["items"], 20, "no pods without the label")
    cluster.kubectl("label", "node", "node1", "daemon=blue")
    cluster.wait_pods("app=d", 1, ns=ns)
    cluster.kubectl("label", "node", "node1", "daemon-")
    eventually(lambda: not cluster.get("pods", "-n", ns)["items"], 20, "no pods when the label went")


def job(name, command="true", restart="Never", **spec):
    t = template({}, ["sh", "-c", command], restartPolicy=restart)
    return {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": name}, "spec": {"template": t, **spec}}


def condition(cluster, ns, name, kind, seconds=40):
    def there():
        for c in status(cluster, ns, f"job/{name}").get("conditions", []):
            if c["type"] == kind and c["status"] == "True":
                return c
    return eventually(there, seconds, f"{name} {kind}")


IDX = "i=$JOB_COMPLETION_INDEX; "
JOBS = [
    ("indexed", job("indexed", IDX + "echo $i $(hostname)", completions=3, parallelism=2, completionMode="Indexed"), "Complete", None, {"completedIndexes": "0-2", "succeeded": 3}),
    ("local-restarts", job("local-restarts", "test -f /v/x || { touch /v/x; exit 1; }", restart="OnFailure", completions=2, parallelism=2), "Complete", None, {"succeeded": 2}),
    ("backoff", job("backoff", "exit 1", backoffLimit=1), "Failed", "BackoffLimitExceeded", {"failed": 2}),
    ("fail-job", job("fail-job", "exit 42", backoffLimit=5, podFailurePolicy={"rules": [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]}), "Failed",
        "PodFailurePolicy", {"failed": 1}),
    ("per-index", job("per-index", IDX + "test $(($i % 2)) = 1", completions=4, parallelism=4, completionMode="Indexed", backoffLimitPerIndex=0), "Failed", "FailedIndexes",
        {"completedIndexes": "1,3", "failedIndexes": "0,2"}),
    ("fail-index", job("fail-index", IDX + "test $i != 0 || exit 42", completions=2, parallelism=2, completionMode="Indexed", backoffLimitPerIndex=3, podFailurePolicy={"rules":
        [{"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [42]}}]}), "Failed", "FailedIndexes", {"failedIndexes": "0", "completedIndexes": "1", "failed": 1}),
    ("max-failed", job("max-failed", IDX + "test $(($i % 2)) = 1", completions=4, parallelism=1, completionMode="Indexed", backoffLimitPerIndex=0, maxFailedIndexes=0), "Failed",
        "MaxFailedIndexesExceeded", {"failedIndexes": "0"}),
    ("success-all", job("success-all", completions=2, parallelism=2, completionMode="Indexed", successPolicy={"rules": [{"succeededIndexes": "0-1"}]}), "Complete", "SuccessPolicy",
        {"succeeded": 2}),
    ("success-index", job("success-index", IDX + "test $i = 0 || sleep 1000", completions=3, parallelism=3, completionMode="Indexed", successPolicy={"rules":
        [{"succeededIndexes": "0"}]}), "Complete", "SuccessPolicy", {"completedIndexes": "0"}),
    ("success-count", job("success-count", IDX + "test $i = 1 || sleep 1000", completions=3, parallelism=3, completionMode="Indexed", successPolicy={"rules":
        [{"succeededCount": 1}]}), "Complete", "SuccessPolicy", {"completedIndexes": "1"}),
    ("deadline", job("deadline", "sleep 1000", activeDeadlineSeconds=1), "Failed", "DeadlineExceeded", {}),
]


@pytest.fixture(scope="module")
def jobs(cluster):
    ns = "t-jobs"
    cluster.kubectl("create", "namespace", ns)
    for _, j, _, _, _ in JOBS:
        spec = j["spec"]["template"]["spec"]
        spec["volumes"] = [{"name": "v", "emptyDir": {}}]
        spec["containers"][0]["volumeMounts"] = [{"name": "v", "mountPath": "/v"}]
        cluster.apply(j, "-n", ns)
    yield ns
    cluster.kubectl("delete", "namespace", ns, "--wait=false")


@pytest.mark.parametrize("row", JOBS, ids=[r[0] for r in JOBS])
def test_job_ends(cluster, jobs, row):
    name, _, kind, reason, want = row
    c = condition(cluster, jobs, name, kind)
    assert reason is None or c["reason"] == reason, c
    s = status(cluster, jobs, f"job/{name}")
    assert {k: s.get(k) for k in want} == want, s
    assert not s.get("active") and s.get("uncountedTerminatedPods", {}) == {}


def test_job_adopts_and_releases(cluster, ns):
    cluster.apply(job("j", "sleep 1000", parallelism=2), "-n", ns)
    pods = eventually(lambda: (lambda p: p if len(p) == 2 else None)(cluster.pods("job-name=j", ns=ns, ready=False)), 20, "2 pods")
    name = pods[0]["metadata"]["name"]
    patch(cluster, ns, f"pod/{name}", {"metadata": {"ownerReferences": None}})
    eventually(lambda: owner(cluster, ns, name) == ("Job", "j"), 15, "adopted again")
    patch(cluster, ns, f"pod/{name}", {"metadata": {"labels": None}})
    eventually(lambda: owner(cluster, ns, name) is None, 15, "released")


def test_job_ignores_disruption(cluster, ns):
    cluster.apply(job("j", "test -f /tmp/x || sleep 5", backoffLimit=0, podFailurePolicy={"rules": [{"action": "Ignore", "onPodConditions":
                  [{"type": "DisruptionTarget"}]}]}), "-n", ns)
    pod = cluster.wait_pods("job-name=j", 1, ns=ns)[0]["metadata"]["name"]
    cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{ns}/pods/{pod}/eviction", "-f", "-",
                    input=json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": pod, "namespace": ns}}))
    eventually(lambda: [p for p in cluster.pods("job-name=j", ns=ns) if p["metadata"]["name"] != pod], 20, "another pod")
    condition(cluster, ns, "j", "Complete")


def test_job_suspend(cluster, ns):
    cluster.apply(job("j", "sleep 1000", suspend=True), "-n", ns)
    condition(cluster, ns, "j", "Suspended")
    assert not cluster.get("pods", "-n", ns)["items"]
    patch(cluster, ns, "job/j", {"spec": {"suspend": False}})
    cluster.wait_pods("job-name=j", 1, ns=ns)
    patch(cluster, ns, "job/j", {"spec": {"suspend": True}})
    eventually(lambda: not cluster.get("pods", "-n", ns)["items"], 20, "no pods while suspended")


def test_disruption_budget(cluster, ns):
    budget = {"apiVersion": "policy/v1", "kind": "PodDisruptionBudget", "metadata": {"name": "b"}, "spec": {"minAvailable": 2, "selector": {"matchLabels": {"app": "w"}}}}
    cluster.apply(workload("ReplicaSet", "w", 2), "-n", ns)
    pods = cluster.wait_pods("app=w", 2, ns=ns)
    cluster.apply(budget, "-n", ns)
    eventually(lambda: status(cluster, ns, "pdb/b").get("currentHealthy") == 2, 10, "2 healthy")

    def evict():
        name = pods[0]["metadata"]["name"]
        return cluster.kubectl("create", "--raw", f"/api/v1/namespaces/{ns}/pods/{name}/eviction", "-f", "-", check=False,
                               input=json.dumps({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": name, "namespace": ns}}))
    code, _, err = evict()
    assert code != 0 and "disruption budget" in err, err
    patch(cluster, ns, "pdb/b", {"spec": {"minAvailable": 1}})
    eventually(lambda: status(cluster, ns, "pdb/b").get("disruptionsAllowed") == 1, 10, "1 allowed")
    code, _, err = evict()
    assert code == 0, err
