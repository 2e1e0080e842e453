"""Upgrades under load: the binary of an agent, then of the server, is replaced by another build and told to take over, while clients write and read through
the API and through a service. Not one container restarts, nobody waits longer than a second, and a watch sees each revision once and in order."""

import base64
import json
import os
import signal
import subprocess
import sys
import threading
import time

import pytest

import machine as machines
from api import Api
from cluster import Cluster
from etcd import Etcd
from machine import eventually
from test_etcd import need

GAP_S = 1.0
CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
COUNTER = CONFIGMAPS + "/counter"

# Asks again and again, in a machine; prints the longest time from a first try to its answer, in seconds, and how many answers there were.
ASK = r"""
import signal, socket, struct, sys, time, urllib.request
kind, where = sys.argv[1:]
longest, n, stop = 0.0, 0, False
def end(*_):
    global stop
    stop = True
signal.signal(signal.SIGTERM, end)
def web():
    with urllib.request.urlopen(f"http://{where}/", timeout=5) as r:
        return r.status == 200
def dns():  # a resolver's patience: five seconds for each question
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    s.settimeout(5)
    s.connect((where, 53))
    name = b"".join(bytes([len(p)]) + p for p in b"web.default.svc.cluster.local".split(b"."))
    s.send(struct.pack(">HHHHHH", n & 0xffff, 0x100, 1, 0, 0, 0) + name + b"\0\0\1\0\1")
    return s.recv(512)[7] > 0
print("up", flush=True)
while not stop:
    began = time.monotonic()
    while not stop:
        try:
            if {"web": web, "dns": dns}[kind]():
                break
        except OSError:
            time.sleep(0.01)
    if not stop:
        longest, n = max(longest, time.monotonic() - began), n + 1
    time.sleep(0.01)
print(longest, n)
"""

# Watches the counter from a revision on, again from the last one seen when the stream ends; prints each event.
WATCH = r"""
import json, ssl, sys, time, http.client
path, version, ca, cert, key = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
while True:
    try:
        conn = http.client.HTTPSConnection("127.0.0.1", 6443, context=context, timeout=30)
        conn.request("GET", f"{path}?watch=1&fieldSelector=metadata.name%3Dcounter&resourceVersion={version}")
        r = conn.getresponse()
        assert r.status == 200, r.read()
        for line in r:
            e = json.loads(line)
            version = e["object"].get("metadata", {}).get("resourceVersion", version)
            print(json.dumps([e["type"], e["object"].get("data", {}).get("n")]), flush=True)
    except (OSError, http.client.HTTPException):
        time.sleep(0.01)
"""


class Client(threading.Thread):
    """Raises the counter by conditional updates and reads it back, for ever. `longest`: the worst time from a first try to its answer."""

    def __init__(self, machine):
        super().__init__()
        self.api, self.stop, self.longest, self.done, self.error = Api(machine), threading.Event(), 0.0, 0, None

    def ask(self, *args):
        """Until it is answered: a connection that is lost is tried again, as client libraries do. None is refused."""
        began = time.monotonic()
        while not self.stop.is_set():
            try:
                r = self.api.call(*args)
                if r.status in (200, 409):
                    self.longest = max(self.longest, time.monotonic() - began)
                    self.done += 1
                    return r
                assert r.status in (429, 500, 502, 503, 504), r
            except ConnectionError as e:
                assert "Refused" not in str(e), e
            time.sleep(0.01)
        return None

    def run(self):
        try:
            while not self.stop.is_set():
                r = self.ask("GET", COUNTER)
                if r is None or r.status != 200:
                    continue
                body = r.json
                body["data"] = {"n": str(int(body["data"]["n"]) + 1)}
                self.ask("PUT", COUNTER, body)
        except Exception as e:  # told by the test, which would wait for ever otherwise
            self.error = e


class Load:
    def __init__(self, c, outside):
        self.clients = [Client(c.master) for _ in range(2)]
        c.kubectl("delete", "configmap", "counter", "--ignore-not-found")
        c.kubectl("create", "configmap", "counter", "--from-literal=n=0")
        version = c.get("configmap", "counter")["metadata"]["resourceVersion"]
        self.events = open(f"{c.master.dir}/events", "w+")
        pki = f"{c.master.data}/pki"
        self.watch = subprocess.Popen(c.master.enter(sys.executable, "-c", WATCH, CONFIGMAPS, version, f"{pki}/ca.crt", f"{pki}/admin.crt", f"{pki}/admin.key"),
                                      stdout=self.events)
        ip = c.get("service", "web")["spec"]["clusterIP"]
        self.askers = {}
        for m, kind, where in outside(ip):
            self.askers[f"{kind} on {m.name}"] = p = subprocess.Popen(m.enter(sys.executable, "-c", ASK, kind, where), stdout=subprocess.PIPE, text=True)
            assert p.stdout.readline() == "up\n"
        for t in self.clients:
            t.start()

    def end(self, c):
        """Returns who -> the longest wait."""
        out = {}
        for t in self.clients:
            t.stop.set()
        for t in self.clients:
            t.join(60)
            t.api.close()
            assert t.error is None, t.error
            assert t.done > 50
        out["API"] = max(t.longest for t in self.clients)
        for name, p in self.askers.items():
            os.kill(int(open(f"/proc/{p.pid}/task/{p.pid}/children").read().split()[0]), signal.SIGTERM)
            longest, n = p.communicate(timeout=30)[0].split()
            out[name] = float(longest)
            assert int(n) > 50, name
        last = int(c.get("configmap", "counter")["data"]["n"])

        def seen():
            return [json.loads(line) for line in open(self.events.name)]
        eventually(lambda: seen()[-1][1] == str(last), 10, "the last event")
        os.kill(int(open(f"/proc/{self.watch.pid}/task/{self.watch.pid}/children").read().split()[0]), signal.SIGKILL)
        self.watch.wait()
        assert seen() == [["MODIFIED", str(i + 1)] for i in range(last)], "each revision once and in order"
        return out


