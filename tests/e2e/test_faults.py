"""Faults of three machines under a workload (tests/fault/workload.py says what is demanded of it): processes and whole machines killed, links cut, slow and
lossy. `tests/fault/run.sh machines` runs it long, as tests/fault/README.md tells; here a few rounds and short cuts.

SKIFF_FAULT_ROUNDS, SKIFF_FAULT_SEED and SKIFF_FAULT_LONG=1 repeat a run."""

import os
import random
import signal
import sys
import time

import pytest

from cluster import Cluster
from machine import ROOT, SKIFF, Failure, eventually

sys.path.insert(0, os.path.join(ROOT, "tests", "fault"))
from workload import NS, ORDINALS, WEB, Churner, Workload  # noqa: E402

LONG = os.environ.get("SKIFF_FAULT_LONG") == "1"
ROUNDS = int(os.environ.get("SKIFF_FAULT_ROUNDS", "7"))
SEED = int(os.environ.get("SKIFF_FAULT_SEED", "1"))
FAST = ("--node-monitor-grace", "5", "--node-lease", "4")
long_only = pytest.mark.skipif(not LONG, reason="takes minutes: tests/fault/run.sh machines")


def tell(figure, text):
    print(f"\nFIGURE {figure}: {text}; seed {SEED}, load {os.getloadavg()[0]:.1f}")


@pytest.fixture(scope="module")
def three():
    c = Cluster(2)
    try:
        c.start(*FAST, agent_flags=FAST[2:])
        yield c
    finally:
        c.close()


@pytest.fixture
def work(three):
    w = Workload(three)
    try:
        yield w
    finally:
        w.close()


@pytest.fixture
def spread(three, work):
    """The service has a pod on each node: the scheduler prefers that, by what it sees when the old ones are still going."""
    for _ in range(5):
        nodes = {p["spec"]["nodeName"] for p in pods_of(work, "web")}
        if len(nodes) == 2:
            return
        one = pods_of(work, "web")[0]["metadata"]["name"]
        three.kubectl("delete", "pod", "-n", NS, one)
        work.wait_settled()
    raise Failure(f"the service's pods are all on {nodes}")


# ---- kill -9 ----

def kill_process(c, machine, part):
    """One process; what a service manager would start again is started again."""
    os.kill(machine.skiff_pids()[part], signal.SIGKILL)
    if part == "server" or machine is not c.master:
        machine.server.wait()
        eventually(lambda: not machine.skiff_pids(), 10, "the children's end with their supervisor")
        machine.again()
    if machine is c.master:
        eventually(lambda: len(machine.skiff_pids()) == 3 and machine.ready(), 20, f"the {part} again")


def crash(machine, seconds):
    machine.crash()
    time.sleep(seconds)  # how long it stays away is what is random here
    machine.restart()
    if machine.name == "master":
        eventually(machine.ready, 20, "the API server again")


def strikes(c, rng):
    master, nodes = c.master, c.nodes
    return [
        ("control plane", lambda: kill_process(c, master, "control-plane")),
        ("agent of node1", lambda: kill_process(c, nodes[0], "agent")),
        ("supervisor", lambda: kill_process(c, master, "server")),
        ("agent of node2", lambda: kill_process(c, nodes[1], "agent")),
        ("agent of the master", lambda: kill_process(c, master, "agent")),
        ("a node", lambda: crash(rng.choice(nodes), rng.uniform(0, 9 if LONG else 3))),
        ("the master", lambda: crash(master, rng.uniform(0, 9 if LONG else 2))),
    ]


def test_kill_each_in_turn(three, work):
    rng = random.Random(SEED)
    victims, master = strikes(three, rng), three.master
    before, slowest, began, asked = work.containers(), {}, time.monotonic(), [0, 0]
    for i in range(ROUNDS):
        name, strike = victims[i % len(victims)]
        time.sleep(rng.uniform(0.05, 0.8))  # the instant of the kill too
        since = time.time()
        strike()
        if rng.random() < 0.2 and i + 1 < ROUNDS:
            before = None  # the next one comes while this one still counts
            continue
        took = work.wait_settled()
        slowest[name] = max(took, slowest.get(name, 0))
        now = work.containers()
        if before and name not in ("a node", "the master"):
            assert now == before, f"killing the {name} touched containers"
            for m in three.machines:
                good, missed, _ = work.silence(m, since)
                asked = [asked[0] + good, asked[1] + len(missed)]
        before = now
    took = time.monotonic() - began
    health = master.run(SKIFF, "status", "--kubeconfig", master.kubeconfig, "--data-dir", master.data, check=False)
    if health.returncode != 0:
        raise Failure(health.stdout + health.stderr)
    tell("kill -9 of each in turn", f"{ROUNDS} rounds in {took:.0f} s; {work.finish()}; while single processes were killed {asked[0]} and {asked[1]}; "
         "slowest to settle: " + ", ".join(f"{name} {s:.1f} s" for name, s in slowest.items()))
    # The rules are the kernel's: no process is needed for an answer.
    assert asked[1] <= asked[0] // 100


