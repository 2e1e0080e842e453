"""Three machines: pods of different nodes reach each other, policies hold, what was on a node that is cut off comes up elsewhere."""

import json
import time
import uuid

import pytest

from cluster import Cluster
from machine import Failure, eventually

WEB = "mkdir -p /www; hostname > /www/index.html; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait $!"


def pod(name, ns, node=None, labels=None, command=None, **spec):
    c = {"name": "c", "image": "test/busybox:1", "command": ["sh", "-c", command or WEB],
         "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}}
    if command:
        del c["readinessProbe"]
    c.update(spec.pop("container", {}))
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": ns, "labels": {"app": name, **(labels or {})}},
            "spec": {"terminationGracePeriodSeconds": 0, "containers": [c], **({"nodeName": node} if node else {}), **spec}}


class Place:
    """A namespace and what the tests of this file ask of pods in it."""

    def __init__(self, cluster, ns=None, labels=None):
        self.c = cluster
        self.ns = ns or "t-" + uuid.uuid4().hex[:8]
        cluster.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": self.ns, "labels": labels or {}}})
        eventually(lambda: cluster.get("serviceaccount", "default", "-n", self.ns), 10, "the default account")

    def pods(self, **where):
        """name=node: makes them and waits until they are ready; returns name -> address."""
        for name, node in where.items():
            self.c.apply(pod(name, self.ns, node))
        return {name: self.wait(name) for name in where}

    def wait(self, name):
        return self.c.wait_pods(f"app={name}", 1, ns=self.ns)[0]["status"]["podIP"]

    def ask(self, client, host, port=8080, seconds=2):
        """The answer; None when there is none."""
        code, out, _ = self.c.kubectl("exec", "-n", self.ns, client, "--", "timeout", str(seconds), "wget", "-qO-", f"http://{host}:{port}/", check=False)
        return out.strip() if code == 0 else None

    def reaches(self, client, host, port=8080):
        return eventually(lambda: self.ask(client, host, port), 15, f"an answer of {host}:{port} to {client}")

    def blocked(self, client, host, port=8080):
        """Not now, and not a moment later either."""
        eventually(lambda: self.ask(client, host, port, 1) is None, 15, f"silence of {host}:{port} to {client}")
        assert self.ask(client, host, port, 1) is None

    def policy(self, name, spec):
        self.c.apply({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": name, "namespace": self.ns}, "spec": spec})

    def drop(self):
        self.c.kubectl("delete", "namespace", self.ns, "--wait=false", "--ignore-not-found")


@pytest.fixture(scope="module")
def three():
    c = Cluster(2)
    try:
        c.start("--node-monitor-grace", "5", "--node-lease", "4", agent_flags=("--node-lease", "4"))
        yield c
    finally:
        c.close()


@pytest.fixture
def place(three):
    p = Place(three)
    yield p
    p.drop()


def test_nodes_have_joined(three):
    nodes = {n["metadata"]["name"]: n for n in three.get("nodes")["items"]}
    assert sorted(nodes) == ["master", "node1", "node2"]
    assert len({n["spec"]["podCIDR"] for n in nodes.values()}) == 3
    # What the machine may use, not what the host has.
    assert {n["status"]["capacity"]["memory"] for n in nodes.values()} == {"2Gi"}
    for m in three.machines:
        routes = eventually(lambda m=m: (lambda r: r if len(r) == 2 else None)(json.loads(m.sh("ip -j route show proto 83"))), 10, "two routes")
        assert {(r["dst"], r["gateway"]) for r in routes} == {(nodes[o.name]["spec"]["podCIDR"], o.ip) for o in three.machines if o is not m}


def test_pods_of_different_nodes(three, place):
    ip = place.pods(a="node1", b="node2", m="master")
    for client in ip:
        for server in ip:
            assert place.reaches(client, ip[server]) == server


def test_source_address_is_kept(three, place):
    ip = place.pods(a="node1", b="node2")
    three.apply(pod("show", place.ns, "node2", command=WEB.replace("httpd -f", "httpd -f -v")))
    three.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "show", "namespace": place.ns},
                 "spec": {"selector": {"app": "show"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    show = place.wait("show")
    place.reaches("a", show)
    place.reaches("b", "show", 80)
    eventually(lambda: all(a in three.kubectl("logs", "-n", place.ns, "show") for a in ip.values()), 10, "both addresses in the log")


def test_services(three, place):
    ip = place.pods(a="node1", b="node2")
    three.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": place.ns},
                 "spec": {"type": "NodePort", "selector": {"app": "b"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    service = three.get("service", "b", "-n", place.ns)["spec"]
    assert place.reaches("a", service["clusterIP"], 80) == "b"
    assert place.reaches("a", "b", 80) == "b"
    assert place.reaches("a", f"b.{place.ns}.svc.cluster.local", 80) == "b"
    assert place.reaches("b", service["clusterIP"], 80) == "b"
    port = service["ports"][0]["nodePort"]
    for at in three.machines:
        for source in three.machines:
            got = eventually(lambda at=at, source=source: source.sh(f"curl -s -m 2 http://{at.ip}:{port}/").strip(), 10, "an answer on the node port")
            assert got == "b"
    assert ip["a"] != ip["b"]


def test_few_packets_of_a_connection_see_the_rules(three, place):
    """The flow cache: 64 MB through a service are 1,000 packets of 64 KB at least, of which each node's rules meet a few, and all of it arrives."""
    place.pods(a="node1")
    three.apply(pod("big", place.ns, "node2", command="mkdir -p /www; dd if=/dev/urandom of=/www/big bs=1M count=64; " + WEB))
    three.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "big", "namespace": place.ns},
                 "spec": {"selector": {"app": "big"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    place.wait("big")
    place.reaches("a", "big", 80)
    for m in three.nodes:
        m.sh("nft 'table ip count { chain forward { type filter hook forward priority 9; counter; }; }'")
    try:
        got, there = (three.kubectl("exec", "-n", place.ns, *command).split()[0] for command in (
            ("a", "--", "sh", "-c", "wget -qO- http://big/big | md5sum"), ("big", "--", "sh", "-c", "md5sum /www/big")))
        assert got == there
        for m in three.nodes:
            counted = int(m.sh("nft list chain ip count forward").split("packets ")[1].split()[0])
            assert 0 < counted < 300, f"{m.name}: {counted} packets"
    finally:
        for m in three.nodes:
            m.sh("nft delete table ip count")


def test_logs_and_exec_of_another_node(three, place):
    three.apply(pod("talk", place.ns, "node2", command="echo hello from $(hostname); sleep 1000"))
    place.wait("talk")
    assert eventually(lambda: three.kubectl("logs", "-n", place.ns, "talk").strip(), 10, "a log") == "hello from talk"
    assert three.kubectl("exec", "-n", place.ns, "talk", "--", "hostname").strip() == "talk"


def test_host_port(three, place):
    p = pod("hp", place.ns, "node1")
    p["spec"]["containers"][0]["ports"] = [{"containerPort": 8080, "hostPort": 18080}]
    three.apply(p)
    place.wait("hp")
    place.pods(a="node1", b="node2")
    node1 = three.nodes[0]
    for source in three.machines:
        assert eventually(lambda s=source: s.sh(f"curl -s -m 2 http://{node1.ip}:18080/").strip(), 10, "an answer on the host port") == "hp"
    assert node1.sh("curl -s -m 2 http://127.0.0.1:18080/").strip() == "hp"
    for client in ("a", "b", "hp"):
        assert place.reaches(client, node1.ip, 18080) == "hp"
    three.kubectl("delete", "pod", "hp", "-n", place.ns)
    eventually(lambda: node1.run("curl", "-s", "-m", "1", f"http://{node1.ip}:18080/", check=False).returncode, 10, "a host port given back")


# ---- NetworkPolicy ----

def test_default_deny_and_allow_by_label(three, place):
    ip = place.pods(server="node1", good="node2", bad="node2", near="node1")
    for client in ("good", "bad", "near"):
        place.reaches(client, ip["server"])
    place.policy("deny", {"podSelector": {}, "policyTypes": ["Ingress"]})
    for client in ("good", "bad", "near"):
        place.blocked(client, ip["server"])
    # The node itself still asks: the pod stays ready.
    assert three.nodes[0].sh(f"curl -s -m 2 http://{ip['server']}:8080/").strip() == "server"
    assert place.ask("server", ip["server"]) == "server"
    place.policy("allow", {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "good"}}}]}]})
    place.reaches("good", ip["server"])
    place.blocked("bad", ip["server"])
    # A label given later counts at once; one taken away too.
    three.kubectl("label", "pod", "bad", "-n", place.ns, "app=good", "--overwrite")
    place.reaches("bad", ip["server"])
    three.kubectl("label", "pod", "bad", "-n", place.ns, "app=bad", "--overwrite")
    place.blocked("bad", ip["server"])
    three.kubectl("delete", "networkpolicy", "deny", "allow", "-n", place.ns)
    for client in ("good", "bad", "near"):
        place.reaches(client, ip["server"])


