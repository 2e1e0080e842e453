"""Stock kubectl, old and new, against the cluster."""

import json
import re

import pytest

from machine import eventually

VERSIONS = ["1.20", "1.34", "1.35"]
POD = """
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {ns}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{{name: c, image: test/busybox:1, command: [sh, -c, "echo first; echo second; trap 'exit 0' TERM; sleep 1000 & wait"]}}]
"""


@pytest.fixture(params=VERSIONS)
def k(request, cluster, ns):
    def call(*args, **kw):
        return cluster.kubectl("-n", ns, *args, version=request.param, **kw)
    call.version, call.ns = request.param, ns
    return call


def test_version_and_resources(k):
    assert "v1.36" in k("version", *(["--short"] if k.version == "1.20" else []))
    out = k("api-resources")
    for line in (r"pods +po +v1 +true +Pod", r"deployments +deploy +apps/v1 +true +Deployment", r"nodes +no +v1 +false +Node"):
        assert re.search(line, out), line
    assert "apps/v1" in k("api-versions").split()


def test_pod_life(k):
    k("apply", "-f", "-", input=POD.format(name="p", ns=k.ns))
    k("wait", "--for=condition=Ready", "pod/p", "--timeout=30s")
    head, row = k("get", "pod", "p").splitlines()
    assert head.split() == ["NAME", "READY", "STATUS", "RESTARTS", "AGE"]
    assert row.split()[:4] == ["p", "1/1", "Running", "0"]
    assert k("get", "pod", "p", "-o", "wide").split("\n")[0].split()[5:7] == ["IP", "NODE"]
    assert k("get", "pod", "p", "-o", "jsonpath={.status.phase}") == "Running"
    assert json.loads(k("get", "pod", "p", "-o", "json"))["kind"] == "Pod"
    assert "kind: Pod" in k("get", "pod", "p", "-o", "yaml")
    described = k("describe", "pod", "p")
    for text in ("Status: ", "Running", "Scheduled", "Started", "QoS Class"):
        assert text in described, text
    assert k("logs", "p").splitlines() == ["first", "second"]
    assert k("logs", "p", "--tail=1").strip() == "second"
    assert k("exec", "p", "--", "echo", "hi").strip() == "hi"
    assert k("exec", "-i", "p", "--", "cat", input="through stdin\n").strip() == "through stdin"
    status, _, err = k("exec", "p", "--", "sh", "-c", "exit 7", check=False)
    assert status == 7, err
    assert "unchanged" in k("apply", "-f", "-", input=POD.format(name="p", ns=k.ns))
    k("label", "pod", "p", "colour=blue")
    k("annotate", "pod", "p", "note=x y")
    assert k("get", "pods", "-l", "colour=blue", "-o", "name").strip() == "pod/p"
    assert k("get", "pods", "-l", "colour=red", "-o", "name").strip() == ""
    assert k("get", "pods", "--field-selector", "status.phase=Running", "-o", "name").strip() == "pod/p"
    assert "Scheduled" in k("get", "events")
    k("delete", "pod", "p")
    assert k("get", "pods", check=False)[1] == ""


def test_force_delete(k):
    k("run", "gone", "--image=test/busybox:1", "--command", "--", "sleep", "1000")
    k("wait", "--for=condition=Ready", "pod/gone", "--timeout=30s")
    k("delete", "pod", "gone", "--force", "--grace-period=0")
    assert "NotFound" in k("get", "pod", "gone", check=False)[2]


def test_logs_follow(cluster, k):
    k("run", "talk", "--image=test/busybox:1", "--restart=Never", "--command", "--", "sh", "-c", "for i in 1 2 3; do echo line $i; sleep 0.3; done")
    eventually(lambda: k("get", "pod", "talk", "-o", "jsonpath={.status.phase}") in ("Running", "Succeeded"), 20)
    assert k("logs", "-f", "talk").splitlines() == ["line 1", "line 2", "line 3"]
    eventually(lambda: k("get", "pod", "talk", "-o", "jsonpath={.status.phase}") == "Succeeded", 20)


