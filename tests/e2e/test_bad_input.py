"""Bad input over HTTP and at start: a clear error with upstream's code and reason, nothing lost, nothing leaked. Runs against the ordinary build, and
against the one with ASan and UBSan when there is one (a finding of theirs ends the server, which fails the test)."""

import base64
import json
import os
import sqlite3
import subprocess
import time

import pytest

import machine as machines
from api import Api
from machine import ROOT, Machine, eventually

BUILDS = [p for p in ("build/skiff", "build-san/skiff") if os.path.exists(os.path.join(ROOT, p))]
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
PODS = "/api/v1/namespaces/default/pods"


def configmap(name, **kw):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, **kw}


@pytest.fixture(scope="module", params=BUILDS)
def api(request):
    m = Machine(name="control")
    was, machines.SKIFF = machines.SKIFF, os.path.join(ROOT, request.param)
    try:
        m.start("--no-agent")
        a = Api(m)
        # What controllers put into each namespace is there before anything is compared.
        for path in ("serviceaccounts/default", "configmaps/kube-root-ca.crt"):
            eventually(lambda: a.get(f"/api/v1/namespaces/default/{path}").status == 200, 20, path)
        yield a
        pids = m.skiff_pids()
        a.close()
        m.stop()
        assert "control-plane" in pids
        text = m.log_text(2000)
        assert "ERROR: AddressSanitizer" not in text and "runtime error" not in text and "LeakSanitizer" not in text, text
    finally:
        machines.SKIFF = was
        m.close()


@pytest.fixture(autouse=True)
def still_there(request):
    """After each bad request an ordinary one works, and nothing was stored."""
    if "api" not in request.fixturenames:
        yield
        return
    api = request.getfixturevalue("api")
    before = sorted(o["metadata"]["name"] for o in api.get(CONFIGMAPS).json["items"])
    yield
    r = api.get(CONFIGMAPS)
    assert r.status == 200
    assert sorted(o["metadata"]["name"] for o in r.json["items"]) == before


def expect(r, code, reason, *texts):
    assert r.status == code, r
    assert r.json["kind"] == "Status" and r.json["status"] == "Failure" and r.json["code"] == code and r.json["reason"] == reason, r
    for t in texts:
        assert t in r.json["message"], r
    return r.json


@pytest.mark.parametrize("body", ["", "{", "{]", '{"a":}', "[1,2", "nul", '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"}}x', "\0\0\0"])
def test_malformed_json(api, body):
    expect(api.post(CONFIGMAPS, body), 400, "BadRequest")


@pytest.mark.parametrize("body", ["a: [", "\t- x: y", "a: b: c: d", "%YAML 9.9\n---\n: :", "&a [*a]"])
def test_malformed_yaml(api, body):
    expect(api.post(CONFIGMAPS, body, content_type="application/yaml"), 400, "BadRequest")


@pytest.mark.parametrize("body", [b"", b"k8s\0\x0a\xff\xff\xff\xff\x0f", b"nope", b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x03\x0a\x7f\x01"])
def test_malformed_protobuf(api, body):
    expect(api.post(CONFIGMAPS, body, content_type="application/vnd.kubernetes.protobuf"), 400, "BadRequest")


def test_unknown_field(api):
    body = configmap("unknown", spam=1)
    s = expect(api.post(CONFIGMAPS + "?fieldValidation=Strict", body), 400, "BadRequest", 'strict decoding error: unknown field "spam"')
    assert s["message"].startswith('ConfigMap in version "v1" cannot be handled as a ConfigMap')
    r = api.post(CONFIGMAPS + "?fieldValidation=Warn&dryRun=All", body)
    assert r.status == 201 and 'unknown field \\"spam\\"' in r.headers["warning"], r.headers


def test_duplicate_field(api):
    body = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a","name":"b"}}'
    expect(api.post(CONFIGMAPS + "?fieldValidation=Strict", body), 400, "BadRequest", 'duplicate field "metadata.name"')


@pytest.mark.parametrize("data", [{"a": 1}, {"a": None, "b": {}}, [], "text"])
def test_wrong_type(api, data):
    expect(api.post(CONFIGMAPS, configmap("wrong", data=data)), 400, "BadRequest", "cannot unmarshal")


def test_wrong_number(api):
    body = {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "n"}, "spec": {"replicas": 99999999999}}
    expect(api.post("/api/v1/namespaces/default/replicationcontrollers", body), 400, "BadRequest")


def test_large_body(api):
    expect(api.post(CONFIGMAPS, configmap("large", data={"a": "x" * (4 << 20)}), fresh=True), 413, "RequestEntityTooLarge")


def test_deep_nesting(api):
    deep = '{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"a"},"data":' + '{"a":' * 10000 + "1" + "}" * 10000 + "}"
    expect(api.post(CONFIGMAPS, deep), 400, "BadRequest")
    expect(api.post(CONFIGMAPS, "[" * 10000), 400, "BadRequest")
    expect(api.post(CONFIGMAPS, "- " * 10000, content_type="application/yaml"), 400, "BadRequest")


def test_invalid_utf8(api):
    body = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"utf"},"data":{"a":"\xff\xfe"}}'
    r = api.post(CONFIGMAPS + "?dryRun=All", body)
    # Go's decoder replaces what is no UTF-8; what is stored is always valid.
    assert (r.status == 201 and r.json["data"]["a"] == "\ufffd\ufffd") or r.status == 400, r