def test_kill_while_pods_come_and_go(three, work):
    """The same amid starts and ends of pods."""
    rng = random.Random(SEED)
    victims = strikes(three, rng)
    churner = Churner(three, SEED)
    churner.start()
    try:
        for i in range(ROUNDS):
            time.sleep(rng.uniform(0.1, 1.5))
            victims[i % len(victims)][1]()
    finally:
        churner.close()
    took = work.wait_settled()
    tell("kill -9 of each in turn, amid deletions of pods", f"{ROUNDS} rounds, {churner.deleted} pods deleted; settled {took:.1f} s after the last; {work.finish()}")


# ---- whole machines ----

def test_master_comes_back(three, work):
    """Its death is nobody else's: pods of the nodes go on, the service answers on the nodes, nothing restarts."""
    before = {m.name: [x for x in work.doubles.running() if x[0] == m.name] for m in three.nodes}
    since = time.time()
    three.master.crash()
    time.sleep(8)  # longer than the grace
    for m in three.nodes:
        assert [x for x in work.doubles.running() if x[0] == m.name] == before[m.name]
    away = {m.name: work.silence(m, since) for m in three.nodes}
    three.master.restart()
    eventually(three.master.ready, 20, "the API server again")
    took = work.wait_settled()
    for m in three.nodes:
        assert [x for x in work.doubles.running() if x[0] == m.name] == before[m.name]
        good, missed, gap = work.silence(m, since)
        assert not missed and gap < 1, (m.name, away[m.name], good, missed, gap)
    tell("the master dead for 8 s", f"settled {took:.1f} s after its API server was back; on the nodes {away}; {work.finish()}")


def pods_of(work, app):
    return [p for p in work.pods() if p["metadata"]["labels"]["app"] == app]


def moved(work, name):
    """All of the service's pods are ready, and none is on that node."""
    pods = [p for p in pods_of(work, "web") if p["spec"].get("nodeName") != name and work.ready(p)]
    return len(pods) == WEB


@pytest.mark.parametrize("run", range(5 if LONG else 1))
def test_node_death_to_replacement(three, work, spread, run):
    """Grace 5 s, toleration 0. And what comes back with the node is not run twice."""
    node = three.nodes[run % 2]
    begin = time.monotonic()
    node.crash()
    eventually(lambda: moved(work, node.name), 20, "replacements")
    took = time.monotonic() - begin
    # A StatefulSet's pods wait for their node.
    ordinals = pods_of(work, "ordinal")
    assert len({p["metadata"]["name"] for p in ordinals}) == len(ordinals) == ORDINALS
    node.restart()
    back = work.wait_settled()
    tell("node death to replacement pods Running and Ready", f"{took:.2f} s, settled {back:.1f} s after it was back; {work.finish()}")
    assert took <= 8


# ---- cuts ----

def identities(work):
    """StatefulSet pods that run, on every machine together."""
    return sorted(x[1] for x in work.doubles.running() if "/ordinal-" in x[1])


def cut(c, work, machine, seconds, halfway=None):
    """Cuts a link; returns what was seen, by seconds since the cut."""
    seen, begin = {}, time.monotonic()
    c.wire.cut(machine)
    try:
        while time.monotonic() - begin < seconds:
            at = time.monotonic() - begin
            if machine is not c.master:
                if c.condition(machine.name) == "Unknown":
                    seen.setdefault("node Unknown", at)
                if any("deletionTimestamp" in p["metadata"] for p in work.pods() if p["spec"].get("nodeName") == machine.name):
                    seen.setdefault("its pods told to go", at)
                if moved(work, machine.name):
                    seen.setdefault("replaced elsewhere", at)
            assert len(identities(work)) == len(set(identities(work)))
            if halfway and at > seconds / 2:
                halfway()
                halfway = None
            time.sleep(0.2)
    finally:
        c.wire.mend(machine)
    return seen


def words(seen):
    return ", ".join(f"{what} after {at:.1f} s" for what, at in seen.items()) or "nothing"


