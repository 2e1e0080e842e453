"""What a node's credential reaches: exactly what upstream's Node authorizer and its role system:node grant, and NodeRestriction leaves of it. Here node1
is hostile: every verb on every resource that discovery tells of is tried with the files under its agent/ folder. And what a node answers to strangers."""

import base64

import pytest

from api import Api
from cluster import Cluster
from machine import eventually

READ = {"get", "list", "watch"}
VERBS = ("get", "list", "watch", "create", "update", "patch", "delete", "deletecollection")

# (group, resource) -> verbs for any object, as the role system:node and the Node authorizer give them, and what everybody who is somebody has.
ANY = {
    ("", "services"): READ,
    ("", "endpoints"): {"get"},
    ("", "events"): {"create", "patch", "update"},
    ("events.k8s.io", "events"): {"create", "patch", "update"},
    ("", "nodes"): {"create"},                      # NodeRestriction: itself alone
    ("", "pods"): {"create", "delete"},             # NodeRestriction: mirror pods; its own
    ("", "pods/status"): {"patch", "update"},
    ("", "pods/eviction"): {"create"},
    ("certificates.k8s.io", "certificatesigningrequests"): READ | {"create"},
    ("authentication.k8s.io", "tokenreviews"): {"create"},
    ("authorization.k8s.io", "subjectaccessreviews"): {"create"},
    ("authorization.k8s.io", "localsubjectaccessreviews"): {"create"},
    ("storage.k8s.io", "csidrivers"): READ,
    ("storage.k8s.io", "csinodes"): {"create"},
    ("node.k8s.io", "runtimeclasses"): READ,
    ("resource.k8s.io", "resourceslices"): {"create"},
    ("authorization.k8s.io", "selfsubjectaccessreviews"): {"create"},  # system:basic-user
    ("authorization.k8s.io", "selfsubjectrulesreviews"): {"create"},
    ("authentication.k8s.io", "selfsubjectreviews"): {"create"},
}
# What it may do with an object of its own name, on top of that.
OWN = {
    ("", "nodes"): READ | {"update", "patch"},
    ("", "nodes/status"): {"update", "patch"},
    ("storage.k8s.io", "csinodes"): {"get", "update", "patch", "delete"},
}
LEASE = {"get", "create", "update", "patch", "delete"}


class Hostile:
    """Requests with the credential NAME of a node."""

    def __init__(self, cluster, node, name="node"):
        self.api = Api(cluster.master, certificate=False)
        self.pair = {"cert": f"{node.data}/agent/{name}.crt", "key": f"{node.data}/agent/{name}.key"}

    def call(self, method, path, body=None, **kw):
        kind = {"PATCH": "application/merge-patch+json"}.get(method, "application/json")
        return self.api.call(method, path, body, content_type=kind, **self.pair, **kw)

    def may(self, verb, group, resource, name="", ns=""):
        resource, _, sub = resource.partition("/")
        r = self.call("POST", "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", {
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview", "spec": {"resourceAttributes": {
                "verb": verb, "group": group, "resource": resource, "subresource": sub, "name": name, "namespace": ns}}})
        assert r.status == 201, r
        return r.json["status"]["allowed"]

    def forbidden(self, method, path, body=None, **kw):
        r = self.call(method, path, body, **kw)
        assert r.status == 403, f"{method} {path}: {r}"
        return r.json["message"]

    def close(self):
        self.api.close()


def pod(name, node, **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default", "labels": {"app": name}}, "spec": {
        "terminationGracePeriodSeconds": 0, "nodeName": node, "serviceAccountName": f"{name}-account",
        "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sleep", "10000"],
                        "envFrom": [{"secretRef": {"name": f"{name}-secret"}}, {"configMapRef": {"name": f"{name}-map"}}]}], **spec}}


