"""A node whose disk is full: it says so, makes room but for pinned images, ends who takes the most, starts anew, and is as before once there is room."""

import json
import signal

import pytest

from cluster import Cluster
from machine import SKIFF, eventually
from test_three_machines import WEB, pod


@pytest.fixture(scope="module")
def small():
    c = Cluster(1)
    try:
        node = c.nodes[0]
        node.sh(f"mkdir -p {node.data} && mount -t tmpfs -o size=48m tmpfs {node.data}")
        c.start(agent_flags=("--eviction-pressure-transition-period", "3"))
        yield c
    finally:
        c.close()


def condition(c, kind="DiskPressure"):
    return next(x["status"] for x in c.get("node", "node1")["status"]["conditions"] if x["type"] == kind)


def image(node, *args):
    return node.run(SKIFF, "image", *args, "--data-dir", node.data).stdout


def pins(node):
    return {tag.removeprefix("docker.io/"): i["pinned"] for i in json.loads(image(node, "list", "-o", "json")) for tag in i["repoTags"]}


def container(c, name, ns="default"):
    return c.get("pod", name, "-n", ns)["status"]["containerStatuses"][0]["containerID"]


def test_full_disk(small):
    c, node = small, small.nodes[0]
    image(node, "import", f"{node.dir}/busybox.tar", "test/unused:1")
    for name in ("spare", "loose"):
        node.sh(f"mkdir -p {node.dir}/fs && echo {name} > {node.dir}/fs/name && tar -C {node.dir}/fs -cf {node.dir}/fs.tar .")
        image(node, "import", f"{node.dir}/fs.tar", f"test/{name}:1")
    image(node, "unpin", "test/loose:1")
    assert pins(node) == {"test/busybox:1": True, "test/unused:1": True, "test/spare:1": True, "test/loose:1": False}
    c.apply(pod("hog", "default", "node1", command="dd if=/dev/zero of=/big bs=64k count=100; " + WEB))
    c.apply(pod("calm", "default", "node1"))
    c.apply(pod("critical", "kube-system", "node1", priorityClassName="system-node-critical"))
    for name, ns in (("hog", "default"), ("calm", "default"), ("critical", "kube-system")):
        c.wait_pods(f"app={name}", 1, ns=ns)
    before = container(c, "calm"), container(c, "critical", "kube-system")
    node.sh(f"dd if=/dev/zero of={node.data}/filler bs=64k 2>/dev/null || true; sync")

    eventually(lambda: condition(c) == "True", 20, "DiskPressure")
    s = eventually(lambda: (lambda s: s if s["phase"] == "Failed" else None)(c.get("pod", "hog")["status"]), 10, "the end of the pod that holds the most")
    assert s["reason"] == "Evicted"
    assert s["message"].startswith("The node was low on resource: ephemeral-storage. Threshold quantity: 4915Ki, available: "), s["message"]
    assert "Unused images that are left are pinned (1): `skiff image unpin`" in s["message"], s["message"]
    kept = {"test/busybox:1": True, "test/unused:1": True, "test/spare:1": True}
    assert pins(node) == kept
    assert "ephemeral-storage of " + node.data in node.log_text() and "make room on its disk" in node.log_text()
    events = c.kubectl("get", "events")
    assert "Attempting to reclaim ephemeral-storage" in events and "NodeHasDiskPressure" in events
    eventually(lambda: "disk-pressure" in c.kubectl("get", "node", "node1", "-o", "jsonpath={.spec.taints}"), 5, "the taint")
    c.apply(pod("refused", "default", "node1"))
    s = eventually(lambda: (lambda s: s if s["phase"] == "Failed" else None)(c.get("pod", "refused")["status"]), 5, "its refusal")
    assert s["reason"] == "Evicted" and "DiskPressure" in s["message"]

    # An agent starts on a full disk, and takes over what runs.
    node.stop(signal.SIGKILL)
    node.again()
    eventually(lambda: "runs pods of" in node.log_text(5), 10, "the agent's start")
    c.wait_ready("node1", seconds=5)
    assert pins(node) == kept

    node.sh(f"rm {node.data}/filler")
    c.kubectl("delete", "pod", "hog", "refused")
    eventually(lambda: condition(c) == "False", 30, "the end of DiskPressure")
    assert (container(c, "calm"), container(c, "critical", "kube-system")) == before
    eventually(lambda: "disk-pressure" not in c.kubectl("get", "node", "node1", "-o", "jsonpath={.spec.taints}"), 5, "the end of the taint")
    c.apply(pod("later", "default", "node1"))
    c.wait_pods("app=later", 1)
