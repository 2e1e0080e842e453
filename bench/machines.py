#!/usr/bin/env python3
"""Measures the figures of a cluster of three machines on one wire, each in namespaces of its own (see tests/lib/cluster.py):

    sudo bench/machines.py [join] [idle] [death] [endpoints] [connect] [routes] [vxlan]      (nothing named: all)

Prints a table: figure, bound, measured. Exit 1: a bound is missed. SKIFF names the binary (default: build/skiff). IDLE_SECONDS: how long idling is
watched; ROUNDS: how often each path of routes and vxlan is measured; CHANGES: how many changes of endpoints, of each kind. FIRST=1: the machines get the
CPU before what else runs on this host, as if they were alone on it. TMPFS=1: they keep their data in memory, so that others' use of the disk does not
count."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:0] = [os.path.join(ROOT, "tests", "lib"), os.path.dirname(os.path.abspath(__file__))]
from api import Api  # noqa: E402
from cluster import Cluster  # noqa: E402
from figures import memory_kb, row, run_figures, ticks_s  # noqa: E402
from machine import Failure, Machine, eventually  # noqa: E402
from wires import BareHosts, Iperf, process_of  # noqa: E402

IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", "60"))
ROUNDS = int(os.environ.get("ROUNDS", "6"))
CHANGES = int(os.environ.get("CHANGES", "100"))
FIRST, TMPFS = bool(os.environ.get("FIRST")), bool(os.environ.get("TMPFS"))
PODS = "/api/v1/namespaces/default/pods"
FAST = ("--node-lease", "4")


def percentile(values, p):
    return sorted(values)[min(len(values) - 1, int(len(values) * p / 100))]


def poll(check, seconds, what, step=0.002):
    """As eventually, in small steps: what is waited for is what is measured."""
    end = time.monotonic() + seconds
    while not (got := check()):
        if time.monotonic() > end:
            raise Failure(f"{what} did not come true within {seconds} s")
        time.sleep(step)
    return got


def is_ready(o):
    return any(c["type"] == "Ready" and c["status"] == "True" for c in o.get("status", {}).get("conditions", []))


def give_cpu(machine):
    """Its group the highest share there is."""
    with open(f"/proc/{machine.init}/cgroup") as f:
        groups = dict(line.rstrip("\n").split(":", 2)[1:] for line in f)
    v2 = "cpu" not in groups
    path = f"/sys/fs/cgroup{groups['']}/cpu.weight" if v2 else f"/sys/fs/cgroup/cpu{groups['cpu']}/cpu.shares"
    with open(path, "w") as f:
        f.write("10000" if v2 else "262144")


class Three(Cluster):
    """A master and two nodes that have joined, and an open connection to the API."""

    def __init__(self, *flags, agent_flags=()):
        super().__init__(2)
        try:
            for m in self.machines if TMPFS else []:
                m.sh(f"mkdir {m.data}; mount -t tmpfs none {m.data}")
            self.start("--node-monitor-grace", "5", *FAST, *flags, agent_flags=(*FAST, *agent_flags))
            self.api = Api(self.master)
            for m in self.machines if FIRST else []:
                give_cpu(m)
        except BaseException:
            self.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    def make(self, path, body):
        reply = self.api.post(path, body)
        if reply.status not in (200, 201):
            raise Failure(f"POST {path}: {reply}")
        return reply.json

    def pod_list(self, app):
        return self.api.get(f"{PODS}?labelSelector=app%3D{app}").json["items"]

    def node_is_ready(self, name):
        reply = self.api.get(f"/api/v1/nodes/{name}")
        return reply.status == 200 and is_ready(reply.json)


# ---- join, idle, death ----

def figure_join():
    with Three() as c:
        took = []
        for i in range(5):
            line = c.token()
            m = Machine(f"new{i}", f"192.0.2.{50 + i}", c.wire)
            c.machines.append(m)
            begin = time.monotonic()
            m.join(line, *FAST)
            poll(lambda: c.node_is_ready(m.name), 20, f"node {m.name} Ready")
            took.append((time.monotonic() - begin) * 1000)
        row("join of an empty machine to node Ready, best of 5", 2000, None, min(took), "ms", f"{min(took):.0f}-{max(took):.0f}")
        row("the same, median", 2000, None, statistics.median(took), "ms")


def figure_idle():
    with Three() as c:
        for m in c.machines:
            m.import_busybox("quickstart/busybox:1")
        c.kubectl("apply", "-f", f"{ROOT}/examples/quickstart.yaml")
        c.wait_pods("app=hello", 3)
        time.sleep(15)
        pids = {m.name: m.skiff_pids() for m in c.machines}
        before, begin = {p: ticks_s(p) for all in pids.values() for p in all.values()}, time.monotonic()
        time.sleep(IDLE_SECONDS)
        took = time.monotonic() - begin
        for name, of in pids.items():
            bound = 50 if name == "master" else 20
            for field, limit in (("Rss", bound), ("Pss", None)):
                mb = {part: memory_kb(pid, field) / 1000 for part, pid in of.items()}
                row(f"idle {name}, {field.upper()}", limit, None, sum(mb.values()), "MB", ", ".join(f"{k} {v:.1f}" for k, v in mb.items()))
            used = {part: (ticks_s(pid) - before[pid]) / took * 100 for part, pid in of.items()}
            row(f"idle {name}, CPU", 1, None, sum(used.values()), "% of a core", ", ".join(f"{k} {v:.3f}" for k, v in used.items()))


def mortal():
    """One pod that leaves a dead node at once."""
    return {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "mortal"}, "spec": {
        "replicas": 1, "selector": {"matchLabels": {"app": "mortal"}}, "template": {"metadata": {"labels": {"app": "mortal"}}, "spec": {
            "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sleep", "100000"]}],
            "affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [
                {"key": "kubernetes.io/hostname", "operator": "In", "values": ["node1", "node2"]}]}]}}},
            "tolerations": [{"key": f"node.kubernetes.io/{key}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0}
                            for key in ("not-ready", "unreachable")]}}}}


def running_on(c, other_than=None):
    for p in c.pod_list("mortal"):
        if p["status"].get("phase") == "Running" and "deletionTimestamp" not in p["metadata"] and p["spec"].get("nodeName") != other_than:
            return p["spec"]["nodeName"]
    return None


def figure_death():
    with Three() as c:
        c.make("/apis/apps/v1/namespaces/default/deployments", mortal())
        took = {"its link cut": [], "all its processes killed": []}
        for i in range(6):
            for m in c.nodes:
                poll(lambda m=m: c.node_is_ready(m.name), 30, f"node {m.name} Ready")
            name = poll(lambda: running_on(c), 60, "the pod Running")
            time.sleep(12)  # one node in 10 s is evicted from, as upstream has it
            m = next(m for m in c.nodes if m.name == name)
            how = list(took)[i % 2]
            begin = time.monotonic()
            if i % 2:
                m.crash()
            else:
                c.wire.cut(m)
            poll(lambda: running_on(c, name), 60, "the replacement Running")
            took[how].append(time.monotonic() - begin)
            if i % 2:
                m.restart()
            else:
                c.wire.mend(m)
        for how, seconds in took.items():
            row(f"node death ({how}) to the replacement pod Running, worst of {len(seconds)}", 8, None, max(seconds), "s",
                " ".join(f"{s:.2f}" for s in seconds))


# ---- endpoint changes ----

# Runs on a machine: prints, for each transaction of nftables that touches endpoints, the clock and each touched address with the number of elements
# that lead to it now.
KERNEL = r"""
import socket, struct, sys, time
s = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 12)
s.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)
s.bind((0, 1 << 6))
counts, touched = {}, set()
def attrs(b):
    at = 0
    while at + 4 <= len(b):
        n, kind = struct.unpack_from("HH", b, at)
        yield kind & 0x3fff, b[at + 4:at + n]
        at += max(n + 3 & ~3, 4)
