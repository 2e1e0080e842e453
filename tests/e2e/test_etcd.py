"""etcd as the store: one member and three, members that die, several servers on one etcd, what etcdctl sees."""

import json
import os
import signal
import subprocess
import threading
import time

import pytest

from api import Api
from etcd import Etcd, binary
from machine import ROOT, SKIFF, Machine, eventually


def need(version):
    if not binary(version):
        pytest.skip(f"no etcd {version}: tests/tools/fetch-etcd.sh brings it")


def master(things, wire, etcd, name="m0", ip="192.0.2.10", pki_of=None, flags=()):
    """A server on etcd; another one of the same cluster takes the first one's keys."""
    m = Machine(name, ip, wire)
    things.append(m)
    if pki_of:
        os.makedirs(m.data, exist_ok=True)
        subprocess.run(["cp", "-a", f"{pki_of.data}/pki", f"{m.data}/"], check=True)
        for leaf in ("server.crt", "server.key"):  # names the machine's own address
            os.unlink(f"{m.data}/pki/{leaf}")
    m.start("--no-agent", *etcd.flags(), *flags)
    return m


def launch(m, etcd, *flags):
    """Starts a server on etcd and does not wait for it."""
    m.log = open(f"{m.dir}/skiff.log", "ab")
    m.server = subprocess.Popen(
        m.enter(SKIFF, "server", "--no-agent", "--data-dir", m.data, "--run-dir", m.run_dir, "--kubeconfig", m.kubeconfig, "--listen", f"0.0.0.0:{m.port}",
                "--node-name", m.name, "--node-ip", m.ip, *(etcd.flags() if etcd else []), *flags), stdin=subprocess.DEVNULL, stdout=m.log, stderr=m.log)


class Ended:
    """A process that ends with its test."""

    def __init__(self, process):
        self.process = process

    def close(self):
        self.process.kill()
        self.process.wait()


def config_map(name, **data):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "default"}, "data": data}


@pytest.mark.parametrize("version", ["3.4", "3.6"])
def test_one_member(things, wire, version):
    need(version)
    etcd = Etcd(version, 1, wire)
    things.append(etcd)
    m = master(things, wire, etcd)
    m.kubectl("create", "configmap", "a", "--from-literal=x=1")
    m.kubectl("create", "deployment", "web", "--image=none", "--replicas=2")
    eventually(lambda: len(m.get("pods", "-l", "app=web")["items"]) == 2, 20, "the deployment's pods")

    # upstream's keys and bytes
    value = etcd.ctl("get", "/registry/configmaps/default/a", "--print-value-only")
    assert value.startswith(b"k8s\0\n\x0f\n\x02v1\x12\tConfigMap\x12")
    keys = etcd.keys()
    for key in ("/registry/namespaces/default", "/registry/services/specs/default/kubernetes", "/registry/services/endpoints/default/kubernetes",
                "/registry/deployments/default/web"):
        assert key in keys
    assert any(k.startswith("/registry/events/default/") for k in keys)
    assert b"found 1 leases" in etcd.ctl("lease", "list")

    # a resourceVersion is etcd's
    a = m.get("configmap", "a")
    kv = json.loads(etcd.ctl("get", "/registry/configmaps/default/a", "-w", "json"))["kvs"][0]
    assert int(a["metadata"]["resourceVersion"]) == kv["mod_revision"]

    # others write to it too, and it is seen at once
    etcd.ctl("put", "/registry/configmaps/default/b", json.dumps(config_map("b", y="2")))
    assert m.get("configmap", "b")["data"] == {"y": "2"}
    etcd.ctl("del", "/registry/configmaps/default/b")
    assert m.kubectl("get", "configmap", "b", check=False)[0] == 1

    # restarts of either; who watched before goes on
    etcd.ctl("put", "compact_rev_key", str(kv["mod_revision"]))  # as after the first five minutes
    m.kubectl("delete", "configmap", "a", "--wait=false")
    m.kubectl("create", "configmap", "a", "--from-literal=x=2")
    pods = sorted(p["metadata"]["uid"] for p in m.get("pods", "-l", "app=web")["items"])
    m.stop(signal.SIGKILL)
    m.start("--no-agent", *etcd.flags())
    assert sorted(p["metadata"]["uid"] for p in m.get("pods", "-l", "app=web")["items"]) == pods
    watcher = Watcher(m, kv["mod_revision"])
    eventually(lambda: [e[0] for e in watcher.events if e[1] == "a"] == ["DELETED", "ADDED"], 10, "events of before the restart")
    watcher.end()
    etcd.kill(0)
    assert m.kubectl("get", "configmap", "a", "--request-timeout=10s", check=False)[0] == 1, "a read that cannot be fresh is refused"
    etcd.start(0)
    eventually(lambda: m.kubectl("get", "configmap", "a", check=False)[0] == 0, 20, "reads after etcd came back")
    m.kubectl("create", "configmap", "c", "--from-literal=x=1")
    assert m.get("configmap", "c")["data"] == {"x": "1"}
    m.kubectl("delete", "configmap", "c")