@pytest.mark.parametrize("name", ["BAD", "a_b", "-a", "a" * 254, "a/b", "..", ""])
def test_bad_name(api, name):
    s = expect(api.post(CONFIGMAPS, configmap(name)), 422, "Invalid")
    assert s["details"]["causes"][0]["field"].startswith("metadata.name")
    assert s["details"]["kind"] == "ConfigMap"


def test_conflict(api):
    path = CONFIGMAPS + "/stale"
    one = api.post(CONFIGMAPS, configmap("stale", data={"n": "1"})).json
    try:
        two = api.call("PUT", path, dict(one, data={"n": "2"}))
        assert two.status == 200
        expect(api.call("PUT", path, dict(one, data={"n": "3"})), 409, "Conflict",
               'Operation cannot be fulfilled on configmaps "stale": the object has been modified; please apply your changes to the latest version and try again')
        assert api.get(path).json["data"]["n"] == "2"
        expect(api.post(CONFIGMAPS, configmap("stale")), 409, "AlreadyExists", 'configmaps "stale" already exists')
        expect(api.call("DELETE", path, {"preconditions": {"uid": "other"}}), 409, "Conflict")
        assert api.get(path).status == 200
    finally:
        api.call("DELETE", path)


def test_unknown_resource(api):
    for path in ("/api/v1/namespaces/default/widgets", "/apis/example.com/v1/widgets"):
        r = api.get(path)
        assert r.status == 404, r
    expect(api.get(CONFIGMAPS + "/none"), 404, "NotFound", 'configmaps "none" not found')
    expect(api.post("/api/v1/namespaces/nowhere/configmaps", configmap("a")), 404, "NotFound", 'namespaces "nowhere" not found')


def test_wrong_kind_and_method(api):
    expect(api.post(PODS, configmap("a")), 400, "BadRequest")
    expect(api.call("PATCH", CONFIGMAPS, {}, content_type="application/merge-patch+json"), 405, "MethodNotAllowed")
    expect(api.call("PATCH", CONFIGMAPS + "/x", "{}", content_type="text/plain"), 415, "UnsupportedMediaType")
    expect(api.get(CONFIGMAPS, headers={"Accept": "image/png"}), 406, "NotAcceptable")


@pytest.mark.parametrize("query", ["labelSelector=%3D%3D", "fieldSelector=spam%3D1", "continue=garbage", "resourceVersion=abc",
                                   "resourceVersionMatch=Sometimes&resourceVersion=1"])
def test_bad_query(api, query):
    r = api.get(CONFIGMAPS + "?" + query)
    assert r.status in (400, 422), r
    assert r.json["kind"] == "Status"


