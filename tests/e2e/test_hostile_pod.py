"""What a pod, or whoever may exec into one, can do to the node agent: it must keep its memory, its processor time and its other pods."""

import os
import subprocess
import time

import pytest

from machine import CLIENTS

IMAGE = "test/busybox:1"


def pod(name, script="exec sleep 1000", **spec):
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": {"terminationGracePeriodSeconds": 1, "containers": [
        {"name": "c", "image": IMAGE, "command": ["sh", "-c", script], **spec.pop("container", {})}], **spec}}


@pytest.fixture
def agent(cluster):
    return cluster.skiff_pids()["agent"]


def memory(pid):
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmRSS")) >> 10


def processor(pid):
    with open(f"/proc/{pid}/stat") as f:
        fields = f.read().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def start(cluster, ns, name, **kw):
    cluster.apply(pod(name, **kw), "-n", ns)
    cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "-n", ns, "--timeout=20s")


def for_a_while(cluster, seconds, *args, **kw):
    """kubectl, killed after so many seconds."""
    argv = ["timeout", "-s", "KILL", str(seconds), os.path.join(CLIENTS, "kubectl-1.35"), "--kubeconfig", cluster.kubeconfig, *args]
    return subprocess.Popen(cluster.enter(*argv), **kw)


def test_nobody_reads_the_input(cluster, ns, agent):
    """A client that sends and sends to a command that never reads."""
    start(cluster, ns, "p")
    before = memory(agent)
    with open("/dev/zero", "rb") as zero:
        p = for_a_while(cluster, 5, "exec", "-i", "p", "-n", ns, "--", "sleep", "1000", stdin=zero)
    time.sleep(4)
    after = memory(agent)
    p.wait()
    assert after - before < 32, f"{before} MiB grew to {after} MiB"


def test_nobody_reads_the_output(cluster, ns, agent):
    """A client that leaves a command behind which talks and talks."""
    start(cluster, ns, "p")
    for_a_while(cluster, 2, "exec", "p", "-n", ns, "--", "cat", "/dev/zero", stdout=subprocess.DEVNULL).wait()
    time.sleep(0.5)
    before = processor(agent)
    time.sleep(3)
    assert processor(agent) - before < 0.6
    # and everything else goes on
    start(cluster, ns, "q")
    cluster.kubectl("delete", "pod", "p", "q", "-n", ns)


def test_address_of_another(cluster, ns):
    """A pod that gives itself another pod's address and sends with it, past policies that know pods by their addresses."""
    for name, kw in (("victim", {}), ("target", {}), ("forger", {"container": {"securityContext": {"capabilities": {"add": ["NET_ADMIN", "NET_RAW"]}}}})):
        start(cluster, ns, name, **kw)
    ip = {n: cluster.get("pod", n, "-n", ns)["status"]["podIP"] for n in ("victim", "target", "forger")}

    def inside(name, script):
        return cluster.kubectl("exec", name, "-n", ns, "--", "sh", "-c", script, check=False)[1]

    def heard():
        names, numbers = (line.split()[1:] for line in inside("target", "grep ^Icmp: /proc/net/snmp").splitlines())
        return dict(zip(names, map(int, numbers)))["InEchos"]
    before = heard()
    assert "2 packets received" in inside("forger", f"ping -c 2 -i 0.2 {ip['target']}")
    assert heard() == before + 2
    inside("forger", f"ip addr add {ip['victim']}/32 dev eth0; ping -c 3 -i 0.2 -W 1 -I {ip['victim']} {ip['target']}")
    assert ip["victim"] in inside("forger", "ip -o -4 addr show dev eth0")
    assert heard() == before + 2, "the target heard echo requests from an address that is not the sender's"