@pytest.fixture(scope="module")
def two():
    c = Cluster(nodes=2)
    try:
        c.start("--no-agent")
        for name, node in (("mine", "node1"), ("theirs", "node2")):
            c.kubectl("create", "serviceaccount", f"{name}-account")
            c.kubectl("create", "secret", "generic", f"{name}-secret", "--from-literal=K=v")
            c.kubectl("create", "configmap", f"{name}-map", "--from-literal=M=v")
            c.apply({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": f"{name}-volume"}, "spec": {
                "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "storageClassName": name, "hostPath": {"path": f"/tmp/{name}", "type": "DirectoryOrCreate"}}})
            c.apply({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": f"{name}-claim", "namespace": "default"}, "spec": {
                "accessModes": ["ReadWriteOnce"], "storageClassName": name, "volumeName": f"{name}-volume", "resources": {"requests": {"storage": "1Gi"}}}})
            c.apply({"apiVersion": "storage.k8s.io/v1", "kind": "VolumeAttachment", "metadata": {"name": f"{name}-attachment"},
                     "spec": {"attacher": "none.example", "nodeName": node, "source": {"persistentVolumeName": f"{name}-volume"}}})
            c.apply(pod(name, node, volumes=[{"name": "v", "persistentVolumeClaim": {"claimName": f"{name}-claim"}}]))
        for name in ("mine", "theirs"):
            c.wait_pods(f"app={name}", 1)
        yield c
    finally:
        c.close()


@pytest.fixture(scope="module")
def hostile(two):
    h = Hostile(two, two.nodes[0])
    yield h
    h.close()


@pytest.fixture(scope="module")
def admin(two):
    a = Api(two.master)
    yield a
    a.close()


def discovery(admin):
    """(group, resource or resource/subresource, namespaced), each once."""
    out = {("", r["name"]): r["namespaced"] for r in admin.get("/api/v1").json["resources"]}
    for g in admin.get("/apis").json["groups"]:
        for v in g["versions"]:
            for r in admin.get(f"/apis/{v['groupVersion']}").json["resources"]:
                out[(g["name"], r["name"])] = r["namespaced"]
    return out


def test_every_verb_on_every_resource(hostile, admin):
    resources = discovery(admin)
    assert len(resources) > 80 and set(ANY) <= set(resources)
    wrong = []
    for (group, resource), namespaced in resources.items():
        for verb in VERBS:
            for name, expected in (("", ANY.get((group, resource), set())), ("stranger", ANY.get((group, resource), set())),
                                   ("node1", ANY.get((group, resource), set()) | OWN.get((group, resource), set()))):
                got = hostile.may(verb, group, resource, name, "default" if namespaced else "")
                if got != (verb in expected):
                    wrong.append((verb, group, resource, name, got))
    assert not wrong
    for verb in VERBS:
        assert hostile.may(verb, "coordination.k8s.io", "leases", "node1", "kube-node-lease") == (verb in LEASE)
        assert hostile.may(verb, "coordination.k8s.io", "leases", "node2", "kube-node-lease") == (verb == "create")
        assert not hostile.may(verb, "*", "*")
    for verb in ("bind", "escalate", "impersonate", "approve", "sign", "attest", "use"):
        for group, resource in (("rbac.authorization.k8s.io", "clusterroles"), ("", "users"), ("", "groups"), ("", "serviceaccounts"),
                                ("certificates.k8s.io", "signers"), ("", "nodes")):
            assert not hostile.may(verb, group, resource, "x")


def test_what_its_pods_name(two, hostile):
    """Secrets, config maps, claims, volumes and accounts: those of its own pods, read one at a time."""
    ns = "/api/v1/namespaces/default"
    for path in (f"{ns}/secrets/%s-secret", f"{ns}/configmaps/%s-map", f"{ns}/persistentvolumeclaims/%s-claim", "/api/v1/persistentvolumes/%s-volume",
                 f"{ns}/serviceaccounts/%s-account", f"{ns}/pods/%s", "/apis/storage.k8s.io/v1/volumeattachments/%s-attachment"):
        assert hostile.call("GET", path % "mine").status == 200, path
        assert "no relationship found between node 'node1' and this object" in hostile.forbidden("GET", path % "theirs")
        for method, body in (("DELETE", None), ("PUT", {}), ("PATCH", {"metadata": {"labels": {"x": "y"}}})):
            if not (path.endswith("/pods/%s") and method == "DELETE"):
                hostile.forbidden(method, path % "mine", body)
            hostile.forbidden(method, path % "theirs", body)
    for kind, name in (("secrets", "secret"), ("configmaps", "map")):
        one = f"{ns}/{kind}?fieldSelector=metadata.name%3D"
        assert len(hostile.call("GET", f"{one}mine-{name}").json["items"]) == 1
        hostile.forbidden("GET", f"{one}theirs-{name}")
        hostile.forbidden("GET", f"{one}theirs-{name}&watch=true")
        for path in (f"/api/v1/{kind}", f"{ns}/{kind}", f"{ns}/{kind}?watch=true", f"{ns}/{kind}?labelSelector=a%3Db"):
            hostile.forbidden("GET", path)
    pods = "/api/v1/pods?fieldSelector=spec.nodeName%3D"
    assert [p["metadata"]["name"] for p in hostile.call("GET", f"{pods}node1").json["items"]] == ["mine"]
    for path in (f"{pods}node2", f"{pods}node2&watch=true", "/api/v1/pods?fieldSelector=spec.nodeName%21%3Dnode1", "/api/v1/pods", f"{ns}/pods"):
        hostile.forbidden("GET", path)


def test_pods_elsewhere(hostile, two):
    pods = "/api/v1/namespaces/default/pods"
    assert "can only delete pods with spec.nodeName set to itself" in hostile.forbidden("DELETE", f"{pods}/theirs")
    assert "can only update pod status for pods" in hostile.forbidden("PATCH", f"{pods}/theirs/status", {"status": {"message": "mine now"}})
    assert "can only evict pods" in hostile.forbidden("POST", f"{pods}/theirs/eviction", {
        "apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "theirs", "namespace": "default"}})
    assert hostile.call("PATCH", f"{pods}/mine/status", {"status": {"message": "fine"}}).status == 200
    hostile.forbidden("PATCH", f"{pods}/mine/status", {"metadata": {"labels": {"app": "other"}}})
    two.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "waiting"}, "spec": {
        "schedulerName": "nobody", "containers": [{"name": "c", "image": "test/busybox:1"}]}})
    binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": "waiting", "namespace": "default"}, "target": {"kind": "Node", "name": "node1"}}
    hostile.forbidden("POST", f"{pods}/waiting/binding", binding)
    hostile.forbidden("POST", "/api/v1/namespaces/default/bindings", binding)
    for name in ("mine", "theirs"):
        for sub in ("exec?command=id", "attach", "portforward", "proxy/", "log", "ephemeralcontainers"):
            hostile.forbidden("GET", f"{pods}/{name}/{sub}")
        hostile.forbidden("POST", f"{pods}/{name}/exec?command=id")
        hostile.forbidden("PATCH", f"{pods}/{name}/ephemeralcontainers", {"spec": {}})
        hostile.forbidden("PATCH", f"{pods}/{name}/resize", {"spec": {}})


