"""Clocks that are an hour wrong, each way, on a node and on the master, while everything runs: nothing is evicted, nothing stops, nothing storms."""

import datetime
import os
import struct
import subprocess
import time

import pytest

from cluster import Cluster
from machine import ROOT, Machine, eventually
from test_three_machines import pod

HOUR = 3600
CRASHES = """
apiVersion: v1
kind: Pod
metadata: {name: NAME}
spec:
  nodeName: node1
  terminationGracePeriodSeconds: 0
  containers: [{name: c, image: "test/busybox:1", command: [sh, -c, "sleep 1; exit 1"]}]
"""
CRON = """
apiVersion: batch/v1
kind: CronJob
metadata: {name: minutely}
spec:
  schedule: "* * * * *"
  jobTemplate:
    spec:
      template:
        spec:
          restartPolicy: Never
          containers: [{name: c, image: "test/busybox:1", command: ["true"]}]
"""


def own_clock(m, library):
    """From its start on, the machine's skiff goes by a clock that move() changes."""
    m.clock = f"{m.dir}/clock"
    with open(m.clock, "wb") as f:
        f.write(bytes(8))
    m.prefix = ["env", f"LD_PRELOAD={library}", f"CLOCK_OFFSET={m.clock}"]


def move(m, seconds):
    with open(m.clock, "r+b") as f:
        f.write(struct.pack("<q", seconds))


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    out = tmp_path_factory.mktemp("clock")
    for d in (out, *out.parents[:2]):
        d.chmod(0o755)  # the control plane is another user
    subprocess.run(["gcc", "-O1", "-shared", "-fPIC", "-D_GNU_SOURCE", "-o", out / "clock.so", os.path.join(ROOT, "tests", "lib", "clock.c")], check=True)
    return out / "clock.so"


@pytest.fixture(scope="module")
def three(library):
    c = Cluster(2)
    try:
        for m in c.machines:
            own_clock(m, library)
        c.start("--node-monitor-grace", "5", "--node-lease", "4", agent_flags=("--node-lease", "4"))
        c.apply(pod("stays", "default", "node1"))
        c.apply(pod("other", "default", "node2"))
        c.wait_pods("app in (stays,other)", 2)
        yield c
    finally:
        c.close()


def busy_s(m):
    """CPU time of the machine's skiff processes."""
    return sum(sum(int(n) for n in open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()[11:13]) for pid in m.skiff_pids().values()) / os.sysconf("SC_CLK_TCK")


def tokens_asked(c):
    return sum(float(line.rsplit(" ", 1)[1]) for line in c.kubectl("get", "--raw", "/metrics").splitlines()
               if line.startswith("apiserver_request_total{") and 'subresource="token"' in line)


def state(c):
    return sorted((p["metadata"]["name"], p["metadata"]["uid"], p["status"]["containerStatuses"][0]["containerID"]) for p in c.pods("app in (stays,other)"))


def steady(c, seconds):
    """For so long every node stays ready, and pods what they were."""
    before, end = state(c), time.monotonic() + seconds
    busy, tokens = {m.name: busy_s(m) for m in c.machines}, tokens_asked(c)
    assert len(before) == 2
    while time.monotonic() < end:
        for m in c.machines:
            assert c.condition(m.name) == "True", m.name
        taints = c.kubectl("get", "nodes", "-o", "jsonpath={.items[*].spec.taints}")
        assert taints == "", taints
        time.sleep(0.3)
    assert state(c) == before
    assert tokens_asked(c) - tokens < 10
    spent = {m.name: busy_s(m) - busy[m.name] for m in c.machines}
    assert max(spent.values()) < seconds * 0.5, spent


def works(c, name, node):
    """A new pod on the node, its log, a command in it, its end."""
    c.apply(pod(name, "default", node))
    c.wait_pods(f"app={name}", 1)
    assert c.kubectl("exec", name, "--", "hostname").strip() == name
    c.kubectl("logs", name)
    c.kubectl("delete", "pod", name, "--timeout=20s")


def heartbeat_is_off(c, name, offset):
    """The clock did move: what the node writes says so."""
    def off():
        text = c.get("lease", name, "-n", "kube-node-lease")["spec"]["renewTime"]
        at = datetime.datetime.fromisoformat(text.replace("Z", "+00:00"))
        return abs((at - datetime.datetime.now(datetime.timezone.utc)).total_seconds() - offset) < 60
    eventually(off, 5, "a lease renewed by the moved clock")


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_node(three, offset):
    c, node = three, three.nodes[0]
    name = f"crashes{offset}".replace("-", "-m")
    c.apply(CRASHES.replace("NAME", name))

    def crashed():
        return c.get("pod", name)["status"]["containerStatuses"][0]
    eventually(lambda: crashed()["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff", 20, "the back-off")
    restarts = crashed()["restartCount"]
    move(node, offset)
    try:
        heartbeat_is_off(c, "node1", offset)
        steady(c, 6)
        works(c, f"new{offset}".replace("-", "-m"), "node1")
        # What ended at a time to come is started again after its back-off, not when that time has come.
        eventually(lambda: crashed()["restartCount"] > restarts, 15, "the next restart")
    finally:
        move(node, 0)
        c.kubectl("delete", "pod", name, "--wait=false")
    steady(c, 1)


@pytest.mark.parametrize("offset", [HOUR, -HOUR])
def test_master(three, offset):
    c = three
    c.apply(CRON)
    token = c.kubectl("create", "token", "default").strip()
    probe = f"curl -s -o /dev/null -w '%{{http_code}}' --cacert {c.master.data}/pki/ca.crt -H 'Authorization: Bearer {token}' https://127.0.0.1:6443/apis"
    assert c.master.sh(probe) == "200"
    move(c.master, offset)
    try:
        heartbeat_is_off(c, "master", offset)
        steady(c, 6)
        works(c, f"under{offset}".replace("-", "-m"), "node1")
        assert len(c.get("jobs")["items"]) <= 2
        if offset < 0:
            assert c.master.sh(probe) == "200", "what was signed before the clock was set back"
        # A certificate that is signed now is one for the nodes, whose clocks did not move.
        line = c.token()
        late = Machine("late", "192.0.2.40", c.wire)
        try:
            late.join(line)
            c.wait_ready("late")
        finally:
            late.close()
            c.kubectl("delete", "node", "late")
    finally:
        move(c.master, 0)
        c.kubectl("delete", "cronjob", "minutely")
    steady(c, 1)


@pytest.mark.parametrize("offset,joins", [(HOUR + 60, True), (-HOUR - 60, True), (-10 * HOUR, False)])
def test_join(three, library, offset, joins):
    m = Machine("later", "192.0.2.41", three.wire)
    try:
        own_clock(m, library)
        move(m, offset)
        m.join(three.token())
        if joins:
            three.wait_ready("later")
            return
        text = eventually(lambda: "compare the clocks" in m.log_text() and m.log_text(), 15, "the cause")
        assert "the clock of this machine says" in text
    finally:
        m.close()
        three.kubectl("delete", "node", "later", "--ignore-not-found")
