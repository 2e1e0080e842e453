"""Pods attached by CNI plugins: Debian's bridge, host-local and portmap, one configuration a node, skiff's routes between the nodes."""

import json
import os
import signal

import pytest

from cluster import Cluster
from machine import eventually
from test_three_machines import Place, pod

FLAGS = ("--pod-network", "cni+routes", "--cni-conf-dir")


def conflist(machine, cidr, v6):
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [
        {"type": "bridge", "bridge": "cni0", "isDefaultGateway": True, "hairpinMode": True,
         "ipam": {"type": "host-local", "ranges": [[{"subnet": cidr}], [{"subnet": v6}]], "dataDir": f"{machine.dir}/ipam"}},
        {"type": "portmap", "capabilities": {"portMappings": True}}]}


def conf_dir(machine):
    return f"{machine.dir}/net.d"


def write(machine, cidr, v6):
    os.makedirs(conf_dir(machine), exist_ok=True)
    with open(f"{machine.dir}/new", "w") as f:
        json.dump(conflist(machine, cidr, v6), f)
    os.rename(f"{machine.dir}/new", f"{conf_dir(machine)}/10-pods.conflist")


def ready_condition(c, node):
    return next(x for x in c.get("node", node)["status"]["conditions"] if x["type"] == "Ready")


@pytest.fixture(scope="module")
def three():
    """A master and one node, each with a configuration of its own, which come once it was seen that nothing runs without."""
    c = Cluster(1, names="cni")
    try:
        node = c.nodes[0]
        c.master.start(*FLAGS, conf_dir(c.master))
        node.join(eventually(c.token, 10, "a token"), *FLAGS, conf_dir(node))
        for m in c.machines:
            c.wait_ready(m.name, "False")
            m.import_busybox()
        yield c
    finally:
        c.close()


@pytest.fixture
def place(three):
    for i, m in enumerate(three.machines):
        if not os.path.exists(conf_dir(m) + "/10-pods.conflist"):
            write(m, eventually(lambda m=m: three.get("node", m.name)["spec"]["podCIDR"], 10, "a range"), f"fd00:{i + 1}::/64")
        three.wait_ready(m.name)
    p = Place(three)
    yield p
    p.drop()


def leases(m):
    return sorted(f for f in os.listdir(f"{m.dir}/ipam/pods") if f[0] in "1f") if os.path.isdir(f"{m.dir}/ipam/pods") else []


def left(m):
    """What plugins made on a machine for pods."""
    return leases(m), m.sh("ip -o link show master cni0 2>/dev/null || true"), m.sh("iptables-save -t nat | grep -e 'CNI-DN-.*-j' -e '-j CNI-DN-' || true")


def test_node_waits_for_a_configuration(three):
    ready = ready_condition(three, "cni1")
    assert ready["status"] == "False" and ready["reason"] == "KubeletNotReady"
    assert "NetworkPluginNotReady" in ready["message"] and f"there is no network configuration in {conf_dir(three.nodes[0])}" in ready["message"]
    place = Place(three)
    three.apply(pod("early", place.ns, "cni1"))
    three.apply(pod("host", place.ns, "cni1", hostNetwork=True, command="sleep 1000"))
    place.wait("host")
    eventually(lambda: "NetworkNotReady" in three.kubectl("get", "events", "-n", place.ns), 10, "the pod's event")
    write(three.nodes[0], three.get("node", "cni1")["spec"]["podCIDR"], "fd00:2::/64")
    three.wait_ready("cni1", seconds=5)
    place.wait("early")
    place.drop()


