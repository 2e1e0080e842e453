"""Three API servers over an etcd of three members, under load, while members are cut off or killed. Each test prints its seed; SEED=N repeats it."""

import json
import os
import random
import signal
import threading
import time

import pytest

from api import Api
from cluster import SUBNETS
from etcd import Etcd
from machine import SKIFF, Machine, eventually
from test_etcd import Watcher, config_map, need

COUNTER = "/api/v1/namespaces/default/configmaps/counter"
CLIENTS_EACH = 2
FAULT_S = 2


@pytest.fixture
def seed():
    n = int(os.environ.get("SEED", random.randrange(1 << 32)))
    print(f"SEED={n}")
    random.seed(n)
    return n


def serve(m, urls, etcd, first=None, *flags):
    """A server on m that knows these URLs alone; another than the first takes the first one's keys."""
    if first:
        m.sh(f"mkdir -p {m.data} && cp -a {first.data}/pki {m.data}/ && rm {m.data}/pki/server.*")
    m.start("--no-agent", f"--store=etcd={','.join(urls)}", *etcd.flags()[1:], *flags)
    return m


class Shared:
    """What the clients know together."""

    def __init__(self):
        self.lock = threading.Lock()
        self.acknowledged = 0  # the highest count that any client was told
        self.wrong = []


class Client(threading.Thread):
    """Raises the counter by conditional updates, and notes beside it how often it did so itself. After an update whose outcome it was not told it
    looks whether that is there; its next one then carries the same number, so that it cannot count twice."""

    def __init__(self, m, name, shared):
        super().__init__(daemon=True)
        self.m, self.name_, self.shared = m, name, shared
        self.done = self.told = self.unknown = self.refused_reads = 0
        self.stopping = False
        self.start()

    def read(self, api):
        with self.shared.lock:
            floor = self.shared.acknowledged
        r = api.get(COUNTER)
        if r.status != 200:
            assert r.status in (500, 503, 504), r
            self.refused_reads += 1
            return None
        if int(r.json["data"]["n"]) < floor:
            self.shared.wrong.append(f"{self.name_} on {self.m.name} was served {r.json['data']['n']} when {floor} was acknowledged")
        return r.json

    def raise_once(self, api):
        c = self.read(api)
        if not c:
            return
        c["data"]["n"] = str(int(c["data"]["n"]) + 1)
        mine = int(c["data"].get(self.name_, "0"))
        if mine > self.done:  # one whose outcome was unknown
            assert mine == self.done + 1
            self.done = mine
            return
        c["data"][self.name_] = str(mine + 1)
        r = api.call("PUT", COUNTER, c)
        if r.status == 200:
            self.done += 1
            self.told += 1
            with self.shared.lock:
                self.shared.acknowledged = max(self.shared.acknowledged, int(r.json["data"]["n"]))
        elif r.status != 409:
            # A refusal says whether anything may have been stored.
            assert r.status in (500, 504) and ("may have been stored" in r.json["message"] or "was not stored" in r.json["message"] or
                                               "did not answer in time" in r.json["message"]), r
            self.unknown += "may have been stored" in r.json["message"]

    def run(self):
        api = Api(self.m)
        try:
            while not self.stopping:
                try:
                    self.raise_once(api)
                except ConnectionError:
                    self.unknown += 1
                    time.sleep(0.05)
            end = time.monotonic() + 20
            while (c := self.read(api)) is None and time.monotonic() < end:
                time.sleep(0.05)
            self.done = max(self.done, int(c["data"].get(self.name_, "0")))
        except Exception as e:  # noqa: BLE001  told by the test
            self.shared.wrong.append(f"{self.name_}: {e!r}")
        finally:
            api.close()

    def close(self):
        self.stopping = True
        self.join(timeout=40)


class CounterWatcher(Watcher):
    """(revision, count) of the counter's events, as one server tells them."""

    def _read(self):
        for line in self.process.stdout:
            e = json.loads(line)
            if e["type"] == "MODIFIED" and e["object"]["metadata"]["name"] == "counter":
                self.events.append((int(e["object"]["metadata"]["resourceVersion"]), int(e["object"]["data"]["n"])))
            elif e["type"] == "ERROR":
                self.events.append((0, e))