def test_deployment_life(k):
    k("create", "deployment", "web", "--image=test/busybox:1", "--dry-run=client", "-o", "yaml")
    manifest = json.dumps({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"},
        "spec": {"replicas": 2, "selector": {"matchLabels": {"app": "web"}},
                 "template": {"metadata": {"labels": {"app": "web"}},
                              "spec": {"terminationGracePeriodSeconds": 0,
                                       "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sleep", "1000"]}]}}}})
    assert "created" in k("apply", "-f", "-", input=manifest)
    assert "successfully rolled out" in k("rollout", "status", "deployment/web", "--timeout=40s")
    head, row = k("get", "deployment", "web").splitlines()
    assert head.split() == ["NAME", "READY", "UP-TO-DATE", "AVAILABLE", "AGE"]
    assert row.split()[:4] == ["web", "2/2", "2", "2"]
    k("scale", "deployment", "web", "--replicas=3")
    eventually(lambda: k("get", "deployment", "web", "-o", "jsonpath={.status.readyReplicas}") == "3", 30)
    k("set", "env", "deployment/web", "COLOUR=blue")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    pod = k("get", "pods", "-l", "app=web", "--field-selector=status.phase=Running", "-o", "jsonpath={.items[0].metadata.name}")
    assert k("exec", pod, "--", "sh", "-c", "echo $COLOUR").strip() == "blue"
    history = k("rollout", "history", "deployment/web")
    assert re.search(r"^1 ", history, re.M) and re.search(r"^2 ", history, re.M)
    k("rollout", "undo", "deployment/web")
    k("rollout", "status", "deployment/web", "--timeout=60s")
    eventually(lambda: "COLOUR" not in k("get", "deployment", "web", "-o", "json"), 10)
    k("expose", "deployment", "web", "--port=80", "--target-port=8080")
    assert re.match(r"10\.43\.", k("get", "service", "web", "-o", "jsonpath={.spec.clusterIP}"))
    assert "Endpoints" in k("describe", "service", "web")
    k("delete", "deployment", "web")
    eventually(lambda: json.loads(k("get", "pods,replicasets", "-o", "json"))["items"] == [], 30, "pods and replica sets collected")


def test_config_and_secret(k):
    k("create", "configmap", "settings", "--from-literal=colour=blue", "--from-literal=size=9")
    k("create", "secret", "generic", "key", "--from-literal=password=s3cret")
    k("apply", "-f", "-", input=json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "reader"},
        "spec": {"terminationGracePeriodSeconds": 0,
                 "volumes": [{"name": "c", "configMap": {"name": "settings"}}, {"name": "s", "secret": {"secretName": "key"}}],
                 "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sleep", "1000"],
                                 "env": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "key", "key": "password"}}},
                                         {"name": "ME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}}],
                                 "envFrom": [{"configMapRef": {"name": "settings"}}],
                                 "volumeMounts": [{"name": "c", "mountPath": "/c"}, {"name": "s", "mountPath": "/s"}]}]}}))
    k("wait", "--for=condition=Ready", "pod/reader", "--timeout=30s")
    assert k("exec", "reader", "--", "sh", "-c", "echo $PASSWORD $ME $colour; cat /c/size /s/password").split() == ["s3cret", "reader", "blue", "9s3cret"]
    token = k("exec", "reader", "--", "cat", "/var/run/secrets/kubernetes.io/serviceaccount/token")
    assert token.count(".") == 2
    if k.version == VERSIONS[-1]:
        # A change reaches the volume of a running pod.
        k("patch", "configmap", "settings", "-p", '{"data":{"size":"10"}}')
        eventually(lambda: k("exec", "reader", "--", "cat", "/c/size") == "10", 90, "the new value in the volume")


def test_auth_can_i(k):
    assert k("auth", "can-i", "create", "pods").strip() == "yes"
    status, out, _ = k("auth", "can-i", "create", "pods", "--as=nobody", check=False)
    assert out.strip().startswith("no") and status == 1


def test_errors(k):
    for args, text in (
            (("get", "pod", "missing"), 'Error from server (NotFound): pods "missing" not found'),
            (("get", "thing"), "the server doesn't have a resource type"),
            (("delete", "namespace", "default", "--wait=false"), "forbidden")):
        status, _, err = k(*args, check=False)
        assert status != 0 and text in err, err
    status, _, err = k("apply", "-f", "-", check=False, input=json.dumps({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "BAD_name"}, "spec": {"containers": [{"name": "c", "image": "x"}]}}))
    assert status != 0 and 'The Pod "BAD_name" is invalid: metadata.name: Invalid value: "BAD_name"' in err, err


def test_get_watch(cluster, k):
    """`get -w` shows each change as it comes."""
    import subprocess
    import os
    from machine import CLIENTS
    p = subprocess.Popen(cluster.enter(os.path.join(CLIENTS, f"kubectl-{k.version}"), "--kubeconfig", cluster.kubeconfig, "-n", k.ns, "get", "configmaps",
                                       "-w", "-o", "name"), stdout=subprocess.PIPE, text=True)
    try:
        k("create", "configmap", "one", "--from-literal=a=b")
        k("create", "configmap", "two", "--from-literal=a=b")
        seen = set()
        while not {"configmap/one", "configmap/two"} <= seen:
            line = p.stdout.readline()
            assert line, "the watch ended"
            seen.add(line.strip())
    finally:
        p.kill()
        p.wait()