def start(c, *flags):
    for m in c.machines:
        m.binary = f"{m.dir}/skiff"
        install(m, b"v1.36.3")
    c.start(*flags)
    c.apply(machines.web(4))
    c.wait_pods("app=web", 4)


@pytest.fixture(scope="module")
def three():
    c = Cluster(2)
    try:
        start(c)
        yield c
    finally:
        c.close()


@pytest.fixture
def on_etcd():
    need("3.6")
    c, etcd = Cluster(1), None
    try:
        etcd = Etcd("3.6", 1, c.wire)
        start(c, *etcd.flags())
        yield c, etcd
    finally:
        c.close()
        if etcd:
            etcd.close()


def install(m, version):
    """What `install` does: a new file under the old name, while the old one runs."""
    with open(machines.SKIFF, "rb") as f:
        data = f.read()
    with open(f"{m.binary}.new", "wb") as f:
        f.write(data.replace(b"v1.36.3", version))
    os.chmod(f"{m.binary}.new", 0o755)
    os.rename(f"{m.binary}.new", m.binary)


def containers(c):
    return sorted((p["metadata"]["uid"], s["containerID"], s["restartCount"], s["state"]["running"]["startedAt"])
                  for p in c.pods("app=web") for s in p["status"]["containerStatuses"])


def upgraded(c, node, version):
    return c.get("node", node)["status"]["nodeInfo"]["kubeletVersion"] == version and c.condition(node) == "True"


def test_agent(three):
    c, node = three, three.nodes[0]
    before = containers(c)
    load = Load(c, lambda ip: [(node, "web", ip), (node, "dns", "10.43.0.10"), (c.master, "web", ip)])
    install(node, b"v1.36.8")
    pid = node.skiff_pids()["agent"]
    os.kill(pid, signal.SIGHUP)
    eventually(lambda: upgraded(c, "node1", "v1.36.8"), 20, "the new agent")
    assert node.skiff_pids() == {"agent": pid}
    time.sleep(2)
    gaps = load.end(c)
    print(gaps)
    assert containers(c) == before
    assert max(gaps.values()) < GAP_S, gaps


def test_server(three):
    upgrade_server(three)


def test_server_on_etcd(on_etcd):
    """The same where there could be other servers to turn to. But nobody waits for one that died, or that waits for its etcd."""
    c, etcd = on_etcd
    upgrade_server(c)
    m = c.master

    def connect():
        return m.run("curl", "-sk", "--max-time", "5", "-o", "/dev/null", "https://127.0.0.1:6443/livez", check=False).returncode
    assert connect() == 0
    etcd.kill(0)
    m.stop(signal.SIGKILL)
    m.again()
    eventually(lambda: "etcd" in m.log_text(5) and "tried again" in m.log_text(5), 20, "the wait for etcd")
    assert connect() == 7, "refused"
    etcd.start(0)
    eventually(lambda: connect() == 0, 20, "the server")
    pids = m.skiff_pids()
    os.kill(pids["control-plane"], signal.SIGSTOP)
    os.kill(pids["control-plane"], signal.SIGKILL)
    eventually(lambda: connect() == 7, 5, "a refusal while it is away")
    eventually(lambda: connect() == 0, 20, "the server")


def upgrade_server(c):
    before = containers(c)
    # A stream that would go on for ever does not hold the upgrade up.
    stream = subprocess.Popen(c.master.enter(os.path.join(machines.CLIENTS, "kubectl-1.35"), "--kubeconfig", c.kubeconfig, "exec", c.pods("app=web")[0]["metadata"]["name"],
                                             "--", "sh", "-c", "while true; do echo tick; sleep 0.1; done"), stdout=subprocess.PIPE, text=True)
    assert stream.stdout.readline() == "tick\n"
    load = Load(c, lambda ip: [(c.master, "web", ip), (c.master, "dns", "10.43.0.10"), (c.nodes[0], "web", ip)])
    install(c.master, b"v1.36.9")
    pids = c.master.skiff_pids()
    os.kill(pids["server"], signal.SIGHUP)
    eventually(lambda: json.loads(c.kubectl("get", "--raw", "/version"))["gitVersion"].startswith("v1.36.9"), 20, "the new API server")
    eventually(lambda: upgraded(c, "master", "v1.36.9"), 20, "the new agent beside it")
    now = c.master.skiff_pids()
    stream.communicate(timeout=10)
    assert (now["server"], now["agent"]) == (pids["server"], pids["agent"]) and now["control-plane"] != pids["control-plane"]
    time.sleep(2)
    gaps = load.end(c)
    print(gaps)
    assert containers(c) == before
    assert max(gaps.values()) < GAP_S, gaps


def test_broken_build(three):
    """What cannot run takes nothing over."""
    c = three
    pids = [m.skiff_pids() for m in c.machines]
    for m, name in ((c.master, "server"), (c.nodes[1], "agent")):
        with open(f"{m.binary}.new", "w") as f:
            f.write("no program\n")
        os.chmod(f"{m.binary}.new", 0o755)
        os.rename(f"{m.binary}.new", m.binary)
        os.kill(m.skiff_pids()[name], signal.SIGHUP)
        eventually(lambda m=m: "no other build takes over" in m.log_text(), 10, "the reason")
    assert [m.skiff_pids() for m in c.machines] == pids
    assert c.master.ready() and c.condition("node2") == "True"