@pytest.mark.parametrize("fault", ["follower cut", "leader cut", "leader killed"])
def test_counter_under_faults(things, wire, seed, fault):
    need("3.6")
    etcd = Etcd("3.6", 3, wire)
    things.append(etcd)
    victim = etcd.leader()
    if fault == "follower cut":
        victim = random.choice([i for i in range(3) if i != victim])
    urls = [f"https://{ip}:2379" for ip in etcd.ips]
    first = Machine("a", f"{SUBNETS[0]}.10", wire)
    things.append(first)
    serve(first, [u for i, u in enumerate(urls) if i != victim], etcd)
    second = Machine("b", f"{SUBNETS[0]}.11", wire)
    things.append(second)
    serve(second, [urls[victim]] + [u for i, u in enumerate(urls) if i != victim], etcd, first)
    # the third lives on the victim's machine and knows that member alone
    third = serve(etcd.machines[victim], ["https://127.0.0.1:2379"], etcd, first)
    servers = [first, second, third]
    first.apply(config_map("counter", n="0"))
    start = first.get("configmap", "counter")["metadata"]["resourceVersion"]
    watchers = [CounterWatcher(m, start) for m in servers]
    shared = Shared()
    clients = [Client(m, f"c{i}-{k}", shared) for i, m in enumerate(servers) for k in range(CLIENTS_EACH)]
    things += watchers + clients

    def alive(n=5):
        before = shared.acknowledged
        eventually(lambda: shared.acknowledged > before + n or shared.wrong, 30, "updates")

    alive()
    for _ in range(2 if fault == "leader killed" else 1):
        if fault == "leader killed":
            victim = etcd.leader()
            etcd.kill(victim)
        else:
            wire.cut(etcd.machines[victim])
        alive()
        if fault != "leader killed":
            cut_off = Api(third)
            assert cut_off.get(COUNTER).status == 504, "what may be old is not given out as fresh"
            assert cut_off.get(COUNTER + "?resourceVersion=0").status == 200, "what need not be fresh is"
            cut_off.close()
        time.sleep(random.uniform(0, FAULT_S))
        if fault == "leader killed":
            etcd.start(victim)
        else:
            wire.mend(etcd.machines[victim])
        eventually(etcd.healthy, 20, "etcd's health")
        begin = time.monotonic()
        there = Api(third)
        eventually(lambda: there.get(COUNTER).status == 200, 10, "fresh reads through the member that was away")
        print(f"the member's own server served again after {time.monotonic() - begin:.1f} s")
        there.close()
        alive()
    for c in clients:
        c.close()
    print({c.name_: (c.told, c.done, c.unknown, c.refused_reads) for c in clients})
    assert not shared.wrong, shared.wrong
    final = eventually(lambda: first.get("configmap", "counter"), 10)
    n = int(final["data"]["n"])
    assert n == sum(c.done for c in clients), "the counter is exact"
    assert all(int(final["data"][c.name_]) == c.done and c.told <= c.done <= c.told + c.unknown for c in clients)
    assert all(c.told for c in clients), "each client got something done"
    for m, w in zip(servers, watchers):
        eventually(lambda: w.events and w.events[-1][1] == n, 20, f"all events through {m.name}")
        assert [count for _, count in w.events] == list(range(1, n + 1)), f"{m.name}: each change once and in order"
        assert w.events == watchers[0].events, "all servers tell the same revisions"


def test_agents_move_to_a_living_server(things, wire, seed):
    """The server that a node joined through dies: the node stays Ready through the others and runs what they place on it."""
    need("3.6")
    etcd = Etcd("3.6", 1, wire)
    things.append(etcd)
    urls = [f"https://{etcd.ips[0]}:2379"]
    servers = []
    for i in range(3):
        m = Machine("abc"[i], f"{SUBNETS[0]}.{10 + i}", wire)
        things.append(m)
        servers.append(serve(m, urls, etcd, servers[0] if servers else None, "--node-monitor-grace=6"))
    eventually(lambda: len(servers[0].get("endpoints", "kubernetes")["subsets"][0]["addresses"]) == 3, 20, "three servers as endpoints")
    node = Machine("node1", f"{SUBNETS[0]}.21", wire)
    things.append(node)
    p = servers[0].run(SKIFF, "token", "create", "--data-dir", servers[0].data, "--kubeconfig", servers[0].kubeconfig)
    node.join(p.stdout.strip(), "--node-lease=4")
    servers[1].wait_node("node1")
    node.import_busybox()
    time.sleep(2)  # the node has heard of the other servers
    servers[0].stop(signal.SIGKILL)
    dead = time.monotonic()
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "after", "labels": {"app": "after"}},
           "spec": {"containers": [{"name": "c", "image": "test/busybox:1", "command": ["sleep", "1000"]}], "terminationGracePeriodSeconds": 0}}
    servers[1].apply(pod)
    servers[2].wait_pods("app=after", 1, seconds=40)
    print(f"a pod that was made when the server had died ran after {time.monotonic() - dead:.1f} s")
    while time.monotonic() - dead < 10:  # longer than the grace
        taints = servers[1].get("node", "node1")["spec"].get("taints", [])
        assert not [t for t in taints if "unreachable" in t["key"]], taints
        time.sleep(0.5)
