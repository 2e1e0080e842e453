"""What upstream's conformance asks of a pod on a node: environment, volumes, users, hooks, probes, init containers. One row a pod; all run at once,
each row then waits for its own end and compares what its container printed."""

import base64
import json
import uuid

import pytest

from machine import eventually

IMAGE = "test/busybox:1"
KEEP = "trap 'exit 0' TERM; sleep 1000 & wait"


def pod(script, restart="Never", volumes=None, mounts=None, spec=None, meta=None, **container):
    c = {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], **container}
    if mounts:
        c["volumeMounts"] = mounts
    return {"metadata": meta or {}, "spec": {"restartPolicy": restart, "terminationGracePeriodSeconds": 2, "containers": [c],
            **({"volumes": volumes} if volumes else {}), **(spec or {})}}


def vol(source, mount="/v", **kw):
    return {"volumes": [{"name": "v", **source}], "mounts": [{"name": "v", "mountPath": mount, **kw}]}


def field(path, **kw):
    return {"valueFrom": {"fieldRef": {"fieldPath": path}}, **kw}


def res(what, **kw):
    return {"valueFrom": {"resourceFieldRef": {"resource": what, **kw}}}


LS = "stat -L -c '%a %u %g' {0}; cat {0}; echo"
CM, SEC = {"configMap": {"name": "cm"}}, {"secret": {"secretName": "sec"}}
RES = {"resources": {"requests": {"cpu": "250m", "memory": "32Mi"}, "limits": {"cpu": "1250m", "memory": "64Mi"}}}
ANY = object()
# name, pod, phase at the end, what it printed (lines; a function gets the text and the pod)
ROWS = [
    ("env-configmap", pod("echo $A $pre_k1 $pre_k2", env=[{"name": "A", "valueFrom": {"configMapKeyRef": {"name": "cm", "key": "k1"}}}],
        envFrom=[{"configMapRef": {"name": "cm"}, "prefix": "pre_"}]), "Succeeded", ["v1 v1 v2"]),
    ("env-odd-names", pod("", command=["env"], envFrom=[{"prefix": "p-", "configMapRef": {"name": "cm"}}, {"prefix": "2", "configMapRef": {"name": "cm"}}]),
        "Succeeded", lambda out, p: {"2k1=v1", "2k2=v2", "p-k1=v1", "p-k2=v2"} <= set(out.split("\n"))),
    ("env-secret", pod("echo $A $B", env=[{"name": "A", "valueFrom": {"secretKeyRef": {"name": "sec", "key": "s1"}}},
        {"name": "B", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x", "optional": True}}}]), "Succeeded", ["t1"]),
    ("env-compose", pod("echo $C", env=[{"name": "A", "value": "a"}, {"name": "B", "value": "b"}, {"name": "C", "value": "$(A);;$(B);;$$(A) $(NONE)"}]),
        "Succeeded", ["a;;b;;$(A) $(NONE)"]),
    ("args-expand", {"spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": IMAGE, "command": ["sh", "-c"], "args": ["echo \"$(T)\""],
        "env": [{"name": "T", "value": "test-value"}]}]}}, "Succeeded", ["test-value"]),
    ("downward-env", pod("echo $N $NS $U $I $H $HS $SA $NODE $L", meta={"labels": {"zone": "z1"}}, env=[field("metadata.name", name="N"), field("metadata.namespace",
        name="NS"), field("metadata.uid", name="U"), field("status.podIP", name="I"), field("status.hostIP", name="H"), field("status.hostIPs", name="HS"),
        field("spec.serviceAccountName", name="SA"), field("spec.nodeName", name="NODE"), field("metadata.labels['zone']", name="L")]), "Succeeded",
        lambda out, p: out.split() == ["downward-env", p["metadata"]["namespace"], p["metadata"]["uid"], p["status"]["podIP"], "192.0.2.10", "192.0.2.10", "default",
                                       "node1", "z1"]),
    ("downward-res", pod("echo $A $B $C $D $E", env=[{"name": "A", **res("requests.cpu")}, {"name": "B", **res("limits.cpu", divisor="1m")}, {"name": "C",
        **res("requests.memory")}, {"name": "D", **res("limits.memory", divisor="1Mi")}, {"name": "E", **res("requests.cpu", divisor="1m")}], **RES),
        "Succeeded", ["1 1250 33554432 64 250"]),
    ("downward-default", pod("test $A -gt 0 && test $B -gt 1000000 && echo ok", env=[{"name": "A", **res("limits.cpu")}, {"name": "B", **res("limits.memory")}]),
        "Succeeded", ["ok"]),
    ("downward-vol", pod("cat /v/name /v/labels /v/ann; stat -L -c %a /v/name /v/labels; cat /v/cpu /v/mem", meta={"labels": {"b": "2", "a": "1"}, "annotations":
        {"n": "x \"y\""}}, **vol({"downwardAPI": {"defaultMode": 0o400, "items": [{"path": "name", "fieldRef": {"fieldPath": "metadata.name"}}, {"path": "labels", "mode": 0o644,
        "fieldRef": {"fieldPath": "metadata.labels"}}, {"path": "ann", "fieldRef": {"fieldPath": "metadata.annotations"}}, {"path": "cpu", "resourceFieldRef":
        {"containerName": "c", "resource": "limits.cpu"}}, {"path": "mem", "resourceFieldRef": {"containerName": "c", "resource": "requests.memory", "divisor": "1Mi"}}]}}), **RES),
        "Succeeded", ['downward-vola="1"', 'b="2"n="x \\"y\\""400', "644", "232"]),
    ("cm-vol", pod(LS.format("/v/k1"), **vol(CM)), "Succeeded", ["644 0 0", "v1"]),
    ("cm-mode", pod(LS.format("/v/k1"), **vol({"configMap": {"name": "cm", "defaultMode": 0o400}})), "Succeeded", ["400 0 0", "v1"]),
    ("cm-items", pod(LS.format("/v/path/to/k") + "; ls /v", **vol({"configMap": {"name": "cm", "items": [{"key": "k2", "path": "path/to/k", "mode": 0o440}]}})),
        "Succeeded", ["440 0 0", "v2", "path"]),
    ("cm-nonroot", pod(LS.format("/v/k1"), spec={"securityContext": {"runAsUser": 1000}}, **vol(CM)), "Succeeded", ["644 0 0", "v1"]),
    ("cm-binary", pod("od -An -tx1 /v/bin | tr -d ' '", **vol(CM)), "Succeeded", ["deca0e00ff"]),
    ("cm-optional", pod("ls /v | wc -l", **vol({"configMap": {"name": "none", "optional": True}})), "Succeeded", ["0"]),
    ("sec-vol", pod(LS.format("/v/s1"), **vol(SEC)), "Succeeded", ["644 0 0", "t1"]),
    ("sec-fsgroup", pod(LS.format("/v/s1"), spec={"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}, **vol({"secret": {"secretName": "sec", "defaultMode": 0o440}})),
        "Succeeded", ["440 0 1001", "t1"]),
    ("sec-two", pod("cat /v/s1 /w/s1", mounts=[{"name": "v", "mountPath": "/v", "readOnly": True}, {"name": "w", "mountPath": "/w", "readOnly": True}],
        volumes=[{"name": "v", **SEC}, {"name": "w", **SEC}]), "Succeeded", ["t1t1"]),
    ("projected-all", pod("cat /v/name /v/k1 /v/s1; test -s /v/token && echo ok", **vol({"projected": {"sources": [{"downwardAPI": {"items": [{"path": "name", "fieldRef":
        {"fieldPath": "metadata.name"}}]}}, {"configMap": {"name": "cm"}}, {"secret": {"name": "sec"}}, {"serviceAccountToken": {"path": "token", "audience": "x",
        "expirationSeconds": 3600}}]}})), "Succeeded", ["projected-allv1t1ok"]),
    ("projected-fsgroup", pod(LS.format("/v/s1"), spec={"securityContext": {"runAsUser": 1000, "fsGroup": 1001}}, **vol({"projected": {"defaultMode": 0o440, "sources":
        [{"secret": {"name": "sec"}}]}})), "Succeeded", ["440 0 1001", "t1"]),
    ("empty-modes", pod("stat -c %a /v; touch /v/f; chmod 640 /v/f; stat -c '%a %u' /v/f; grep ' /v ' /proc/mounts | cut -d' ' -f3", **vol({"emptyDir": {"medium":
        "Memory"}})), "Succeeded", ["1777", "640 0", "tmpfs"]),
    ("empty-nonroot", pod("stat -c %a /v; echo x > /v/f; stat -c '%u %g' /v/f /v; id -G", spec={"securityContext": {"runAsUser": 1000, "fsGroup": 123}},
        **vol({"emptyDir": {}})), "Succeeded", lambda out, p: out.split("\n")[1:3] == ["1000 123", "0 123"] and "123" in out.split("\n")[3].split()),
    ("subpath", pod("cat /v/file; echo x > /w/f; ls /all/sub", mounts=[{"name": "c", "mountPath": "/v/file", "subPath": "k1"}, {"name": "e", "mountPath": "/w", "subPath":
        "sub"}, {"name": "e", "mountPath": "/all"}], volumes=[{"name": "c", **CM}, {"name": "e", "emptyDir": {}}]), "Succeeded", ["v1f"]),
    ("subpath-existing", pod("cat /etc/passwd", mounts=[{"name": "c", "mountPath": "/etc/passwd", "subPath": "k1"}], volumes=[{"name": "c", **CM}]), "Succeeded", ["v1"]),
    ("subpath-expr", pod("echo x > /v/f; ls /all/subpath-expr", env=[field("metadata.name", name="N")], mounts=[{"name": "e", "mountPath": "/v", "subPathExpr": "$(N)"},
        {"name": "e", "mountPath": "/all"}], volumes=[{"name": "e", "emptyDir": {}}]), "Succeeded", ["f"]),
    ("subpath-absolute", pod("true", env=[field("metadata.name", name="N"), {"name": "R", "value": "/tmp"}], mounts=[{"name": "e", "mountPath": "/v", "subPathExpr": "$(R)/$(N)"}],
        volumes=[{"name": "e", "emptyDir": {}}]), "Pending", lambda out, p: "CreateContainerConfigError" in json.dumps(p["status"])),
    ("user", pod("id -u; id -g; cat /proc/self/status | grep NoNewPrivs", securityContext={"runAsUser": 65534, "runAsGroup": 2002, "allowPrivilegeEscalation": False}),
        "Succeeded", ["65534", "2002", "NoNewPrivs:\t1"]),
    ("user-pod", pod("id -u; id -g; id -G", spec={"securityContext": {"runAsUser": 1001, "runAsGroup": 2002, "supplementalGroups": [77]}}), "Succeeded",
        lambda out, p: out.split("\n")[:2] == ["1001", "2002"] and "77" in out.split("\n")[2].split()),
    ("nonroot-refused", pod("true", securityContext={"runAsNonRoot": True, "runAsUser": None}), "Pending", lambda out, p: "CreateContainerConfigError" in
        json.dumps(p["status"])),
    ("unprivileged", pod("ip link set lo down 2>/dev/null && echo allowed || echo refused"), "Succeeded", ["refused"]),
    ("privileged", pod("ip link set lo down 2>/dev/null && echo allowed || echo refused", securityContext={"privileged": True}), "Succeeded", ["allowed"]),
    ("readonly-root", pod("touch /x 2>/dev/null || echo refused", securityContext={"readOnlyRootFilesystem": True}), "Succeeded", ["refused"]),
    ("writable-root", pod("touch /x && echo written", securityContext={"readOnlyRootFilesystem": False}), "Succeeded", ["written"]),
    ("sysctl", pod("cat /proc/sys/kernel/shm_rmid_forced", spec={"securityContext": {"sysctls": [{"name": "kernel.shm_rmid_forced", "value": "1"}]}}), "Succeeded", ["1"]),
    ("host-aliases", pod("grep 123.45 /etc/hosts; head -1 /etc/hosts", spec={"hostAliases": [{"ip": "123.45.67.89", "hostnames": ["foo", "bar"]}]}), "Succeeded",
        ["123.45.67.89\tfoo\tbar", "# Kubernetes-managed hosts file."]),
    ("host-net-hosts", pod("head -1 /etc/hosts", spec={"hostNetwork": True}), "Succeeded", lambda out, p: "managed hosts file (host network)" in out or "Kubernetes-managed" not in out),
    ("dns-config", pod("cat /etc/resolv.conf", spec={"dnsPolicy": "None", "dnsConfig": {"nameservers": ["1.1.1.1"], "searches": ["resolv.conf.local"], "options":
        [{"name": "ndots", "value": "3"}]}}), "Succeeded", lambda out, p: {"nameserver 1.1.1.1", "search resolv.conf.local", "options ndots:3"} <= set(out.split("\n"))),
    ("hostname", pod("hostname; hostname -f 2>/dev/null || true; grep sub /etc/hosts | cut -f2", spec={"hostname": "web", "subdomain": "sub"}), "Succeeded",
        lambda out, p: out.startswith("web\n") and f"web.sub.{p['metadata']['namespace']}.svc.cluster.local" in out),
    ("message-file", pod("echo -n DONE > /dev/termination-log", terminationMessagePolicy="FallbackToLogsOnError"), "Succeeded", lambda out, p: message(p) == "DONE"),
    ("message-logs", pod("echo -n DONE; exit 1", terminationMessagePolicy="FallbackToLogsOnError"), "Failed", lambda out, p: message(p) == "DONE"),
    ("message-empty", pod("echo DONE", terminationMessagePolicy="FallbackToLogsOnError"), "Succeeded", lambda out, p: message(p) == ""),
    ("message-nonroot", pod("echo -n DONE > /dev/custom", terminationMessagePath="/dev/custom", securityContext={"runAsUser": 1000}), "Succeeded",
        lambda out, p: message(p) == "DONE"),
    ("exit-on-failure", pod("test -f /v/once || { touch /v/once; exit 3; }", restart="OnFailure", **vol({"emptyDir": {}})), "Succeeded",
        lambda out, p: p["status"]["containerStatuses"][0]["restartCount"] == 1),
    ("init-never", pod("echo main", spec={"initContainers": [{"name": "i1", "image": IMAGE, "command": ["true"]}, {"name": "i2", "image": IMAGE, "command": ["true"]}]}),
        "Succeeded", lambda out, p: out == "main\n" and all(s["ready"] and s["state"]["terminated"]["exitCode"] == 0 for s in p["status"]["initContainerStatuses"])
        and {c["type"]: c["status"] for c in p["status"]["conditions"]}["Initialized"] == "True"),
    ("init-fails", pod("echo main", spec={"initContainers": [{"name": "i1", "image": IMAGE, "command": ["true"]}, {"name": "i2", "image": IMAGE, "command": ["false"]}]}),
        "Failed", lambda out, p: "waiting" in p["status"]["containerStatuses"][0]["state"] and [c for c in p["status"]["conditions"] if c["type"] == "Initialized"][0]["reason"]
        in ("ContainersNotInitialized", "PodFailed")),
    ("deadline", pod(KEEP, spec={"activeDeadlineSeconds": 2}), "Failed", lambda out, p: p["status"]["reason"] == "DeadlineExceeded"),
    ("sidecar", pod("cat /v/f", spec={"initContainers": [{"name": "s", "image": IMAGE, "restartPolicy": "Always", "command": ["sh", "-c", f"echo up > /v/f; {KEEP}"],
        "startupProbe": {"exec": {"command": ["cat", "/v/f"]}, "periodSeconds": 1}, "volumeMounts": [{"name": "v", "mountPath": "/v"}]}]}, **vol({"emptyDir": {}})),
        "Succeeded", ["up"]),
    ("qos-guaranteed", pod("true", resources={"limits": {"cpu": "100m", "memory": "64Mi"}}), "Succeeded", lambda out, p: p["status"]["qosClass"] == "Guaranteed"),
    ("token", pod("cd /var/run/secrets/kubernetes.io/serviceaccount; ls | sort; cat namespace"), "Succeeded",
        lambda out, p: out.split() == ["ca.crt", "namespace", "token", p["metadata"]["namespace"]]),
    ("no-token", pod("ls /var/run/secrets/kubernetes.io/serviceaccount 2>/dev/null | wc -l", spec={"automountServiceAccountToken": False}), "Succeeded", ["0"]),
    ("service-env", pod("echo $SVC_SERVICE_HOST $SVC_SERVICE_PORT $SVC_PORT_8765_TCP_PROTO; echo $KUBERNETES_SERVICE_PORT"), "Succeeded",
        lambda out, p: out.split()[1:] == ["8765", "tcp", "443"]),
    ("bad-command", pod("true", command=["/no/such"]), "Failed", lambda out, p: p["status"]["containerStatuses"][0]["state"]["terminated"]["reason"] in ("ContainerCannotRun", "StartError")),
]


def message(p):
    return p["status"]["containerStatuses"][0]["state"]["terminated"].get("message", "")


@pytest.fixture(scope="module")
def run(cluster):
    """All pods of the table, made at once."""
    ns = "t-" + uuid.uuid4().hex[:8]
    cluster.kubectl("create", "namespace", ns)
    eventually(lambda: cluster.kubectl("get", "sa", "default", "-n", ns, check=False)[0] == 0, 10)
    items = [{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cm"}, "data": {"k1": "v1", "k2": "v2"}, "binaryData":
              {"bin": base64.b64encode(bytes.fromhex("deca0e00ff")).decode()}},
             {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "sec"}, "stringData": {"s1": "t1"}},
             {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "svc"}, "spec": {"ports": [{"port": 8765}], "selector": {"none": "x"}}}]
    cluster.apply({"apiVersion": "v1", "kind": "List", "items": items}, "-n", ns)
    pods = []
    for name, p, _, _ in ROWS:
        p = json.loads(json.dumps(p))
        p.update(apiVersion="v1", kind="Pod")
        p.setdefault("metadata", {})["name"] = name
        pods.append(p)
    cluster.kubectl("create", "-n", ns, "-f", "-", input=json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}))
    yield ns
    cluster.kubectl("delete", "namespace", ns, "--wait=false")