def test_pods_reach_each_other(three, place):
    ip = place.pods(a="cni1", b="cni1", m="master")
    for client in ip:
        for server in ip:
            assert place.reaches(client, ip[server]) == server
    ips = [x["ip"] for x in three.get("pod", "b", "-n", place.ns)["status"]["podIPs"]]
    assert ips[0] == ip["b"] and ips[1].startswith("fd00:2:")
    assert place.reaches("a", f"[{ips[1]}]") == "b"
    three.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": place.ns},
                 "spec": {"selector": {"app": "b"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    assert place.reaches("a", "b", 80) == "b"
    address = three.get("service", "b", "-n", place.ns)["spec"]["clusterIP"]
    for client in ip:  # b too, by its own service
        assert place.reaches(client, address, 80) == "b"
    assert "10.43.0.1" in three.kubectl("exec", "-n", place.ns, "a", "--", "nslookup", "kubernetes.default.svc.cluster.local")


def test_host_port(three, place):
    node = three.nodes[0]
    three.apply(pod("hp", place.ns, "cni1", container={"ports": [{"containerPort": 8080, "hostPort": 18080}]}))
    place.wait("hp")
    for m in three.machines:
        assert eventually(lambda m=m: m.sh(f"curl -s -m 2 http://{node.ip}:18080/").strip(), 10, "the host port") == "hp"
    assert node.sh("curl -s -m 2 http://127.0.0.1:18080/").strip() == "hp"
    three.kubectl("delete", "pod", "hp", "-n", place.ns)
    eventually(lambda: "18080" not in node.sh("iptables-save -t nat"), 10, "a host port given back")


def test_policies(three, place):
    ip = place.pods(server="cni1", near="cni1", far="master")
    six = three.get("pod", "server", "-n", place.ns)["status"]["podIPs"][1]["ip"]
    place.policy("deny", {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]})
    for client in ("near", "far"):
        place.blocked(client, ip["server"])
    place.blocked("near", f"[{six}]")
    # Before the first instruction, too.
    ip = place.pods(target="cni1")
    place.policy("jail", {"podSelector": {"matchLabels": {"jail": "yes"}}, "policyTypes": ["Egress"]})
    six = three.get("pod", "target", "-n", place.ns)["status"]["podIPs"][1]["ip"]
    ask = (f"for i in $(seq 20); do for to in {ip['target']} {six}; do (nc -w 1 $to 8080 < /dev/null && echo through) & done; done; wait; "
           "echo the end; sleep 1000")

    def outcome(name, jail):
        three.apply(pod(name, place.ns, "cni1", labels={"jail": jail}, command=ask))
        place.wait(name)
        return eventually(lambda: (lambda o: o if "the end" in o else None)(three.kubectl("logs", "-n", place.ns, name)), 20, "the end")

    assert "through" in outcome("free", "no")
    assert "through" not in outcome("jailed", "yes")


def test_failure_of_a_plugin_is_told(three, place):
    node = three.nodes[0]
    cidr = three.get("node", "cni1")["spec"]["podCIDR"]
    good = conflist(node, cidr, "fd00:2::/64")
    bad = json.loads(json.dumps(good))
    bad["plugins"][0]["vlan"] = 99999
    with open(f"{conf_dir(node)}/05-bad.conflist", "w") as f:
        json.dump(bad, f)
    three.apply(pod("fails", place.ns, "cni1"))
    event = eventually(lambda: [e for e in three.get("events", "-n", place.ns)["items"] if e["reason"] == "FailedCreatePodSandBox"], 10, "an event")[0]
    assert "/usr/lib/cni/bridge (ADD): invalid VLAN ID 99999" in event["message"]
    os.unlink(f"{conf_dir(node)}/05-bad.conflist")
    place.wait("fails")


def test_nothing_leaks(three, place):
    """Pods come and go while the agent is killed, again and again."""
    node = three.nodes[0]
    eventually(lambda: left(node) == ([], "", ""), 30, "a node without pods of plugins")
    for turn in range(4):
        for i in range(6):
            three.apply(pod(f"p{turn}-{i}", place.ns, "cni1", command="sleep 1000",
                            container={"ports": [{"containerPort": 8080, "hostPort": 20000 + turn * 10 + i}]}))
        # Not before plugins are at it, and not after.
        eventually(lambda: len(leases(node)) > 2 * turn, 20, "an address")
        if turn:
            three.kubectl("delete", "pod", "-n", place.ns, "--all", "--wait=false")
        node.stop(signal.SIGKILL)
        node.join("skiff agent --server https://192.0.2.10:6443", *FLAGS, conf_dir(node))
    three.wait_ready("cni1")
    three.kubectl("delete", "namespace", place.ns, timeout=90)
    eventually(lambda: left(node) == ([], "", ""), 30, "nothing of any pod")
