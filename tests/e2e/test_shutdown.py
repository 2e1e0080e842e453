"""Graceful shutdown of a node: systemd-logind (a small one, on a bus of the test's own) says that the machine goes down, and waits while pods end."""

import os
import queue
import subprocess
import threading
import time

import pytest

from machine import ROOT, Machine, eventually

BUS = """<busconfig>
  <type>system</type>
  <listen>unix:path=%s/bus</listen>
  <auth>EXTERNAL</auth>
  <policy context="default"><allow user="*"/><allow own="*"/><allow send_type="*"/><allow receive_type="*"/></policy>
</busconfig>
"""
# Takes a second to end, and says so.
SLOW = "trap 'sleep 1; echo ended; exit 0' TERM; echo up; while true; do sleep 0.1; done"
STUBBORN = "trap '' TERM; echo up; while true; do sleep 1; done"
MESSAGE = "Pod was terminated in response to imminent node shutdown."


class Logind:
    def __init__(self, m):
        self.m = m
        m.sh(f"mkdir -p {m.dir}/etc-systemd /etc/systemd && mount --bind {m.dir}/etc-systemd /etc/systemd")
        with open(f"{m.dir}/bus.conf", "w") as f:
            f.write(BUS % m.dir)
        self.address = f"unix:path={m.dir}/bus"
        m.prefix = ["env", f"DBUS_SYSTEM_BUS_ADDRESS={self.address}"]
        self.bus = subprocess.Popen(m.enter("dbus-daemon", f"--config-file={m.dir}/bus.conf", "--nofork", "--nopidfile"), stdin=subprocess.DEVNULL)
        eventually(lambda: os.path.exists(f"{m.dir}/bus"), 5, "the bus")
        self.p = subprocess.Popen(m.enter(*m.prefix, "/usr/bin/python3", os.path.join(ROOT, "tests", "lib", "logind.py")), stdin=subprocess.PIPE,
                                  stdout=subprocess.PIPE, text=True)
        self.said = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self.hears("up")

    def _read(self):
        for line in self.p.stdout:
            self.said.put((line.strip(), time.monotonic()))

    def hears(self, text, seconds=10):
        """The next line; returns when it came."""
        got, at = self.said.get(timeout=seconds)
        assert got == text
        return at

    def says(self, text):
        self.p.stdin.write(text + "\n")
        self.p.stdin.flush()
        return time.monotonic()

    def close(self):
        for p in (self.p, self.bus):
            p.kill()
            p.wait()


def pod(m, name, command, grace=30, **spec):
    m.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": name}, "namespace": spec.pop("ns", "default")},
             "spec": {"terminationGracePeriodSeconds": grace, **spec, "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sh", "-c", command]}]}})


def ready(m):
    return next((c["status"], c["reason"], c["message"]) for c in m.get("node", m.name)["status"]["conditions"] if c["type"] == "Ready")


def ended(m, name, ns="default"):
    """When its container ended, in seconds; the pod's phase, reason and message; its DisruptionTarget."""
    s = eventually(lambda: (lambda s: s if s["phase"] == "Failed" else None)(m.get("pod", name, "-n", ns)["status"]), 10, f"the end of {name}")
    target = next((c["status"], c["reason"]) for c in s["conditions"] if c["type"] == "DisruptionTarget")
    return s["containerStatuses"][0]["state"]["terminated"], (s["phase"], s["reason"], s["message"]), target


@pytest.fixture
def node():
    m = Machine(name="goesdown")
    m.logind = Logind(m)
    try:
        yield m
    finally:
        m.logind.close()
        m.close()


def start(m, *flags):
    m.start(*flags)
    m.wait_node()
    m.import_busybox()


