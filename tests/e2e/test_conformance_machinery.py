"""What upstream's conformance asks of the API machinery and of accounts: watches, garbage collection, namespaces, chunks, tables, discovery, field
validation, reviews, tokens."""

import base64
import json
import time

import pytest

from api import Api
from machine import eventually

IMAGE = "test/busybox:1"
MERGE, STRATEGIC, APPLY, JSON_PATCH = ("application/merge-patch+json", "application/strategic-merge-patch+json", "application/apply-patch+yaml", "application/json-patch+json")
KEEP = ["sh", "-c", "trap 'exit 0' TERM; sleep 1000 & wait"]


@pytest.fixture(scope="module")
def api(cluster):
    a = Api(cluster)
    yield a
    a.close()


def account(api, ns):
    eventually(lambda: api.get(f"/api/v1/namespaces/{ns}/serviceaccounts/default").status == 200, 10, "the default account")


def workload(kind, name, replicas, **spec):
    t = {"metadata": {"labels": {"app": name}}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "c", "image": IMAGE, "command": KEEP}]}}
    return {"apiVersion": "v1" if kind == "ReplicationController" else "apps/v1", "kind": kind, "metadata": {"name": name}, "spec": {"replicas": replicas, "template": t,
            "selector": {"app": name} if kind == "ReplicationController" else {"matchLabels": {"app": name}}, **spec}}


def items(api, path):
    return api.get(path).json["items"]


def test_watchers(api, ns):
    base = f"/api/v1/namespaces/{ns}/configmaps"

    def cm(**kw):
        return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "w", "labels": {"l": "a"}}, **kw}

    def watch(rv, selector="l%3Da"):
        return [(e["type"], e["object"].get("data", {}).get("m")) for e in map(json.loads, api.get(f"{base}?watch=1&resourceVersion={rv}&labelSelector={selector}&timeoutSeconds=1").bytes.splitlines())]
    start = api.get(base).json["metadata"]["resourceVersion"]
    api.post(base, cm(data={"m": "0"}))
    one = api.call("PATCH", f"{base}/w", {"data": {"m": "1"}}, MERGE).json["metadata"]["resourceVersion"]
    api.call("PATCH", f"{base}/w", {"data": {"m": "2"}}, MERGE)
    api.call("PATCH", f"{base}/w", {"metadata": {"labels": {"l": "b"}}}, MERGE)
    api.call("PATCH", f"{base}/w", {"data": {"m": "3"}}, MERGE)
    api.call("PATCH", f"{base}/w", {"metadata": {"labels": {"l": "a"}}}, MERGE)
    api.call("DELETE", f"{base}/w")
    assert watch(start) == [("ADDED", "0"), ("MODIFIED", "1"), ("MODIFIED", "2"), ("DELETED", "2"), ("ADDED", "3"), ("DELETED", "3")]
    assert watch(one)[0] == ("MODIFIED", "2")
    # whoever watches from whatever point sees the same order
    raw = [json.loads(line)["object"]["metadata"]["resourceVersion"] for line in api.get(f"{base}?watch=1&resourceVersion={start}&timeoutSeconds=1").bytes.splitlines()]
    ours = [v for v in raw if int(v) > int(one)]
    for v in raw[:3]:
        later = [json.loads(line)["object"]["metadata"]["resourceVersion"] for line in api.get(f"{base}?watch=1&resourceVersion={v}&timeoutSeconds=1").bytes.splitlines()]
        assert later == raw[raw.index(v) + 1:]
    assert ours and raw == sorted(raw, key=int)


def test_chunks(api, ns):
    base = f"/api/v1/namespaces/{ns}/podtemplates"
    for i in range(40):
        assert api.post(base, {"metadata": {"name": f"template-{i:04d}"}, "template": {"spec": {"containers": [{"name": "c", "image": "x"}]}}}).status == 201
    seen, token, revision = [], "", None
    while True:
        page = api.get(f"{base}?limit=17&continue={token}").json
        revision = revision or page["metadata"]["resourceVersion"]
        assert page["metadata"]["resourceVersion"] == revision
        seen += [i["metadata"]["name"] for i in page["items"]]
        token = page["metadata"].get("continue", "")
        if token:
            assert page["metadata"]["remainingItemCount"] == 40 - len(seen)
        else:
            break
    assert seen == [f"template-{i:04d}" for i in range(40)]
    assert len(items(api, base)) == 40