def test_pods_that_it_makes(hostile):
    """Mirror pods of its own, that reach for nothing."""
    pods = "/api/v1/namespaces/default/pods"

    def mirror(name, node="node1", mirrored=True, **spec):
        return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "annotations": {"kubernetes.io/config.mirror": "x"} if mirrored else {}},
                "spec": {"nodeName": node, "containers": [{"name": "c", "image": "test/busybox:1"}], **spec}}
    assert "can only create mirror pods" in hostile.forbidden("POST", pods, mirror("a", mirrored=False))
    assert "can only create pods with spec.nodeName set to itself" in hostile.forbidden("POST", pods, mirror("a", node="node2"))
    hostile.forbidden("POST", pods, mirror("a", node=""))
    hostile.forbidden("POST", pods, mirror("a", serviceAccountName="theirs-account"))
    for volume in ({"secret": {"secretName": "theirs-secret"}}, {"configMap": {"name": "theirs-map"}}, {"persistentVolumeClaim": {"claimName": "theirs-claim"}},
                   {"projected": {"sources": [{"secret": {"name": "theirs-secret"}}]}}, {"projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}}):
        hostile.forbidden("POST", pods, mirror("a", volumes=[{"name": "v", **volume}]))
    for env in ({"envFrom": [{"secretRef": {"name": "theirs-secret"}}]},
                {"env": [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "theirs-secret", "key": "K"}}}]},
                {"env": [{"name": "X", "valueFrom": {"configMapKeyRef": {"name": "theirs-map", "key": "M"}}}]}):
        hostile.forbidden("POST", pods, mirror("a", containers=[{"name": "c", "image": "test/busybox:1", **env}]))
    hostile.forbidden("POST", pods, mirror("a", imagePullSecrets=[{"name": "theirs-secret"}]))


def test_claims(hostile):
    """Of its own pods' claims it tells how large they are, and nothing else."""
    claims = "/api/v1/namespaces/default/persistentvolumeclaims"
    assert hostile.call("PATCH", f"{claims}/mine-claim/status", {"status": {"capacity": {"storage": "2Gi"}}}).status == 200
    for change in ({"status": {"phase": "Lost"}}, {"status": {"accessModes": ["ReadWriteMany"]}}, {"metadata": {"labels": {"x": "y"}}},
                   {"metadata": {"annotations": {"x": "y"}}}):
        assert "not allowed to update fields other than" in hostile.forbidden("PATCH", f"{claims}/mine-claim/status", change)
    hostile.forbidden("PATCH", f"{claims}/theirs-claim/status", {"status": {"capacity": {"storage": "2Gi"}}})