def test_shutdown(node):
    m = node
    start(m, "--shutdown-grace-period", "5s", "--shutdown-grace-period-critical-pods", "2s")
    m.logind.hears("inhibit shutdown delay")
    pod(m, "slow", SLOW)
    pod(m, "stubborn", STUBBORN)
    pod(m, "critical", SLOW, ns="kube-system", priorityClassName="system-node-critical")
    for name, ns in (("slow", "default"), ("stubborn", "default"), ("critical", "kube-system")):
        m.wait_pods(f"app={name}", 1, ns=ns)
        eventually(lambda name=name, ns=ns: "up" in m.kubectl("logs", "-n", ns, name), 10, "its trap")

    began = m.logind.says("shutdown")
    eventually(lambda: ready(m) == ("False", "KubeletNotReady", "node is shutting down"), 2, "NotReady")
    pod(m, "late", SLOW, nodeName=m.name)
    s = eventually(lambda: (lambda s: s if s["phase"] == "Failed" else None)(m.get("pod", "late")["status"]), 3, "its refusal")
    assert (s["reason"], s["message"]) == ("NodeShutdown", "Pod was rejected: Pod was rejected as the node is shutting down.")
    took = m.logind.hears("released") - began
    assert 3.5 < took < 7.5, took  # three seconds for the stubborn one, then one for the critical one
    ends = {}
    for name, ns in (("slow", "default"), ("stubborn", "default"), ("critical", "kube-system")):
        state, said, target = ended(m, name, ns)
        assert said == ("Failed", "Terminated", MESSAGE) and target == ("True", "TerminationByKubelet")
        ends[name] = state
    assert ends["slow"]["exitCode"] == 0 and ends["critical"]["exitCode"] == 0 and ends["stubborn"]["exitCode"] == 137
    assert ends["slow"]["finishedAt"] < ends["stubborn"]["finishedAt"] <= ends["critical"]["finishedAt"]
    assert "Shutdown manager detected shutdown event" in m.kubectl("get", "events")

    m.logind.says("cancel")
    m.logind.hears("inhibit shutdown delay")
    eventually(lambda: ready(m)[0] == "True", 3, "Ready again")
    pod(m, "afterwards", SLOW, grace=0)
    m.wait_pods("app=afterwards", 1)


def test_by_priority_and_longer_than_logind_waits(node):
    m = node
    start(m, "--shutdown-grace-period-by-pod-priority", "0=20s,1000=1s")
    m.logind.hears("reload systemd-logind.service 1")
    m.logind.hears("inhibit shutdown delay")
    assert "InhibitDelayMaxSec=21" in m.sh("cat /etc/systemd/logind.conf.d/99-skiff.conf")
    m.apply({"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "metadata": {"name": "high"}, "value": 5000})
    pod(m, "low", SLOW)
    pod(m, "high", STUBBORN, priorityClassName="high")
    for name in ("low", "high"):
        m.wait_pods(f"app={name}", 1)
        eventually(lambda name=name: "up" in m.kubectl("logs", name), 10, "its trap")
    began = m.logind.says("shutdown")
    took = m.logind.hears("released") - began
    assert 1.5 < took < 6, took
    assert ended(m, "low")[0]["exitCode"] == 0 and ended(m, "high")[0]["exitCode"] == 137


def test_no_bus(machine):
    machine.prefix = ["env", f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={machine.dir}/none"]
    machine.start("--shutdown-grace-period", "10s")
    machine.wait_node()
    eventually(lambda: machine.log_text().count("does not wait for its pods: cannot reach the system bus") == 1, 5, "the one line")


def test_bad_values(machine):
    for flags, text in ((["--shutdown-grace-period", "1s", "--shutdown-grace-period-critical-pods", "2s"], "it cannot be longer"),
                        (["--shutdown-grace-period", "soon"], "expected 0s, or a duration"), (["--shutdown-grace-period", "10ms"], "at least 1s"),
                        (["--shutdown-grace-period-by-pod-priority", "5"], "expected PRIORITY=DURATION"),
                        (["--shutdown-grace-period", "9s", "--shutdown-grace-period-by-pod-priority", "5=1s"], "takes the place")):
        machine._launch("server", "--kubeconfig", machine.kubeconfig, "--listen", "127.0.0.1:6443", *flags)
        machine.server.wait(timeout=20)
        assert machine.server.returncode == 3 and text in machine.log_text(), machine.log_text()