def test_table(api, ns):
    r = api.get("/api/v1/namespaces/default/pods", headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}).json
    assert r["kind"] == "Table" and r["apiVersion"] == "meta.k8s.io/v1"
    r = api.post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec":
                 {"resourceAttributes": {"verb": "get", "resource": "pods"}}}, headers={"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"})
    assert r.status == 406, r


def test_discovery(api):
    groups = api.get("/apis").json["groups"]
    for g in groups:
        assert g["preferredVersion"] in g["versions"], g
        one = api.get(f"/apis/{g['name']}").json
        assert one["kind"] == "APIGroup" and one["preferredVersion"] == g["preferredVersion"]
        assert api.get(f"/apis/{g['preferredVersion']['groupVersion']}").json["resources"]
    for path in ("/api", "/apis"):
        for version in ("v2", "v2beta1"):
            r = api.get(path, headers={"Accept": f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"})
            if version == "v2":
                assert r.json["kind"] == "APIGroupDiscoveryList" and r.headers["content-type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", r.headers
        assert r.status in (200, 406)
    version = api.get("/version").json
    assert version["major"] == "1" and version["minor"] == "36" and version["gitVersion"].startswith("v1.36")


def test_field_validation(api, ns):
    base = f"/apis/apps/v1/namespaces/{ns}/deployments"
    good = workload("Deployment", "d", 0)
    text = json.dumps(good)
    unknown = text.replace('"replicas"', '"unknown": 1, "replicas"', 1)
    twice = text.replace('"replicas": 0', '"replicas": 0, "replicas": 1', 1)
    meta = text.replace('"name": "d"', '"name": "d", "unknownMeta": "x"', 1)
    for body, what in ((unknown, 'unknown field "spec.unknown"'), (twice, 'duplicate field "spec.replicas"'), (meta, 'unknown field "metadata.unknownMeta"')):
        r = api.post(f"{base}?fieldValidation=Strict&dryRun=All", body)
        assert r.status == 400 and f'strict decoding error: {what}' in r.json["message"], r
        r = api.post(f"{base}?fieldValidation=Warn&dryRun=All", body)
        assert r.status == 201 and what.replace('"', '\\"') in r.headers.get("warning", "") or what in r.headers.get("warning", ""), r.headers
        r = api.post(f"{base}?fieldValidation=Ignore&dryRun=All", body)
        assert r.status == 201 and "warning" not in r.headers
    r = api.call("PATCH", f"{base}/d?fieldManager=m&fieldValidation=Strict", unknown, APPLY)
    assert r.status in (400, 422, 500) and ".spec.unknown" in r.json["message"], r
    assert api.call("PATCH", f"{base}/d?fieldManager=m&fieldValidation=Strict", good, APPLY).status == 201
    r = api.call("PATCH", f"{base}/d?fieldValidation=Strict", {"spec": {"unknown": 1}}, STRATEGIC)
    assert r.status in (400, 422) and 'unknown field "spec.unknown"' in r.json["message"], r


def test_garbage(cluster, api, ns):
    account(api, ns)
    rcs, pods = f"/api/v1/namespaces/{ns}/replicationcontrollers", f"/api/v1/namespaces/{ns}/pods"
    deployments, sets = f"/apis/apps/v1/namespaces/{ns}/deployments", f"/apis/apps/v1/namespaces/{ns}/replicasets"

    def make(path, body, n):
        assert api.post(path, body).status == 201
        eventually(lambda: len(items(api, f"{pods}?labelSelector=app%3D{body['metadata']['name']}")) == n, 15)
    # not orphaning
    make(rcs, workload("ReplicationController", "a", 2), 2)
    api.call("DELETE", f"{rcs}/a", {"propagationPolicy": "Background"})
    eventually(lambda: not items(api, f"{pods}?labelSelector=app%3Da"), 20, "pods of a go")
    # orphaning
    make(rcs, workload("ReplicationController", "b", 2), 2)
    api.call("DELETE", f"{rcs}/b", {"propagationPolicy": "Orphan"})
    eventually(lambda: api.get(f"{rcs}/b").status == 404, 10)
    make(deployments, workload("Deployment", "c", 1), 1)
    api.call("DELETE", f"{deployments}/c", {"propagationPolicy": "Orphan"})
    eventually(lambda: api.get(f"{deployments}/c").status == 404, 10)
    make(deployments, workload("Deployment", "d", 1), 1)
    api.call("DELETE", f"{deployments}/d", {"propagationPolicy": "Background"})
    eventually(lambda: not items(api, f"{sets}?labelSelector=app%3Dd"), 10)
    # foreground: the owner stays until the pods are gone
    make(rcs, workload("ReplicationController", "e", 2), 2)
    eventually(lambda: len(cluster.pods("app=e", ns=ns)) == 2, 20)
    api.call("DELETE", f"{rcs}/e", {"propagationPolicy": "Foreground"})
    r = api.get(f"{rcs}/e").json
    assert "foregroundDeletion" in r["metadata"]["finalizers"] and r["metadata"]["deletionTimestamp"]
    eventually(lambda: api.get(f"{rcs}/e").status == 404, 20)
    assert not items(api, f"{pods}?labelSelector=app%3De")
    # orphans are still there, and without owners
    left = items(api, f"{pods}?labelSelector=app%3Db")
    assert len(left) == 2 and not any(p["metadata"].get("ownerReferences") for p in left)
    assert len(items(api, f"{sets}?labelSelector=app%3Dc")) == 1


def test_garbage_two_owners(cluster, api, ns):
    account(api, ns)
    rcs, pods = f"/api/v1/namespaces/{ns}/replicationcontrollers", f"/api/v1/namespaces/{ns}/pods"
    for name, n in (("goes", 4), ("stays", 0)):
        assert api.post(rcs, workload("ReplicationController", name, n)).status == 201
    stays = api.get(f"{rcs}/stays").json
    eventually(lambda: len(items(api, f"{pods}?labelSelector=app%3Dgoes")) == 4, 15)
    all_pods = items(api, f"{pods}?labelSelector=app%3Dgoes")
    for p in all_pods[:2]:
        r = api.call("PATCH", f"{pods}/{p['metadata']['name']}", [{"op": "add", "path": "/metadata/ownerReferences/-", "value": {"apiVersion": "v1", "kind": "ReplicationController",
                     "name": "stays", "uid": stays["metadata"]["uid"]}}], JSON_PATCH)
        assert r.status == 200, r
    api.call("DELETE", f"{rcs}/goes", {"propagationPolicy": "Foreground"})
    eventually(lambda: api.get(f"{rcs}/goes").status == 404, 30)
    left = items(api, f"{pods}?labelSelector=app%3Dgoes")
    assert sorted(p["metadata"]["name"] for p in left) == sorted(p["metadata"]["name"] for p in all_pods[:2])
    assert all([o["name"] for o in p["metadata"]["ownerReferences"]] == ["stays"] for p in left)


def test_garbage_circle(api, ns):
    account(api, ns)
    pods = f"/api/v1/namespaces/{ns}/pods"
    made = [api.post(pods, {"metadata": {"name": f"p{i}"}, "spec": {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": IMAGE}]}}).json for i in range(3)]
    for i in range(3):
        owner = made[(i + 2) % 3]["metadata"]
        api.call("PATCH", f"{pods}/p{i}", {"metadata": {"ownerReferences": [{"apiVersion": "v1", "kind": "Pod", "name": owner["name"], "uid": owner["uid"], "controller": True,
                 "blockOwnerDeletion": True}]}}, MERGE)
    api.call("DELETE", f"{pods}/p0", {"propagationPolicy": "Foreground"})
    eventually(lambda: not items(api, pods), 20, "the circle goes")


def test_namespaces(cluster, api):
    name = f"conf-{int(time.time())}"
    made = api.post("/api/v1/namespaces", {"metadata": {"name": name}}).json
    assert made["metadata"]["labels"]["kubernetes.io/metadata.name"] == name and made["spec"]["finalizers"] == ["kubernetes"]
    path = f"/api/v1/namespaces/{name}"
    r = api.call("PATCH", f"{path}/status", {"metadata": {"annotations": {"patchedstatus": "x"}}, "status": {"conditions": [{"type": "StatusPatch", "status": "True", "reason": "E2E"}]}}, MERGE)
    assert r.status == 200 and r.json["status"]["conditions"][0]["type"] == "StatusPatch" and r.json["metadata"]["annotations"]["patchedstatus"] == "x", r
    live = api.get(path).json
    live["spec"]["finalizers"].append("e2e.example.com/fake")
    r = api.call("PUT", f"{path}/finalize", live)
    assert r.status == 200 and "e2e.example.com/fake" in r.json["spec"]["finalizers"], r
    live = r.json
    live["spec"]["finalizers"] = ["kubernetes"]
    assert api.call("PUT", f"{path}/finalize", live).json["spec"]["finalizers"] == ["kubernetes"]
    account(api, name)
    # pods go first, and what holds one holds the rest
    pod = {"metadata": {"name": "p", "finalizers": ["example.com/keep"]}, "spec": {"nodeSelector": {"no": "where"}, "containers": [{"name": "c", "image": IMAGE}]}}
    assert api.post(f"{path}/pods", pod).status == 201
    assert api.post(f"{path}/configmaps", {"metadata": {"name": "c"}}).status == 201
    api.post(f"{path}/services", {"metadata": {"name": "s"}, "spec": {"ports": [{"port": 80}]}})
    assert api.call("DELETE", path).status == 200
    eventually(lambda: api.get(f"{path}/pods/p").json["metadata"].get("deletionTimestamp"), 10)

    def condition():
        c = {c["type"]: c["status"] for c in api.get(path).json["status"].get("conditions", [])}
        return c.get("NamespaceDeletionContentFailure") == "True" or c.get("NamespaceContentRemaining") == "True" or c.get("NamespaceFinalizersRemaining") == "True"
    eventually(condition, 15, "it tells what remains")
    assert api.get(f"{path}/configmaps/c").status == 200
    r = api.post(f"{path}/configmaps", {"metadata": {"name": "late"}})
    assert r.status == 403 and "because it is being terminated" in r.json["message"], r
    api.call("PATCH", f"{path}/pods/p", {"metadata": {"finalizers": None}}, MERGE)
    eventually(lambda: api.get(path).status == 404, 30, "it goes")


def test_reviews(api, ns):
    account(api, ns)
    attributes = {"verb": "list", "resource": "configmaps", "namespace": ns}
    r = api.post(f"/apis/authorization.k8s.io/v1/namespaces/{ns}/localsubjectaccessreviews", {"metadata": {"namespace": ns}, "spec": {"user": f"system:serviceaccount:{ns}:default",
                 "resourceAttributes": attributes}})
    assert r.status == 201 and not r.json["status"]["allowed"], r
    api.post(f"/apis/rbac.authorization.k8s.io/v1/namespaces/{ns}/rolebindings", {"metadata": {"name": "v"}, "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
             "name": "view"}, "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": ns}]})
    for path in (f"namespaces/{ns}/localsubjectaccessreviews", "subjectaccessreviews"):
        eventually(lambda: api.post(f"/apis/authorization.k8s.io/v1/{path}", {"metadata": {"namespace": ns} if "local" in path else {}, "spec":
                   {"user": f"system:serviceaccount:{ns}:default", "resourceAttributes": attributes}}).json["status"]["allowed"], 5, path)
    r = api.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", {"spec": {"namespace": ns}})
    assert r.json["status"]["resourceRules"]
    assert "system:masters" in api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", {}).json["status"]["userInfo"]["groups"]


def test_tokens(cluster, api, ns):
    account(api, ns)
    base = f"/api/v1/namespaces/{ns}/serviceaccounts"
    eventually(lambda: "ca.crt" in api.get(f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt").json.get("data", {}), 10)
    api.call("DELETE", f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt")
    eventually(lambda: api.get(f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt").status == 200, 10, "made again")
    api.call("PATCH", f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt", {"data": {"ca.crt": ""}}, MERGE)
    eventually(lambda: api.get(f"/api/v1/namespaces/{ns}/configmaps/kube-root-ca.crt").json["data"]["ca.crt"], 10, "put right")
    t = api.post(f"{base}/default/token", {"spec": {"expirationSeconds": 3600}})
    assert t.status == 201 and t.json["status"]["token"], t
    review = api.post("/apis/authentication.k8s.io/v1/tokenreviews", {"spec": {"token": t.json["status"]["token"]}}).json["status"]
    assert review["authenticated"] and review["user"]["username"] == f"system:serviceaccount:{ns}:default" and f"system:serviceaccounts:{ns}" in review["user"]["groups"], review
    conf = api.get("/.well-known/openid-configuration").json
    assert conf["response_types_supported"] == ["id_token"] and conf["subject_types_supported"] == ["public"]
    claims = json.loads(base64.urlsafe_b64decode(t.json["status"]["token"].split(".")[1] + "=="))
    assert claims["iss"] == conf["issuer"] and claims["sub"] == f"system:serviceaccount:{ns}:default" and claims["kubernetes.io"]["serviceaccount"]["name"] == "default"
    keys = api.get("/openid/v1/jwks").json["keys"]
    head = json.loads(base64.urlsafe_b64decode(t.json["status"]["token"].split(".")[0] + "=="))
    assert head["kid"] in [k["kid"] for k in keys]


def test_csr(cluster, api):
    base = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
    pem = cluster.sh("openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=conf 2>/dev/null")
    r = api.post(base, {"metadata": {"generateName": "conf-"}, "spec": {"request": base64.b64encode(pem.encode()).decode(), "signerName": "example.com/e2e", "usages": ["client auth"],
                        "expirationSeconds": 3600}})
    assert r.status == 201 and r.json["spec"]["username"], r
    one = f"{base}/{r.json['metadata']['name']}"
    r = api.call("PATCH", f"{one}/approval", {"metadata": {"annotations": {"a": "b"}}, "status": {"conditions": [{"type": "ApprovalPatch", "status": "True", "reason": "e2e"}]}}, MERGE)
    assert r.status == 200 and r.json["status"]["conditions"][0]["type"] == "ApprovalPatch" and r.json["metadata"]["annotations"]["a"] == "b", r
    live = r.json
    live["status"]["conditions"].append({"type": "Approved", "status": "True", "reason": "E2E", "message": "m"})
    assert api.call("PUT", f"{one}/approval", live).status == 200
    cert = cluster.sh("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout /dev/null -subj /CN=conf 2>/dev/null")
    r = api.call("PATCH", f"{one}/status", {"metadata": {"annotations": {"s": "t"}}, "status": {"certificate": base64.b64encode(cert.encode()).decode()}}, MERGE)
    assert r.status == 200 and r.json["status"]["certificate"] and r.json["metadata"]["annotations"]["s"] == "t", r
    api.call("DELETE", one)


def test_cron_jobs(cluster, api, ns):
    """Concurrent, forbidden and replaced runs are of a minute; here: suspension, and the object's way."""
    base = f"/apis/batch/v1/namespaces/{ns}/cronjobs"
    t = {"spec": {"template": {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": IMAGE, "command": ["true"]}]}}}}
    assert api.post(base, {"metadata": {"name": "c"}, "spec": {"schedule": "*/1 * * * *", "suspend": True, "jobTemplate": t}}).status == 201
    assert api.post(base, {"metadata": {"name": "bad"}, "spec": {"schedule": "nonsense", "jobTemplate": t}}).status == 422
    cluster.kubectl("create", "job", "manual", "--from=cronjob/c", "-n", ns)
    eventually(lambda: cluster.get("job", "manual", "-n", ns)["status"].get("succeeded") == 1, 30)
    assert api.get(f"{base}/c").json["status"].get("lastScheduleTime") is None