def test_its_own_node(hostile, two):
    nodes = "/api/v1/nodes"
    for label in ("node-restriction.kubernetes.io/trusted", "x.node-restriction.kubernetes.io/y", "node-role.kubernetes.io/control-plane", "k8s.io/x"):
        for path in (f"{nodes}/node1", f"{nodes}/node1/status"):
            assert "is not allowed to modify the following labels" in hostile.forbidden("PATCH", path, {"metadata": {"labels": {label: "yes"}}})
    assert hostile.call("PATCH", f"{nodes}/node1", {"metadata": {"labels": {"kubelet.kubernetes.io/fine": "yes"}}}).status == 200
    two.kubectl("taint", "node", "node1", "key=value:NoSchedule")
    try:
        assert "not allowed to modify taints" in hostile.forbidden("PATCH", f"{nodes}/node1", {"spec": {"taints": []}})
    finally:
        two.kubectl("taint", "node", "node1", "key-")
    hostile.forbidden("DELETE", f"{nodes}/node1")
    hostile.forbidden("GET", nodes)
    hostile.forbidden("GET", f"{nodes}?watch=true")
    for path in (f"{nodes}/node2", f"{nodes}/node2/status"):
        hostile.forbidden("PATCH", path, {"metadata": {"annotations": {"x": "y"}}})
    hostile.forbidden("GET", f"{nodes}/node2")
    hostile.forbidden("DELETE", f"{nodes}/node2")
    hostile.forbidden("POST", nodes, {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "node3"}})
    for name in ("node1", "node2"):
        for path in ("proxy/pods", "proxy/", "log"):
            hostile.forbidden("GET", f"{nodes}/{name}/{path}")
    leases = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
    hostile.forbidden("GET", f"{leases}/node2")
    hostile.forbidden("PATCH", f"{leases}/node2", {"spec": {"leaseDurationSeconds": 1}})
    hostile.forbidden("DELETE", f"{leases}/node2")
    hostile.forbidden("POST", leases, {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "node3"}})
    hostile.forbidden("GET", "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases/skiff-leader")
    hostile.forbidden("POST", "/apis/storage.k8s.io/v1/csinodes", {"apiVersion": "storage.k8s.io/v1", "kind": "CSINode", "metadata": {"name": "node2"}, "spec": {"drivers": []}})
    hostile.forbidden("POST", "/apis/resource.k8s.io/v1/resourceslices", {"apiVersion": "resource.k8s.io/v1", "kind": "ResourceSlice", "metadata": {"name": "s"}, "spec": {
        "driver": "d.example", "nodeName": "node2", "pool": {"name": "p", "generation": 1, "resourceSliceCount": 1}}})


def test_tokens(hostile, two):
    """For accounts of its own pods, bound to them, for whom they mount tokens."""
    def ask(account, **spec):
        return f"/api/v1/namespaces/default/serviceaccounts/{account}/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
    uid = {p: two.get("pod", p)["metadata"]["uid"] for p in ("mine", "theirs")}
    mine = {"kind": "Pod", "apiVersion": "v1", "name": "mine", "uid": uid["mine"]}
    assert hostile.call("POST", *ask("mine-account", boundObjectRef=mine)).status == 201
    assert "not bound to a pod" in hostile.forbidden("POST", *ask("mine-account"))
    hostile.forbidden("POST", *ask("mine-account", boundObjectRef={"kind": "Secret", "apiVersion": "v1", "name": "mine-secret"}))
    assert "without a uid" in hostile.forbidden("POST", *ask("mine-account", boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "mine"}))
    assert hostile.call("POST", *ask("mine-account", boundObjectRef={**mine, "uid": "0"})).status == 409
    hostile.forbidden("POST", *ask("theirs-account", boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "theirs", "uid": uid["theirs"]}))
    hostile.forbidden("POST", *ask("theirs-account", boundObjectRef=mine))
    hostile.forbidden("POST", *ask("default", boundObjectRef=mine))
    assert "different node" in hostile.forbidden("POST", *ask("mine-account", boundObjectRef={"kind": "Pod", "apiVersion": "v1", "name": "theirs", "uid": uid["theirs"]}))
    assert 'audience "vault" not found' in hostile.forbidden("POST", *ask("mine-account", boundObjectRef=mine, audiences=["vault"]))
    hostile.forbidden("POST", *ask("mine-account", boundObjectRef=mine, audiences=["a", "b"]))