def test_refusals(things, wire):
    need("3.4")
    m = Machine("m0", "192.0.2.10", wire)
    things.append(m)

    def fails(*flags):
        p = m.run("timeout", "25", SKIFF, "server", "--no-agent", "--data-dir", m.data, "--run-dir", m.run_dir, "--kubeconfig", m.kubeconfig, "--node-name", "m0", "--node-ip",
                  m.ip, *flags, check=False, timeout=60)
        assert p.returncode not in (0, 124), p.stderr
        return p.stderr

    assert "no URL of etcd" in fails("--store=etcd=127.0.0.1:2379")
    assert "names no port" in fails("--store=etcd=http://127.0.0.1")
    etcd = Etcd("3.4", 1, wire)
    things.append(etcd)
    assert "go together" in fails(*etcd.flags()[:3])
    other = Etcd("3.4", 1, wire, first=41)
    things.append(other)
    url, ca, cert, key = etcd.flags()

    def waits(text, *flags):
        """What the operator may mend while the server waits."""
        launch(m, None, *flags)
        eventually(lambda: text in m.log_text(), 15, text)
        assert "is etcd running there, with a leader, and are the certificates right?" in m.log_text() and "started again" not in m.log_text()
        m.stop()
        os.truncate(f"{m.dir}/skiff.log", 0)

    waits("not trusted", url)  # etcd's CA is not given
    waits("not trusted", url, other.flags()[1], cert, key)  # or another's
    waits("ertificate", url, ca)  # no certificate of the client's
    waits("ertificate", url, ca, *other.flags()[2:])  # or another etcd's
    os.chmod(f"{etcd.dir}/client.key", 0o600)
    text = fails(*etcd.flags())
    assert "client.key" in text and "ermission denied" in text and "started again" not in text
    os.chmod(f"{etcd.dir}/client.key", 0o644)
    m.start("--no-agent", *etcd.flags())
    m.stop()
    text = fails(*other.flags())
    assert "etcd-cluster" in text and "cluster" in text


class Writers(threading.Thread):
    """Creates config maps one after the other; remembers which creates were acknowledged."""

    def __init__(self, m, name):
        super().__init__(daemon=True)
        self.m, self.name_, self.acked, self.failed, self.stopping = m, name, [], 0, False
        self.start()

    def run(self):
        n = 0
        while not self.stopping:
            n += 1
            name = f"{self.name_}-{n}"
            status, out, _ = self.m.kubectl("create", "configmap", name, "-o", "json", check=False)
            if status == 0:
                self.acked.append((name, int(json.loads(out)["metadata"]["resourceVersion"])))
            else:
                self.failed += 1

    def end(self):
        self.stopping = True
        self.join()

    close = end


class Watcher:
    """Raw watch events of config maps, in order."""

    def __init__(self, m, revision):
        self.events = []
        self.process = subprocess.Popen(
            m.enter(os.path.join(ROOT, "build", "clients", "kubectl-1.35"), "--kubeconfig", m.kubeconfig, "get", "--raw",
                    f"/api/v1/namespaces/default/configmaps?watch=1&resourceVersion={revision}"), stdout=subprocess.PIPE, text=True,
            env={**os.environ, "HOME": m.dir})
        threading.Thread(target=self._read, daemon=True).start()  # ends with its machine

    def _read(self):
        for line in self.process.stdout:
            e = json.loads(line)
            self.events.append((e["type"], e["object"]["metadata"].get("name"), int(e["object"]["metadata"].get("resourceVersion", 0))))

    def end(self):
        self.process.kill()
        return list(self.events)

    close = end