def elements(body, step):
    top = dict(attrs(body[4:]))
    if top[2] != b"endpoints\0":
        return
    for _, element in attrs(top[3]):
        for kind, data in attrs(element):
            if kind == 2:
                ip = dict(attrs(data))[1][:4]
                counts[ip] = counts.get(ip, 0) + step
                touched.add(ip)
print("here", flush=True)
while True:
    b = s.recv(1 << 20)
    now, at = time.monotonic(), 0
    while at < len(b):
        n, kind = struct.unpack_from("IH", b, at)
        body, kind = b[at + 16:at + n], kind & 0xff
        if kind in (12, 14):
            elements(body, 1 if kind == 12 else -1)
        elif kind == 15 and touched:
            print(now, *(f"{socket.inet_ntoa(ip)}={counts[ip]}" for ip in touched), flush=True)
            touched.clear()
        at += n + 3 & ~3
"""


class Rules:
    """What the kernel of a machine says about endpoints in the proxy's table: when an address came into the rules, and when the last rule of it went."""

    def __init__(self, machine):
        self.news = {}
        self.told = threading.Condition()
        self.p = subprocess.Popen(machine.enter(sys.executable, "-c", KERNEL), stdout=subprocess.PIPE, text=True)
        self.p.stdout.readline()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        for line in self.p.stdout:
            at, *changes = line.split()
            with self.told:
                for c in changes:
                    ip, count = c.split("=")
                    self.news.setdefault(ip, []).append((float(at), int(count) > 0))
                self.told.notify_all()

    def when(self, ip, there, since, seconds=10):
        """The first moment after `since` at which the address was there (or was not)."""
        end = time.monotonic() + seconds
        with self.told:
            while True:
                found = [at for at, is_there in self.news.get(ip, []) if at > since and is_there == there]
                if found:
                    return found[0]
                if not self.told.wait(end - time.monotonic()) and time.monotonic() >= end:
                    raise Failure(f"{ip} was not {'put into' if there else 'taken out of'} the rules within {seconds} s: {self.news.get(ip)}")