def test_pod_validation_names_every_cause(api):
    body = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {
        "containers": [{"name": "a", "image": "x"}, {"name": "a", "image": "", "ports": [{"containerPort": 99999}]}],
        "restartPolicy": "Sometimes"}}
    s = expect(api.post(PODS, body), 422, "Invalid")
    found = {(c["field"], c["reason"]) for c in s["details"]["causes"]}
    for cause in (("spec.containers[1].name", "FieldValueDuplicate"), ("spec.containers[1].image", "FieldValueRequired"),
                  ("spec.containers[1].ports[0].containerPort", "FieldValueInvalid"), ("spec.restartPolicy", "FieldValueNotSupported")):
        assert cause in found, s


def test_bad_patches(api):
    api.post(CONFIGMAPS, configmap("patched", data={"a": "1"}))
    path = CONFIGMAPS + "/patched"
    try:
        expect(api.call("PATCH", path, '[{"op":"test","path":"/data/a","value":"2"}]', content_type="application/json-patch+json"), 422, "Invalid")
        expect(api.call("PATCH", path, '[{"op":"fly","path":"/data/a"}]', content_type="application/json-patch+json"), 422, "Invalid")
        expect(api.call("PATCH", path, "{", content_type="application/merge-patch+json"), 400, "BadRequest")
        expect(api.call("PATCH", path, '{"metadata":{"name":"other"}}', content_type="application/merge-patch+json"), 400, "BadRequest")
        assert api.get(path).json["data"] == {"a": "1"}
    finally:
        api.call("DELETE", path)


def test_tokens(api):
    other = Api(api.m, certificate=False, token="not.a.token")
    try:
        expect(other.get(CONFIGMAPS), 401, "Unauthorized")
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 600}}
        eventually(lambda: api.get("/api/v1/namespaces/default/serviceaccounts/default").status == 200, 10, "the default service account")
        good = api.post("/api/v1/namespaces/default/serviceaccounts/default/token", request).json["status"]["token"]
        other.token = good
        expect(other.get("/api/v1/nodes"), 403, "Forbidden", 'User "system:serviceaccount:default:default" cannot list resource "nodes"')
        head, payload, signature = good.split(".")
        claims = json.loads(base64.urlsafe_b64decode(payload + "=="))
        claims["exp"] = int(time.time()) - 10
        forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode().rstrip("=")
        other.token = f"{head}.{forged}.{signature}"
        expect(other.get("/api/v1/nodes"), 401, "Unauthorized")
        other.token = None
        for path in ("/livez", "/readyz", "/healthz", "/version"):
            assert other.get(path).status == 200
        r = expect(other.get("/api/v1/pods"), 403, "Forbidden", 'User "system:anonymous"')
        assert r["details"]["kind"] == "pods"
    finally:
        other.close()


def test_broken_http(api):
    """Bytes that are no HTTP, or no TLS: the connection ends, the server does not."""
    script = """
import socket, ssl
for first in (b'GET / HTTP/1.1\\r\\n\\r\\n', b'\\x16\\x03\\x01\\xff\\xff' + b'x' * 70000, b''):
    s = socket.create_connection(('127.0.0.1', PORT), timeout=10)
    try:
        s.sendall(first)
        s.shutdown(socket.SHUT_WR)
        while s.recv(4096):
            pass
    except OSError:
        pass
context = ssl._create_unverified_context()
for text in (b'SPAM\\r\\n\\r\\n', b'GET /api HTTP/1.1\\r\\nA: ' + b'x' * 100000 + b'\\r\\n\\r\\n', b'POST /api HTTP/1.1\\r\\nHost: a\\r\\nContent-Length: -5\\r\\n\\r\\n',
             b'POST /api HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\nzz\\r\\n'):
    s = context.wrap_socket(socket.create_connection(('127.0.0.1', PORT), timeout=10))
    try:
        s.sendall(text)
        answer = s.recv(4096)
        assert not answer or answer.startswith((b'HTTP/1.1 4', b'HTTP/1.1 501')), answer
    except (ConnectionError, ssl.SSLError):
        pass
print('done')
""".replace("PORT", str(api.m.port))
    assert api.m.run("python3", "-c", script, timeout=60).stdout.strip() == "done"


# ---- at start ----

def server(m, *flags):
    return m.run(machines.SKIFF, "server", "--no-agent", "--data-dir", m.data, "--kubeconfig", m.kubeconfig, "--node-name", m.name, "--node-ip", m.ip, *flags,
                 check=False, timeout=20)