def test_three_members_one_dies(things, wire):
    need("3.4")
    etcd = Etcd("3.4", 3, wire)
    things.append(etcd)
    m = master(things, wire, etcd)
    start = json.loads(m.kubectl("get", "--raw", "/api/v1/namespaces/default/configmaps"))["metadata"]["resourceVersion"]
    watcher, writer = Watcher(m, start), Writers(m, "w")
    things += [watcher, writer]
    for _ in range(2):
        before = len(writer.acked)
        eventually(lambda: len(writer.acked) > before + 3, 20, "writes")
        leader = etcd.leader()
        etcd.kill(leader)
        before = len(writer.acked)
        eventually(lambda: len(writer.acked) > before + 3, 20, "writes after the leader died")
        etcd.start(leader)
        eventually(etcd.healthy, 20, "etcd's health")
    writer.end()
    acked = writer.acked
    there = {c["metadata"]["name"]: int(c["metadata"]["resourceVersion"]) for c in m.get("configmaps")["items"]}
    for name, revision in acked:
        assert there.get(name) == revision, f"{name} was acknowledged at {revision}"
    made = {n for n in there if n.startswith("w-")}
    eventually(lambda: {e[1] for e in watcher.events} >= made, 10, "all events")
    events = [e for e in watcher.end() if e[1] and e[1].startswith("w-")]
    revisions = [e[2] for e in events]
    assert revisions == sorted(set(revisions)), "each revision once and in order"
    assert {e[1] for e in events} == made and {e[0] for e in events} == {"ADDED"}


def test_two_servers(things, wire):
    need("3.4")
    etcd = Etcd("3.4", 1, wire)
    things.append(etcd)
    a = master(things, wire, etcd, "a", "192.0.2.10")
    b = master(things, wire, etcd, "b", "192.0.2.11", a)

    # what one acknowledged, the other reads
    for i in range(10):
        a.kubectl("create", "configmap", f"ab-{i}", "--from-literal=x=1")
        assert b.get("configmap", f"ab-{i}")["data"] == {"x": "1"}
        b.kubectl("delete", "configmap", f"ab-{i}")
        assert a.kubectl("get", "configmap", f"ab-{i}", check=False)[0] == 1

    # both are endpoints, one leads
    def addresses():
        e = b.get("endpoints", "kubernetes")
        return sorted(x["ip"] for s in e.get("subsets", []) for x in s["addresses"])

    eventually(lambda: addresses() == [a.ip, b.ip], 20, "both servers as endpoints")
    holder = b.get("lease", "-n", "kube-system", "skiff-leader")["spec"]["holderIdentity"]
    assert holder.startswith("a_")
    a.stop(signal.SIGKILL)
    b.kubectl("create", "deployment", "web", "--image=none", "--replicas=2")
    eventually(lambda: len(b.get("pods", "-l", "app=web")["items"]) == 2, 40, "pods made by the new leader")
    eventually(lambda: addresses() == [b.ip], 40, "the dead server's end as endpoint")