def many_services(c, first, last, endpoints=5):
    """Services without a selector, and a slice of addresses for each."""
    for n in range(first, last):
        name = f"many-{n}"
        c.make("/api/v1/namespaces/default/services", {"metadata": {"name": name}, "spec": {"ports": [{"port": 80}]}})
        c.make("/apis/discovery.k8s.io/v1/namespaces/default/endpointslices", {
            "metadata": {"name": name, "labels": {"kubernetes.io/service-name": name}}, "addressType": "IPv4", "ports": [{"name": "", "port": 80}],
            "endpoints": [{"addresses": [f"198.19.{n >> 5 & 255}.{(n & 31) * 8 + e}"], "conditions": {"ready": True}} for e in range(endpoints)]})

    def everywhere():
        return all(m.sh("nft -j list map inet skiff_proxy services").count(f'"concat"') >= last for m in c.machines)
    poll(everywhere, 120, f"{last} services in every machine's rules", 0.5)


def gated(name, node, app="gated"):
    """Its pod is Ready when the test says so: its own condition alone is missing."""
    return {"metadata": {"name": name, "labels": {"app": app, "service": "gated"}}, "spec": {
        "nodeName": node, "terminationGracePeriodSeconds": 1, "readinessGates": [{"conditionType": "bench/go"}],
        "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sh", "-c", "trap 'exit 0' TERM; sleep 100000 & wait $!"]}]}}


def open_gate(c, name):
    patch = {"status": {"conditions": [{"type": "bench/go", "status": "True"}]}}
    reply = c.api.call("PATCH", f"{PODS}/{name}/status", patch, "application/strategic-merge-patch+json")
    if reply.status != 200:
        raise Failure(f"PATCH {name}: {reply}")


def change_times(c, rules, changes):
    """Milliseconds until the last machine's rules had it: of pods that became ready, of pods that were deleted. Another pod of the service stays: one that
    ends and is the last keeps its place until it has ended."""
    ready, deleted, batch = [], [], 10
    for first in range(0, changes, batch):
        names = [f"gated-{n}" for n in range(first, first + batch)]
        for i, name in enumerate(names):
            c.make(PODS, gated(name, f"node{i % 2 + 1}"))
        poll(lambda: [p["status"].get("phase") for p in c.pod_list("gated")].count("Running") == batch, 60, "the pods Running", 0.05)
        ips = {p["metadata"]["name"]: p["status"]["podIP"] for p in c.pod_list("gated")}
        time.sleep(0.5)
        for act, there, into in ((lambda n: open_gate(c, n), True, ready), (lambda n: c.api.call("DELETE", f"{PODS}/{n}"), False, deleted)):
            for name in names:
                begin = time.monotonic()
                act(name)
                into.append((max(r.when(ips[name], there, begin) for r in rules) - begin) * 1000)
        poll(lambda: not c.pod_list("gated"), 60, "the pods gone", 0.05)
    return ready, deleted


def figure_endpoints():
    with Three() as c:
        rules = [Rules(m) for m in c.machines]
        c.make("/api/v1/namespaces/default/services", {"metadata": {"name": "gated"}, "spec": {"selector": {"service": "gated"}, "ports": [{"port": 80}]}})
        c.make(PODS, gated("stays", "node1", "stays"))
        c.wait_pods("app=stays", 1, ready=False)
        open_gate(c, "stays")
        for also, n in (("no other services", 0), ("1,000 services with 5,000 endpoints", 1000)):
            many_services(c, 0, n)
            time.sleep(2)
            ready, deleted = change_times(c, rules, CHANGES)
            both = ready + deleted
            row(f"endpoint change to the last machine's rules, {also}, p99 of {len(both)}", 50, None, percentile(both, 99), "ms",
                f"p50 {percentile(both, 50):.1f}; ready p50 {percentile(ready, 50):.1f} p99 {percentile(ready, 99):.1f}, deleted p50 "
                f"{percentile(deleted, 50):.1f} p99 {percentile(deleted, 99):.1f}, most {max(both):.1f}")
            row("the same, p50", None, None, percentile(both, 50), "ms")