@pytest.mark.parametrize("row", ROWS, ids=[r[0] for r in ROWS])
def test_pod(cluster, run, row):
    name, _, phase, expected = row

    def there():
        p = cluster.get("pod", name, "-n", run)
        return p if p["status"].get("phase") == phase and (phase != "Pending" or not callable(expected) or expected("", p)) else None
    p = eventually(there, 30, f"{name} {phase}")
    out = cluster.kubectl("logs", name, "-n", run, check=False)[1] if phase != "Pending" else ""
    if callable(expected):
        assert expected(out, p), (out, p["status"])
    else:
        assert out.rstrip("\n").split("\n") == expected


def test_node_logs(cluster, run):
    """The node's own logs: by way of the API server, and from the node for who may get nodes/log and nothing else."""
    cluster.sh("mount -t tmpfs logs /var/log; mkdir /var/log/sub; echo inside > /var/log/sub/x.log; ln -s /etc/passwd /var/log/out; seq 1000000 > /var/log/big")
    try:
        for node in ("node1", "node1:10250"):
            base = f"/api/v1/nodes/{node}/proxy/logs"
            assert '<a href="sub/">sub/</a>' in cluster.kubectl("get", "--raw", f"{base}/")
            assert '<a href="x.log">x.log</a>' in cluster.kubectl("get", "--raw", f"{base}/sub")  # by a redirect
            assert cluster.kubectl("get", "--raw", f"{base}/sub/x.log") == "inside\n"
        assert cluster.kubectl("get", "--raw", f"{base}/big") == "".join(f"{n}\n" for n in range(1, 1000001))
        for path, says in (("out", "leads out of /var/log"), ("none", "not found"), ("?query=kubelet", "not served")):
            code, out, err = cluster.kubectl("get", "--raw", f"{base}/{path}", check=False)
            assert code and says in err, (path, out, err)
        cluster.kubectl("create", "clusterrole", "reader", "--verb=get", "--resource=nodes/log")
        cluster.kubectl("create", "clusterrolebinding", "reader", "--clusterrole=reader", f"--serviceaccount={run}:reader")
        cluster.kubectl("create", "serviceaccount", "reader", "-n", run)

        def ask(account, path):
            token = cluster.kubectl("create", "token", account, "-n", run).strip()
            return cluster.run("curl", "-sk", "-m", "5", "-o", "/dev/null", "-w", "%{http_code}", "-H", f"Authorization: Bearer {token}",
                               f"https://192.0.2.10:10250{path}").stdout
        assert ask("default", "/logs/sub/") == "403"
        assert ask("reader", "/logs/sub/x.log") == "200" and ask("reader", "/pods") == "403"
    finally:
        cluster.sh("umount -l /var/log")
        cluster.kubectl("delete", "clusterrole,clusterrolebinding", "reader", "--ignore-not-found")