def test_counters_end_exact(things, wire):
    """Conditional updates through two servers."""
    need("3.4")
    etcd = Etcd("3.4", 1, wire)
    things.append(etcd)
    a = master(things, wire, etcd, "a", "192.0.2.10")
    b = master(things, wire, etcd, "b", "192.0.2.11", a)
    a.kubectl("create", "configmap", "counter", "--from-literal=n=0")
    done = []

    def count(m):
        api, path = Api(m), "/api/v1/namespaces/default/configmaps/counter"
        for _ in range(50):
            while True:
                c = api.get(path).json
                c["data"]["n"] = str(int(c["data"]["n"]) + 1)
                r = api.call("PUT", path, c)
                if r.status == 200:
                    done.append(1)
                    break
                assert r.status == 409, r
        api.close()

    threads = [threading.Thread(target=count, args=(m,)) for m in (a, b, a, b)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert len(done) == 200
    assert a.get("configmap", "counter")["data"]["n"] == "200"
    assert b.get("configmap", "counter")["data"]["n"] == "200"


def test_services_of_two_servers(things, wire):
    """No address or node port twice, though both choose from a small range at once."""
    need("3.4")
    etcd = Etcd("3.4", 1, wire)
    things.append(etcd)
    a = master(things, wire, etcd, "a", "192.0.2.10", flags=["--service-cidr=10.43.0.0/26"])
    b = master(things, wire, etcd, "b", "192.0.2.11", a, flags=["--service-cidr=10.43.0.0/26"])
    errors = []

    def create(m, name):
        api = Api(m)
        for i in range(24):
            r = api.post("/api/v1/namespaces/default/services", {"apiVersion": "v1", "kind": "Service", "metadata": {"name": f"{name}-{i}"},
                                                                 "spec": {"type": "NodePort", "ports": [{"port": 80}]}})
            if r.status != 201:
                errors.append(r)
        api.close()

    threads = [threading.Thread(target=create, args=(m, n)) for m, n in ((a, "a"), (b, "b"))]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    assert not errors
    services = b.get("services")["items"]
    assert len(services) == 49
    ips = [s["spec"]["clusterIP"] for s in services]
    ports = [s["spec"]["ports"][0]["nodePort"] for s in services if s["spec"]["type"] == "NodePort"]
    assert len(set(ips)) == len(ips) and len(set(ports)) == len(ports)
    # what one gave is given back to the other
    b.kubectl("delete", "services", "--all")
    taken = ips[5] if ips[5] != "10.43.0.1" else ips[6]
    a.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": {"clusterIP": taken, "ports": [{"port": 80}]}})
    status, _, err = b.kubectl("create", "service", "clusterip", "y", f"--clusterip={taken}", "--tcp=80", check=False)
    assert status and "already allocated" in err


def test_migrate(things, wire):
    need("3.4")
    etcd = Etcd("3.4", 1, wire)
    things.append(etcd)
    m = Machine("m0", "192.0.2.10", wire)
    things.append(m)
    m.start("--no-agent")
    m.kubectl("create", "deployment", "web", "--image=none", "--replicas=2")
    m.apply(config_map("a", x="ä", y="line\nline"))
    eventually(lambda: m.kubectl("get", "events").count("\n") > 2, 20, "events")

    def everything():
        out = {}
        for kind in ("configmaps", "deployments", "replicasets", "pods", "secrets", "serviceaccounts", "services", "clusterroles", "namespaces"):
            for o in m.get(kind, "-A")["items"]:
                meta = o["metadata"]
                del meta["resourceVersion"]
                out[kind, meta.get("namespace"), meta["name"]] = o
        return out

    tls = etcd.flags()[1:]
    to_etcd = [SKIFF, "store", "migrate", "--from", "sqlite", "--to", etcd.flags()[0][len("--store="):], "--data-dir", m.data, *tls]
    assert "is locked by process" in m.run(*to_etcd, check=False).stderr, "a server that runs is in the way"
    m.stop()
    assert "objects copied into etcd and compared" in m.run(*to_etcd).stdout
    assert "objects already" in m.run(*to_etcd, check=False).stderr
    assert b"found 1 leases" in etcd.ctl("lease", "list")
    m.start("--no-agent")
    before = everything()
    m.stop()
    m.start("--no-agent", *etcd.flags())
    assert everything().keys() >= before.keys()
    m.kubectl("create", "configmap", "b")
    there = everything()
    m.stop()
    back = [SKIFF, "store", "migrate", "--from", etcd.flags()[0][len("--store="):], "--to", "sqlite", "--data-dir", m.data, *tls]
    assert "is there already" in m.run(*back, check=False).stderr
    m.sh(f"rm {m.data}/store/skiff.db*")
    assert "objects copied from etcd and compared" in m.run(*back).stdout
    m.start("--no-agent")
    after = everything()
    for key, o in there.items():
        if key[0] in ("configmaps", "secrets", "services", "clusterroles", "namespaces"):
            assert after[key] == o


def test_forgotten_meanwhile(things, wire):
    """A server that was cut off for so long that etcd has forgotten what it missed: it reads everything anew, and its watchers must list again."""
    need("3.4")
    etcd = Etcd("3.4", 1, wire)
    things.append(etcd)
    leader = master(things, wire, etcd, "a")  # one that leads ends when it is cut off; this is about the other
    m = master(things, wire, etcd, "b", "192.0.2.11", leader)
    for name in ("same", "changed", "gone"):
        m.kubectl("create", "configmap", name, "--from-literal=x=1")
    start = json.loads(m.kubectl("get", "--raw", "/api/v1/namespaces/default/configmaps"))["metadata"]["resourceVersion"]
    watcher = Watcher(m, start)
    things.append(watcher)
    wire.cut(m)
    etcd.ctl("put", "/registry/configmaps/default/new", json.dumps(config_map("new", x="2")))
    etcd.ctl("put", "/registry/configmaps/default/changed", json.dumps(config_map("changed", x="2")))
    etcd.ctl("del", "/registry/configmaps/default/gone")
    revision = json.loads(etcd.ctl("get", "/registry/configmaps/default/new", "-w", "json"))["header"]["revision"]
    etcd.ctl("compact", str(revision))
    status, _, err = m.kubectl("get", "configmap", "same", check=False)
    assert status and "did not answer in time" in err, "what cannot be fresh is not served"
    assert m.kubectl("get", "--raw", "/api/v1/namespaces/default/configmaps/same?resourceVersion=0"), "what need not be is"
    # stay away for longer than the server keeps its connection without an answer
    eventually(lambda: "does not answer" in m.log_text(200), 40, "the connection given up")
    wire.mend(m)
    eventually(lambda: m.kubectl("get", "configmap", "same", check=False)[0] == 0, 20, "reads again")
    there = {c["metadata"]["name"]: c.get("data") for c in m.get("configmaps")["items"]}
    assert there["new"] == there["changed"] == {"x": "2"} and there["same"] == {"x": "1"} and "gone" not in there
    assert "everything is read anew" in m.log_text(200)
    eventually(lambda: [e for e in watcher.events if e[0] == "ERROR"], 10, "the watcher's 410")
    m.kubectl("delete", "configmap", "changed")


@pytest.mark.parametrize("how", ["killed", "silent", "cut"])
def test_stop_without_etcd(things, wire, how):
    """A server whose etcd is gone stops as promptly as any, though requests, its lease and the leader's are waiting for etcd."""
    need("3.6")
    etcd = Etcd("3.6", 1, wire)
    things.append(etcd)
    m = master(things, wire, etcd)
    if how == "cut":
        wire.cut(etcd.machines[0])
    else:
        os.kill(etcd.pid(0), signal.SIGKILL if how == "killed" else signal.SIGSTOP)
    waiting = subprocess.Popen(m.enter(SKIFF, "status", "--kubeconfig", m.kubeconfig), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    things.append(Ended(waiting))
    # the renewals of both leases have come to wait
    eventually(lambda: "did not answer in time" in m.log_text(200) or "cannot be reached" in m.log_text(200) or "does not answer" in m.log_text(200), 30,
               "signs of the missing etcd")
    begin = time.monotonic()
    m.stop()
    took = time.monotonic() - begin
    assert took < 1, f"{took:.2f} s\n{m.log_text()}"


def test_etcd_comes_later(things, wire):
    """Nothing at the URL: the cause is told, the process stays and waits, a stop is prompt, and it serves once etcd is there."""
    need("3.6")
    m = Machine("m0", "192.0.2.10", wire)
    things.append(m)
    etcd = Etcd("3.6", 1, wire)
    things.append(etcd)
    etcd.kill(0)
    for last in (False, True):
        launch(m, etcd)
        eventually(lambda: "cannot be used; is etcd running there" in m.log_text(), 10, "the reason")
        pid = m.skiff_pids()["control-plane"]
        if not last:
            begin = time.monotonic()
            m.stop()
            assert time.monotonic() - begin < 1
            os.truncate(f"{m.dir}/skiff.log", 0)
    time.sleep(3)  # it has tried again
    assert "tried again every" in m.log_text() and "started again in" not in m.log_text() and m.skiff_pids()["control-plane"] == pid
    assert m.log_text().count("is etcd running there") == 1, "told once, not with every try"
    etcd.start(0)
    eventually(m.ready, 20, "/readyz")
    assert m.skiff_pids()["control-plane"] == pid