# ---- new connections ----

LISTEN = "import socket\ns = socket.create_server(('', 9000), backlog=1024)\nprint('here', flush=True)\nwhile True:\n    s.accept()[0].close()\n"
# Connects to each address in turn, and ends each connection with a reset so that no port is kept.
CONNECT = r"""
import socket, struct, sys, time
places = [(a.rsplit(":", 1)[0], int(a.rsplit(":", 1)[1])) for a in sys.argv[2:]]
for i in range(int(sys.argv[1])):
    took = []
    for place in places if i % 2 else reversed(places):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        begin = time.perf_counter_ns()
        s.connect(place)
        took.append((time.perf_counter_ns() - begin) / 1000)
        s.close()
    print(*(took if i % 2 else reversed(took)))
"""


def figure_connect():
    with Three() as c:
        for i, name in enumerate(("client", "server")):
            c.make(PODS, {"metadata": {"name": name, "labels": {"app": name}}, "spec": {"nodeName": f"node{i + 1}", "terminationGracePeriodSeconds": 0, "containers": [
                {"name": "c", "image": "test/busybox:1", "command": ["sleep", "100000"]}]}})
        service = c.make("/api/v1/namespaces/default/services", {"metadata": {"name": "server"}, "spec": {"selector": {"app": "server"}, "ports": [{"port": 9000}]}})
        server, client = c.wait_pods("app=server", 1)[0], c.wait_pods("app=client", 1)[0]
        inside = [process_of(m, "sleep", p["status"]["podIP"]) for m, p in zip(c.nodes, (client, server))]
        listener = subprocess.Popen(c.nodes[1].enter("nsenter", "-t", inside[1], "-n", sys.executable, "-c", LISTEN), stdout=subprocess.PIPE, text=True)
        listener.stdout.readline()
        for n in (10, 5000):
            many_services(c, 0 if n == 10 else 10, n)
            time.sleep(2)
            out = c.nodes[0].sh(f"nsenter -t {inside[0]} -n {sys.executable} -c '{CONNECT}' 2000 {server['status']['podIP']}:9000 {service['spec']['clusterIP']}:9000")
            direct, through = zip(*(map(float, line.split()) for line in out.splitlines()))
            for what, us in (("direct", direct), ("through a ClusterIP", through)):
                row(f"new TCP connection {what}, {n:,} services, p50", None, None, percentile(us, 50), "us", f"p99 {percentile(us, 99):.0f}")
        listener.kill()


# ---- throughput ----

def throughput(mode, baselines, bounds):
    with Three("--pod-network", mode, agent_flags=("--pod-network", mode)) as c:
        bare = BareHosts(c)
        iperf = Iperf(c, *c.nodes)
        paths = {name: bare.path(name) for name in baselines}
        paths |= {"pod to pod": iperf.pod_path(), "pod to ClusterIP": iperf.service_path()}
        iperf.favour()
        got = {name: [] for name in paths}
        for _ in range(ROUNDS):
            for name, path in paths.items():
                got[name].append(iperf.measure(*path))
        middle = {name: statistics.median(g for g, _ in values) for name, values in got.items()}
        for name, values in got.items():
            note = f"{' '.join(f'{g:.1f}' for g, _ in values)}; CPU {statistics.median(s for _, s in values):.3f} s a GB"
            row(f"{mode}, {name}", None, None, middle[name], "Gbit/s", note)
        for name, base, bound in bounds:
            ratio = statistics.median(a[0] / b[0] for a, b in zip(got[name], got[base]))
            row(f"{mode}, {name} against {base}", bound, None, ratio * 100, "%", "median of the rounds' ratios", at_least=True)


def figure_routes():
    throughput("routes", ["bare hosts"], [("pod to pod", "bare hosts", 90), ("pod to ClusterIP", "bare hosts", 85)])


def figure_vxlan():
    throughput("vxlan", ["bare hosts", "bare hosts over VXLAN"], [(p, b, None) for b in ("bare hosts", "bare hosts over VXLAN")
                                                                   for p in ("pod to pod", "pod to ClusterIP")])


FIGURES = {"join": figure_join, "idle": figure_idle, "death": figure_death, "endpoints": figure_endpoints, "connect": figure_connect,
           "routes": figure_routes, "vxlan": figure_vxlan}

if __name__ == "__main__":
    if FIRST:
        if os.getsid(0) != os.getpid():
            os.setsid()
        with open("/proc/self/autogroup", "w") as f:
            f.write("-20")
    run_figures(FIGURES, __doc__, ("iperf3", "nft"))