def test_pretending(hostile):
    for head in ({"Impersonate-User": "kubernetes-admin", "Impersonate-Group": "system:masters"}, {"Impersonate-User": "system:node:node2"}):
        hostile.forbidden("GET", "/api/v1/nodes/node2", headers=head)


def request(two, subject, names=""):
    m = two.nodes[0]
    m.sh(f"cd {m.dir} && openssl ecparam -name prime256v1 -genkey -noout -out h.key && openssl req -new -key h.key -subj '{subject}' "
         + (f"-addext 'subjectAltName={names}' " if names else "") + "-out h.csr")
    return base64.b64encode(open(f"{m.dir}/h.csr", "rb").read()).decode()


CSRS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
CLIENT, SERVING, NETWORK = "kubernetes.io/kube-apiserver-client-kubelet", "kubernetes.io/kubelet-serving", "skiff.dev/node-network"


@pytest.mark.parametrize("signer,subject,names,verdict", [
    (CLIENT, "/O=system:nodes/CN=system:node:node2", "", None),
    (CLIENT, "/O=system:nodes/O=skiff:server-nodes/CN=system:node:node1", "", None),
    (CLIENT, "/O=system:nodes/O=system:masters/CN=system:node:node1", "", None),
    (CLIENT, "/O=system:masters/CN=system:node:node1", "", None),
    (NETWORK, "/O=skiff:node-network/CN=system:node-network:node2", "", None),
    (NETWORK, "/O=skiff:node-network/O=system:masters/CN=system:node-network:node1", "", None),
    (NETWORK, "/O=system:masters/CN=system:node-network:node1", "", None),
    (SERVING, "/O=system:nodes/CN=system:node:node2", "DNS:node2,IP:192.0.2.12", None),
    (SERVING, "/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:192.0.2.10", "Denied"),   # the API server's
    (SERVING, "/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:192.0.2.12", "Denied"),   # node2's
    (SERVING, "/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:10.43.0.1", "Denied"),    # a service's
    (SERVING, "/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:127.0.0.1", "Denied"),    # everybody's
    (SERVING, "/O=system:nodes/CN=system:node:node1", "DNS:node1,DNS:kubernetes.default.svc", None),
    (SERVING, "/O=system:nodes/CN=system:node:node1", "DNS:node1,IP:192.0.2.11", "Approved"),
    (NETWORK, "/O=skiff:node-network/CN=system:node-network:node1", "", "Approved"),
])
def test_certificates(hostile, two, admin, signer, subject, names, verdict):
    usage = "server auth" if signer == SERVING else "client auth"
    r = hostile.call("POST", CSRS, {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"generateName": "h-"}, "spec": {
        "request": request(two, subject, names), "signerName": signer, "usages": ["digital signature", usage]}})
    if r.status == 403:
        assert "system:masters" in subject
        return
    assert r.status == 201, r
    name = r.json["metadata"]["name"]
    # One that is granted, made after it: when that is signed, this one was looked at.
    probe = hostile.call("POST", CSRS, {"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"generateName": "h-"}, "spec": {
        "request": request(two, "/O=system:nodes/CN=system:node:node1"), "signerName": CLIENT, "usages": ["digital signature", "client auth"]}}).json["metadata"]["name"]
    eventually(lambda: admin.get(f"{CSRS}/{probe}").json["status"].get("certificate"), 10, "the probe's certificate")
    if verdict:
        eventually(lambda: admin.get(f"{CSRS}/{name}").json["status"].get("conditions"), 10, "a verdict")
    status = admin.get(f"{CSRS}/{name}").json["status"]
    assert [c["type"] for c in status.get("conditions", [])] == ([verdict] if verdict else [])
    if verdict == "Approved":
        eventually(lambda: admin.get(f"{CSRS}/{name}").json["status"].get("certificate"), 10, "a certificate")
    else:
        assert "certificate" not in status
        hostile.forbidden("PUT", f"{CSRS}/{name}/approval", {})
        hostile.forbidden("PUT", f"{CSRS}/{name}/status", {})
        hostile.forbidden("DELETE", f"{CSRS}/{name}")


# ---- what a node answers ----

