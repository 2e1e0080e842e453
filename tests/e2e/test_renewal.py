"""Certificates that live for seconds: each is renewed several times while a watch and an exec stay open, and no process starts anew."""

import os
import shutil
import subprocess

import pytest

from api import Api
from cluster import Cluster
from machine import CLIENTS, SKIFF, eventually

LIFE = 12
ROUNDS = 4


@pytest.fixture(scope="module")
def short():
    c = Cluster(nodes=1)
    try:
        c.start("--certificate-life", str(LIFE))
        yield c
    finally:
        c.close()


def serial(path):
    p = subprocess.run(["openssl", "x509", "-noout", "-serial", "-in", path], capture_output=True, text=True)
    return p.stdout.strip() or None


def follow(m, *args):
    """kubectl left running; its output goes to a file."""
    out = open(f"{m.dir}/out-{args[0]}", "w+")
    p = subprocess.Popen(m.enter(os.path.join(CLIENTS, "kubectl-1.35"), "--kubeconfig", m.kubeconfig, *args), stdin=subprocess.DEVNULL, stdout=out,
                         stderr=subprocess.STDOUT, env={**os.environ, "HOME": m.dir, "KUBECACHEDIR": f"{m.dir}/kubecache"})
    return p, lambda: open(out.name).read()


def served(m, port, ip):
    """The serial of what a port shows to a new connection."""
    return m.sh(f"echo | openssl s_client -connect {ip}:{port} 2>/dev/null | openssl x509 -noout -serial").strip()


def test_renewal_under_use(short):
    c, node = short, short.nodes[0]
    c.apply("""
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 0
  nodeName: node1
  containers: [{name: c, image: test/busybox:1, command: [sh, -c, "echo hello; httpd -f -p 8080"]}]
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
""")
    c.wait_pods("app=web", 1)
    watch, watched = follow(c.master, "get", "configmaps", "-w", "--output-watch-events")
    run, said = follow(c.master, "exec", "web", "--", "sh", "-c", "i=0; while true; do echo $i; i=$((i+1)); sleep 1; done")
    eventually(lambda: "1\n" in said() and watched(), 10, "watch and exec")
    pids = {m.name: m.skiff_pids() for m in c.machines}

    files = {f"{m.name}/{f}": f"{m.data}/{f}" for m in c.machines for f in ("agent/node.crt", "agent/network.crt", "agent/kubelet.crt")}
    files.update({f: f"{c.master.data}/{f}" for f in ("pki/server.crt", "pki/kubelet-client.crt")})
    seen = {name: {serial(path)} for name, path in files.items()}
    def look():
        for name, path in files.items():
            seen[name].add(serial(path))
        return all(len(s - {None}) > ROUNDS for s in seen.values())
    try:
        eventually(look, LIFE * (ROUNDS + 2), f"{ROUNDS} renewals of each")
    finally:
        print({k: len(v) for k, v in seen.items()})

    subject = subprocess.run(["openssl", "x509", "-noout", "-subject", "-in", f"{c.master.data}/agent/node.crt"], capture_output=True, text=True).stdout
    assert "skiff:server-nodes" in subject, "beside an API server it stays so"

    # Every certificate that anything began with is over: new connections stand on new ones.
    eventually(lambda: served(c.master, 6443, "192.0.2.10") == serial(f"{c.master.data}/pki/server.crt"), 5, "the API server's new certificate")
    eventually(lambda: served(node, 10250, "192.0.2.11") == serial(f"{node.data}/agent/kubelet.crt"), 5, "the node's new certificate")
    assert {m.name: m.skiff_pids() for m in c.machines} == pids, "nothing starts anew"
    assert watch.poll() is None and run.poll() is None, said()[-500:] + watched()[-500:]
    c.kubectl("create", "configmap", "late")
    eventually(lambda: "late" in watched(), 5, "an event of the old watch")
    n = said().count("\n")
    eventually(lambda: said().count("\n") > n + 1, 5, "the old exec to go on")
    assert c.kubectl("exec", "web", "--", "echo", "again").strip() == "again"
    assert "hello" in c.kubectl("logs", "web")
    for name in ("master", "node1"):
        assert c.condition(name) == "True"
    # The network's identity still sees changes: a new service is answered on the node.
    c.kubectl("expose", "pod", "web", "--name", "later", "--port", "80", "--target-port", "8080")
    ip = c.get("service", "later")["spec"]["clusterIP"]
    eventually(lambda: node.run("curl", "-s", "-o", "/dev/null", "-w", "%{http_code}", f"http://{ip}/", check=False).stdout in ("404", "200"), 10,
               "the new service on the node")
    for p in (watch, run):
        p.kill()
        p.wait()


def test_life_of_what_people_approve(short):
    """No certificate lives longer than the cluster says, whatever is asked for."""
    m = short.master
    m.sh(f"openssl ecparam -name prime256v1 -genkey -noout -out {m.dir}/u.key; openssl req -new -key {m.dir}/u.key -subj /CN=jane -out {m.dir}/u.csr")
    request = m.sh(f"base64 -w0 {m.dir}/u.csr")
    short.apply({"apiVersion": "certificates.k8s.io/v1", "kind": "CertificateSigningRequest", "metadata": {"name": "jane"},
                 "spec": {"request": request, "signerName": "kubernetes.io/kube-apiserver-client", "usages": ["digital signature", "client auth"],
                          "expirationSeconds": 86400}})
    short.kubectl("certificate", "approve", "jane")
    eventually(lambda: short.get("csr", "jane")["status"].get("certificate"), 10, "the certificate")
    pem = subprocess.run(["base64", "-d"], input=short.get("csr", "jane")["status"]["certificate"], capture_output=True, text=True).stdout
    assert subprocess.run(["openssl", "x509", "-noout", "-checkend", str(LIFE + 1)], input=pem, text=True, capture_output=True).returncode == 1


def test_certificate_ends_while_its_connection_is_open(short):
    """What was asked before is answered, what is asked afterwards on the same connection is not."""
    node = short.nodes[0]
    pair = {}
    for end in ("crt", "key"):
        pair[end] = f"{node.dir}/old.{end}"
        shutil.copy(f"{node.data}/agent/node.{end}", pair[end])
    api = Api(short.master, certificate=False)
    try:
        def ask():
            return api.call("GET", "/api/v1/nodes/node1", cert=pair["crt"], key=pair["key"]).status
        assert ask() == 200
        eventually(lambda: ask() == 401, LIFE + 5, "the end of the certificate")
        api.close()
        api = Api(short.master, certificate=False)
        assert ask() == 401, "nor on a new connection"
    finally:
        api.close()


def test_too_short_a_life(machine):
    p = machine.run(SKIFF, "server", "--data-dir", machine.data, "--certificate-life", "1", check=False)
    assert p.returncode == 3 and "--certificate-life 1: at least" in p.stderr


def test_server_away_for_longer_than_a_life(short):
    """A node whose certificate ended meanwhile says so, and joins anew with the token that it was started with."""
    node = short.nodes[0]
    short.master.stop()
    eventually(lambda: subprocess.run(["openssl", "x509", "-noout", "-checkend", "0", "-in", f"{node.data}/agent/node.crt"], capture_output=True).returncode == 1,
               LIFE + 5, "the end of the node's certificate")
    old = serial(f"{node.data}/agent/node.crt")
    short.master.start("--certificate-life", str(LIFE))
    eventually(lambda: serial(f"{node.data}/agent/node.crt") not in (None, old), 75, "a new certificate")
    eventually(lambda: "certificate node.crt is not renewed yet" in node.log_text(200), 5, "the node's word")
    short.wait_ready("node1", seconds=20)