def test_node_cut_off(three, work, spread):
    """10 s, at a grace of 5 s: its pods are replaced; the StatefulSet's are not, and go on, even when the agent is killed where it reaches nobody."""
    node = three.nodes[0]
    before = identities(work)
    assert len(before) == ORDINALS
    here = [x for x in work.doubles.running() if x[0] == node.name]

    def restart_agent():
        kill_process(three, node, "agent")
        eventually(lambda: "agent" in node.skiff_pids(), 5, "an agent")

    seen = cut(three, work, node, 10, restart_agent)
    assert [x for x in work.doubles.running() if x[0] == node.name and "/ordinal-" in x[1]] or not [x for x in here if "/ordinal-" in x[1]]
    took = work.wait_settled()
    tell("node cut off for 10 s, grace 5 s", f"{words(seen)}; settled {took:.1f} s after the mend; {work.finish()}")
    assert "node Unknown" in seen and "replaced elsewhere" in seen


def test_master_cut_off(three, work, spread):
    """Everybody is away at once: it is the master that is cut off. Nobody is evicted, everything goes on."""
    before = work.containers()
    since = time.time()
    seen = cut(three, work, three.master, 60 if LONG else 12)
    took = work.wait_settled()
    assert work.containers() == before
    gaps = {m.name: work.silence(m, since) for m in three.nodes}
    assert not any(missed for _, missed, _ in gaps.values()), gaps
    tell(f"master cut off for {60 if LONG else 12} s, grace 5 s", f"no container touched; settled {took:.1f} s after the mend; on the nodes {gaps}; {work.finish()}")


def test_slow_and_lossy_link(three, work):
    """30 ms each way and 2 % lost: nobody is called dead, nothing is lost."""
    before = work.containers()
    how = three.wire.slow(three.nodes[1], 30, 2, SEED)
    try:
        time.sleep(60 if LONG else 8)
        assert three.condition(three.nodes[1].name) == "True"
    finally:
        three.wire.steady(three.nodes[1])
    took = work.wait_settled()
    assert work.containers() == before
    tell(f"30 ms and 2 % loss for {60 if LONG else 8} s, by {how}", f"settled {took:.1f} s afterwards; {work.finish()}")


@pytest.fixture(scope="module")
def usual():
    """Upstream's times: a grace of 50 s, pods tolerate 300 s."""
    c = Cluster(2, names="usual")
    try:
        c.start()
        yield c
    finally:
        c.close()


@long_only
def test_node_hears_soon_after_the_mend(usual):
    """A cut of 40 s, with much to tell meanwhile: what a watch has to tell does not wait as long again."""
    node = usual.nodes[0]
    work = Workload(usual, writers=0, creators=0, tolerations=None)
    try:
        usual.wire.cut(node)
        begin = time.monotonic()
        for i in range(1000):
            usual.kubectl("annotate", "pod", "-n", NS, f"ask-{node.name}", f"change={i}", "--overwrite")
            if time.monotonic() - begin > 40:
                break
            time.sleep(1)
        usual.wire.mend(node)
        begin = time.monotonic()
        usual.kubectl("run", "-n", NS, "soon", "--image=test/busybox:1", f"--overrides={{\"spec\":{{\"nodeName\":\"{node.name}\"}}}}", "--labels=app=soon",
                      "--command", "--", "sleep", "1000")
        eventually(lambda: usual.kubectl("get", "pod", "-n", NS, "soon", "-o", "jsonpath={.status.phase}") == "Running", 60, "a pod on the node")
        took = time.monotonic() - begin
        usual.kubectl("delete", "pod", "-n", NS, "soon", "--grace-period=0", "--force")
        tell("a node hears of a new pod after a cut of 40 s", f"Running {took:.1f} s after the mend")
        assert took < 10  # a kernel that knows no bound for retransmission takes up to 30
    finally:
        work.close()


@long_only
@pytest.mark.parametrize("seconds", [10, 60, 600])
def test_node_cut_off_at_usual_times(usual, seconds):
    work = Workload(usual, tolerations=None)
    try:
        before = work.containers()
        seen = cut(usual, work, usual.nodes[0], seconds)
        took = work.wait_settled(120)
        tell(f"node cut off for {seconds} s, usual times", f"{words(seen)}; settled {took:.1f} s after the mend; {work.finish()}")
        assert ("node Unknown" in seen) == (seconds > 50)
        assert ("its pods told to go" in seen) == (seconds > 360)
        if seconds < 360:
            assert work.containers() == before
    finally:
        work.close()