PATHS = ["/healthz", "/healthz/ping", "/pods", "/runningpods/", "/containerLogs/default/mine/c", "/exec/default/mine/c?command=id&output=1",
         "/exec/default/mine/uid/c?command=id", "/attach/default/mine/c?output=1", "/portForward/default/mine", "/run/default/mine/c?cmd=id", "/stats/summary",
         "/stats", "/metrics", "/metrics/cadvisor", "/metrics/probes", "/metrics/resource", "/skiff/default/mine/c/why", "/configz", "/logs/", "/debug/pprof/",
         "/checkpoint/default/mine/c", "/", "/nonsense", "//healthz", "/healthz/..%2fpods"]


@pytest.fixture(scope="module")
def stranger(two):
    """A certificate that says it is the API server's client, of another CA."""
    d = two.master.dir
    two.master.sh(f"cd {d} && openssl ecparam -name prime256v1 -genkey -noout -out s.key && openssl req -x509 -new -key s.key -days 2 "
                  "-subj '/O=system:masters/CN=kube-apiserver-kubelet-client' -out s.crt")
    return f"{d}/s.crt", f"{d}/s.key"


@pytest.mark.parametrize("path", PATHS)
def test_kubelet_port(two, stranger, path):
    """Strangers, and nodes, get no answer from another node, whatever the path."""
    def curl(method, *args):
        p = two.master.run("curl", "-sk", "--path-as-is", "-m", "10", "-X", method, "-o", "/dev/null", "-w", "%{http_code}", *args,
                           f"https://192.0.2.12:10250{path}", check=False)
        return p.stdout
    own = f"{two.nodes[0].data}/agent"
    for method in ("GET", "POST"):
        assert curl(method) == "401"
        assert curl(method, "-H", "Authorization: Bearer abcdef.0123456789abcdef") == "401"
        assert curl(method, "--cert", stranger[0], "--key", stranger[1]) in ("000", "401")
        for name in ("node", "network"):
            assert curl(method, "--cert", f"{own}/{name}.crt", "--key", f"{own}/{name}.key") in ("403", "404"), name
    assert curl("GET", "--cert", f"{two.master.data}/pki/kubelet-client.crt", "--key", f"{two.master.data}/pki/kubelet-client.key") not in ("000", "401", "403")


def test_no_other_port(two):
    """DNS on its service address, and the kubelet: nothing else listens for others."""
    node = two.nodes[1]
    open_ports = set()
    for line in node.sh("ss -Hltun").splitlines():
        proto, _, _, _, local = line.split()[:5]
        host, _, port = local.rpartition(":")
        if not host.strip("[]").startswith("127.") and host.strip("[]") != "::1":
            open_ports.add((proto, host.split("%")[0], int(port)))
    assert {(p, port) for p, _, port in open_ports} <= {("tcp", 10250), ("tcp", 53), ("udp", 53), ("udp", 8472)}, open_ports
    assert all(host == "10.43.0.10" for _, host, port in open_ports if port == 53), open_ports
    def answers(port):
        return two.master.run("timeout", "2", "bash", "-c", f"exec 3<>/dev/tcp/192.0.2.12/{port}", check=False).returncode == 0
    assert answers(10250)
    for port in (53, 80, 443, 2379, 4194, 6443, 8080, 9153, 10248, 10249, 10255, 10256, 30000):
        assert not answers(port), port


def test_network_identity(two, admin):
    """What proxy, DNS and pod network read; nothing that is secret, and no writes but events."""
    h = Hostile(two, two.nodes[0], "network")
    expected = {("", "services"): {"list", "watch"}, ("", "endpoints"): {"list", "watch"}, ("", "nodes"): READ, ("", "namespaces"): READ, ("", "pods"): READ,
                ("networking.k8s.io", "networkpolicies"): READ, ("networking.k8s.io", "servicecidrs"): {"list", "watch"},
                ("discovery.k8s.io", "endpointslices"): {"list", "watch"},
                ("", "events"): {"create", "patch", "update"}, ("events.k8s.io", "events"): {"create", "patch", "update"},
                ("authorization.k8s.io", "selfsubjectaccessreviews"): {"create"}, ("authorization.k8s.io", "selfsubjectrulesreviews"): {"create"},
                ("authentication.k8s.io", "selfsubjectreviews"): {"create"}}
    try:
        wrong = [(verb, group, resource) for (group, resource), namespaced in discovery(admin).items() for verb in VERBS
                 if h.may(verb, group, resource, "", "default" if namespaced else "") != (verb in expected.get((group, resource), set()))]
        assert not wrong
    finally:
        h.close()