def test_port_in_use(machine):
    p = subprocess.Popen(machine.enter("python3", "-c", "import socket,time\ns=socket.socket()\ns.bind(('0.0.0.0',6443))\ns.listen()\nprint('up',flush=True)\ntime.sleep(60)"),
                         stdout=subprocess.PIPE, text=True)
    try:
        assert p.stdout.readline().strip() == "up"
        r = server(machine)
        assert r.returncode != 0
        assert "6443" in r.stderr and "another process uses it" in r.stderr, r.stderr
    finally:
        p.kill()
        p.wait()


def test_second_server(machine):
    machine.start("--no-agent")
    r = server(machine, "--listen", "127.0.0.1:7443")
    assert r.returncode != 0
    assert "another server" in r.stderr and machine.data in r.stderr, r.stderr
    assert machine.ready()


# What is kept without effect says so to whoever writes it.
NO_EFFECT = [
    ("admissionregistration.k8s.io/v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration", {"webhooks": []}),
    ("admissionregistration.k8s.io/v1", "mutatingwebhookconfigurations", "MutatingWebhookConfiguration", {"webhooks": []}),
    ("autoscaling/v2", "namespaces/default/horizontalpodautoscalers", "HorizontalPodAutoscaler", {"spec": {"maxReplicas": 2, "scaleTargetRef": {"kind": "Deployment", "name": "d"}}}),
    ("apiextensions.k8s.io/v1", "customresourcedefinitions", "CustomResourceDefinition", {"spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"}, "versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}]}}),
]


@pytest.mark.parametrize("group, path, kind, body", NO_EFFECT, ids=[n[2] for n in NO_EFFECT])
def test_kept_without_effect(api, group, path, kind, body):
    r = api.post(f"/apis/{group}/{path}", {"apiVersion": group, "kind": kind, "metadata": {"name": "things.example.com"}, **body})
    assert r.status == 201, r.json
    assert r.headers["warning"].startswith('299 - "skiff keeps '), r.headers
    assert "warning" not in api.get(f"/apis/{group}/{path}/things.example.com").headers


def test_newer_format(machine):
    machine.start("--no-agent")
    machine.stop()
    db = sqlite3.connect(f"{machine.data}/store/skiff.db")
    # With the row's right checksum, so that its value is all that is wrong with it.
    assert db.execute("UPDATE meta SET value = 2, sum = 240749709 WHERE name = 'format'").rowcount == 1
    db.commit()
    db.close()
    r = server(machine)
    assert r.returncode != 0
    assert "newer" in r.stderr and "skiff.db" in r.stderr, r.stderr


def test_bad_flags(machine):
    for flags, text in ((("--spam",), "there is no flag --spam"), (("--listen", "nowhere"), "expected ADDRESS:PORT"), (("--service-cidr", "x"), "expected an IPv4 network"),
                        (("--service-cidr", "10.42.128.0/17"), "overlap: pods and services need networks of their own"),
                        (("--pod-cidr", "192.0.0.0/16"), "has this machine's address"),
                        (("--store", "paper"), "paper"), (("--config", "/nonexistent"), "/nonexistent")):
        r = server(machine, *flags)
        assert r.returncode != 0 and text in r.stderr, (flags, r.stderr)


def test_missing_image(cluster, ns):
    cluster.kubectl("run", "lost", "-n", ns, "--image=test/missing:1", "--command", "--", "true")

    def told():
        s = cluster.get("pod", "lost", "-n", ns)["status"]["containerStatuses"][0]["state"]["waiting"]
        return s["reason"] in ("ErrImagePull", "ImagePullBackOff") and "test/missing:1" in s["message"] and s
    state = eventually(told, 20, "the reason in the pod's status")
    assert "image import" in state["message"]
    eventually(lambda: "test/missing:1" in cluster.kubectl("get", "events", "-n", ns), 10, "an event")
    page = cluster.run(machines.SKIFF, "why", "-n", ns, "--kubeconfig", cluster.kubeconfig, "lost").stdout
    assert "test/missing:1" in page and "image import" in page