def test_policy_by_namespace(three, place):
    other = Place(three, labels={"team": "blue"})
    try:
        ip = place.pods(server="node1", inside="node2")
        other.pods(guest="node2", stranger="node1")
        place.policy("blue", {"podSelector": {}, "ingress": [{"from": [{"namespaceSelector": {"matchLabels": {"team": "blue"}},
                                                                        "podSelector": {"matchLabels": {"app": "guest"}}}]}]})
        other.reaches("guest", ip["server"])
        other.blocked("stranger", ip["server"])
        place.blocked("inside", ip["server"])
        three.kubectl("label", "namespace", other.ns, "team-")
        other.blocked("guest", ip["server"])
        three.kubectl("label", "namespace", place.ns, "team=blue")
        other.blocked("stranger", ip["server"])
    finally:
        other.drop()


def test_egress(three, place):
    ip = place.pods(client="node1", one="node2", two="node2")
    place.policy("out", {"podSelector": {"matchLabels": {"app": "client"}}, "policyTypes": ["Egress"],
                         "egress": [{"to": [{"podSelector": {"matchLabels": {"app": "one"}}}]}]})
    place.blocked("client", ip["two"])
    place.reaches("client", ip["one"])
    place.reaches("two", ip["client"])
    place.blocked("client", three.nodes[0].ip, 10250)
    # Names go with a rule for the cluster's DNS, as charts write it.
    three.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "one", "namespace": place.ns},
                 "spec": {"selector": {"app": "one"}, "ports": [{"port": 80, "targetPort": 8080}]}})
    place.blocked("client", "one", 80)
    place.policy("dns", {"podSelector": {}, "policyTypes": ["Egress"],
                         "egress": [{"to": [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}},
                                             "podSelector": {"matchLabels": {"k8s-app": "kube-dns"}}}],
                                     "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}]}]})
    place.reaches("client", "one", 80)


def test_ip_block_with_exception(three, place):
    ip = place.pods(server="node1", a="node2", b="node2")
    place.policy("block", {"podSelector": {"matchLabels": {"app": "server"}},
                           "ingress": [{"from": [{"ipBlock": {"cidr": "10.42.0.0/16", "except": [f"{ip['b']}/32"]}}]}]})
    place.blocked("b", ip["server"])
    place.reaches("a", ip["server"])


def test_named_port_and_range(three, place):
    ip = place.pods(server="node1", a="node2")
    to = {"podSelector": {"matchLabels": {"app": "server"}}}
    place.policy("port", {**to, "ingress": [{"ports": [{"port": "other"}]}]})
    place.blocked("a", ip["server"])
    place.policy("port", {**to, "ingress": [{"ports": [{"port": "http"}]}]})
    place.reaches("a", ip["server"])
    place.policy("port", {**to, "ingress": [{"ports": [{"port": 8081, "endPort": 9000}]}]})
    place.blocked("a", ip["server"])
    place.policy("port", {**to, "ingress": [{"ports": [{"port": 8000, "endPort": 8080}]}]})
    place.reaches("a", ip["server"])


def test_policy_is_there_before_the_first_instruction(three, place):
    ip = place.pods(server="node2")
    place.policy("jail", {"podSelector": {"matchLabels": {"jail": "yes"}}, "policyTypes": ["Egress"]})
    # Asks as soon as it lives, many times at once; one answer would be one too many.
    ask = f"for i in $(seq 30); do (nc -w 1 {ip['server']} 8080 < /dev/null && echo through) & done; wait; echo the end; sleep 1000"

    def outcome(name, jail):
        three.apply(pod(name, place.ns, "node1", labels={"jail": jail}, command=ask))
        place.wait(name)
        return eventually(lambda: (lambda o: o if "the end" in o else None)(three.kubectl("logs", "-n", place.ns, name)), 20, "the end")

    assert "through" in outcome("free", "no")
    for i in range(5):
        assert "through" not in outcome(f"jailed{i}", "yes")


def test_agent_restart_keeps_policies_and_routes(three, place):
    ip = place.pods(server="node1", good="node2", bad="node2")
    place.policy("allow", {"podSelector": {"matchLabels": {"app": "server"}}, "ingress": [{"from": [{"podSelector": {"matchLabels": {"app": "good"}}}]}]})
    place.blocked("bad", ip["server"])
    node = three.nodes[0]
    node.stop()
    assert place.ask("bad", ip["server"], seconds=1) is None and place.ask("good", ip["server"]) == "server"
    node.join("skiff agent --server https://192.0.2.10:6443", *three.agent_flags)
    three.wait_ready("node1")
    place.blocked("bad", ip["server"])
    place.reaches("good", ip["server"])
    three.kubectl("delete", "networkpolicy", "allow", "-n", place.ns)
    place.reaches("bad", ip["server"])


def test_policies_come_back_when_somebody_removes_them(three, place):
    ip = place.pods(server="node1", a="node2")
    place.policy("deny", {"podSelector": {"matchLabels": {"app": "server"}}, "policyTypes": ["Ingress"]})
    place.blocked("a", ip["server"])
    three.nodes[0].sh("nft delete table inet skiff_policy; nft delete table ip skiff_host_ports")
    eventually(lambda: "skiff_policy" in three.nodes[0].sh("nft list tables"), 5, "the table")
    assert place.ask("a", ip["server"], seconds=1) is None


# ---- a node that is cut off ----

RC = """
apiVersion: v1
kind: ReplicationController
metadata: {{name: web, namespace: {ns}}}
spec:
  replicas: 4
  selector: {{app: web}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      nodeSelector: {{spread: "yes"}}
      tolerations:
      - {{key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 0}}
      - {{key: node.kubernetes.io/not-ready, operator: Exists, effect: NoExecute, tolerationSeconds: 0}}
      containers:
      - {{name: c, image: "test/busybox:1", command: [sh, -c, "{web}"], readinessProbe: {{httpGet: {{path: /, port: 8080}}, periodSeconds: 1}}}}
"""


def test_cut_off_node(three, place):
    lost, left = three.nodes
    three.kubectl("label", "node", "node1", "node2", "spread=yes", "--overwrite")
    three.apply(RC.format(ns=place.ns, web=WEB))
    pods = three.wait_pods("app=web", 4, ns=place.ns)
    assert {p["spec"]["nodeName"] for p in pods} == {"node1", "node2"}
    begin = time.monotonic()
    three.wire.cut(lost)
    try:
        three.wait_ready("node1", "Unknown", 15)

        def elsewhere():
            now = three.pods("app=web", ns=place.ns)
            return len(now) == 4 and all(p["spec"]["nodeName"] == "node2" for p in now) and now

        eventually(elsewhere, 20, "four pods on the node that is left")
        took = time.monotonic() - begin
        print(f"replaced after {took:.1f} s")
    finally:
        three.wire.mend(lost)
    three.wait_ready("node1", "True", 30)

    def settled():
        items = three.get("pods", "-n", place.ns, "-l", "app=web")["items"]
        return len(items) == 4 and items

    eventually(settled, 30, "no pod too many")
    # Nor a container: what node1 runs of this namespace is what the API says.
    keep = {p["metadata"]["uid"] for p in settled() if p["spec"]["nodeName"] == "node1"}
    uids = {p["metadata"]["uid"] for p in pods if p["spec"]["nodeName"] == "node1"}
    eventually(lambda: not [u for u in uids - keep if lost.sh(f"pgrep -fc '[{u[0]}]{u[1:]}' || true").strip() != "0"], 30, "the end of old containers")
    ip = place.pods(probe="node1")
    assert place.reaches("probe", eventually(settled, 10, "pods")[0]["status"]["podIP"])
    assert ip


def test_link_down_on_the_node(three, place):
    """The kernel takes routes away with the link; they come back with it."""
    node = three.nodes[1]
    eventually(lambda: len(json.loads(node.sh("ip -j route show proto 83"))) == 2, 10, "two routes")
    node.sh("ip link set eth0 down; ip link set eth0 up; ip route add default via 192.0.2.1")
    eventually(lambda: len(json.loads(node.sh("ip -j route show proto 83"))) == 2, 10, "two routes again")
    node.sh("ip route del $(ip route show proto 83 | head -n 1 | cut -d' ' -f1)")
    eventually(lambda: len(json.loads(node.sh("ip -j route show proto 83"))) == 2, 10, "a route that somebody removed")


def test_node_that_leaves(three):
    """Its routes go with it, and come back with it."""
    node, master = three.nodes[1], three.master
    cidr = three.get("node", "node2")["spec"]["podCIDR"]
    master.sh("ip route add 10.99.0.0/24 via 192.0.2.11")  # somebody else's
    node.stop()
    three.kubectl("delete", "node", "node2")
    eventually(lambda: cidr not in master.sh("ip route"), 10, "no route")
    assert "10.99.0.0/24" in master.sh("ip route")
    node.join(three.token(), *three.agent_flags)
    three.wait_ready("node2")
    now = eventually(lambda: three.get("node", "node2")["spec"]["podCIDR"], 10, "addresses for its pods")
    eventually(lambda: now in master.sh("ip route"), 10, "a route")
    place = Place(three)
    ip = place.pods(a="node1", b="node2")
    assert place.reaches("a", ip["b"]) == "b"
    place.drop()


# ---- machines on different subnets ----

@pytest.fixture(scope="module", params=["auto", "vxlan"])
def apart(request):
    c = Cluster(2, subnets=2, names="far")
    try:
        c.start("--pod-network", request.param, agent_flags=("--pod-network", request.param))
        c.mode = request.param
        yield c
    finally:
        c.close()


def test_vxlan_between_subnets(apart):
    place = Place(apart)
    ip = place.pods(a="far1", b="far2", m="master")
    for client in ip:
        for server in ip:
            assert place.reaches(client, ip[server]) == server
    # The node's own packets, and large ones.
    for m in apart.machines:
        for server in ip:
            assert m.sh(f"curl -s -m 2 http://{ip[server]}:8080/").strip() == server
    apart.kubectl("exec", "-n", place.ns, "b", "--", "sh", "-c", "dd if=/dev/zero of=/www/big bs=1024 count=4096 2>/dev/null")
    size = apart.kubectl("exec", "-n", place.ns, "a", "--", "sh", "-c", f"timeout 10 wget -qO- http://{ip['b']}:8080/big | wc -c")
    assert int(size) == 4096 * 1024
    apart.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "b", "namespace": place.ns},
                 "spec": {"type": "NodePort", "selector": {"app": "b"}, "ports": [{"port": 80, "targetPort": "http"}]}})
    service = apart.get("service", "b", "-n", place.ns)["spec"]
    assert place.reaches("a", service["clusterIP"], 80) == "b"
    for m in apart.machines:
        assert eventually(lambda m=m: m.sh(f"curl -s -m 2 http://{m.ip}:{service['ports'][0]['nodePort']}/").strip(), 10, "the node port") == "b"
    # master and far1 share a link.
    far2 = apart.get("node", "far2")["spec"]["podCIDR"]
    far1 = apart.get("node", "far1")["spec"]["podCIDR"]
    routes = {r["dst"]: r for r in json.loads(apart.master.sh("ip -j route show proto 83"))}
    assert routes[far2]["dev"] == "skiff.vxlan"
    assert routes[far1]["dev"] == ("eth0" if apart.mode == "auto" else "skiff.vxlan")
    mtu = json.loads(apart.kubectl("exec", "-n", place.ns, "a", "--", "cat", "/sys/class/net/eth0/mtu"))
    assert mtu == 1450
    place.drop()
