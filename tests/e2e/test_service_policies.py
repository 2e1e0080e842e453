"""Who gets a service's packets, and whose address they carry: traffic policies, load balancers on node addresses, affinity, UDP, MTU. Three machines and the
router between them, which is the world outside."""

import json
import signal
import subprocess
import time

import pytest

from cluster import Cluster
from machine import Failure, eventually
from test_three_machines import Place, pod

# Says its name and whom it sees.
WHO = ("mkdir -p /www/cgi-bin; printf \"#!/bin/sh\\necho; echo \\$(hostname) \\$REMOTE_ADDR\\n\" > /www/cgi-bin/who; chmod +x /www/cgi-bin/who; "
       "echo > /www/index.html; httpd -f -p 8080 -h /www")
ROUTER = "192.0.2.1"


def server(name, ns, node, app="web", command=None, **spec):
    p = pod(name, ns, node, labels={"app": app}, **spec)
    p["spec"]["containers"][0]["command"] = ["sh", "-c", command or WHO]
    p["spec"]["hostname"] = name
    return p


class Policies(Place):
    def servers(self, **where):
        for name, node in where.items():
            self.c.apply(server(name, self.ns, node))
        return {name: self.wait_name(name) for name in where}

    def wait_name(self, name):
        def up():
            s = self.c.get("pod", name, "-n", self.ns)["status"]
            return any(c["type"] == "Ready" and c["status"] == "True" for c in s.get("conditions", [])) and s["podIP"]
        return eventually(up, 40, f"pod {name}")

    def service(self, name="web", ports=None, **spec):
        self.c.apply({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": self.ns},
                      "spec": {"selector": {"app": "web"}, "ports": ports or [{"port": 80, "targetPort": 8080}], **spec}})
        return self.get(name)

    def get(self, name="web"):
        return self.c.get("service", name, "-n", self.ns)

    def ingress(self, *ips, name="web"):
        def same():
            return [i["ip"] for i in self.get(name)["status"]["loadBalancer"].get("ingress", [])] == list(ips)
        eventually(same, 15, f"addresses {ips} of service {name}")

    def who(self, source, host, port, seconds=2):
        """(name, address seen) as asked from a pod, a machine or the router; None: no answer."""
        url = f"http://{host}:{port}/cgi-bin/who"
        if isinstance(source, str):
            code, out, _ = self.c.kubectl("exec", "-n", self.ns, source, "--", "timeout", str(seconds), "wget", "-qO-", url, check=False)
            out = out if code == 0 else ""
        else:
            try:
                out = source.sh(f"curl -sf -m {seconds} {url}")
            except Failure:
                out = ""
        name, _, address = out.strip().partition(" ")
        return (name, address.replace("[::ffff:", "").rstrip("]")) if name else None

    def answers(self, source, host, port, want=None):
        def right():
            got = self.who(source, host, port)
            return got if got and (want is None or got == want) else None
        try:
            return eventually(right, 15, f"{want} at {host}:{port}")
        except Failure as e:
            raise Failure(f"{e}; now {self.who(source, host, port)}") from None

    def silent(self, source, host, port):
        eventually(lambda: self.who(source, host, port, 1) is None, 15, f"silence at {host}:{port}")
        assert self.who(source, host, port, 1) is None


@pytest.fixture(scope="module")
def three():
    c = Cluster(2)
    try:
        c.start()
        yield c
    finally:
        c.close()


@pytest.fixture
def place(three):
    p = Policies(three)
    yield p
    p.drop()


def health(machine, port):
    out = machine.sh(f"curl -s -m 2 -w ' %{{http_code}}' http://{machine.ip}:{port}/healthz || true")
    body, code = out.rsplit(" ", 1)
    return int(code), json.loads(body)["localEndpoints"] if body.strip() else None


def test_external_local(three, place):
    one, two = three.nodes
    ip = place.servers(a="node1")
    ip.update(place.pods(near="node1", far="node2"))
    s = place.service(type="LoadBalancer", externalTrafficPolicy="Local", ports=[{"port": 8088, "targetPort": 8080}])["spec"]
    node_port, check = s["ports"][0]["nodePort"], s["healthCheckNodePort"]
    place.ingress(one.ip)
    for port in (8088, node_port):
        place.answers(three.wire, one.ip, port, ("a", ROUTER))
        place.silent(three.wire, two.ip, port)
    # From inside it goes everywhere, by the node's own address too, and pods are seen as themselves.
    place.answers("near", one.ip, 8088, ("a", ip["near"]))
    place.answers("far", one.ip, 8088, ("a", ip["far"]))
    place.answers("far", two.ip, node_port, ("a", ip["far"]))
    place.answers("far", s["clusterIP"], 8088, ("a", ip["far"]))
    assert place.answers(two, two.ip, node_port)[0] == "a"
    eventually(lambda: health(one, check) == (200, 1) and health(two, check) == (503, 0), 10, "health of the nodes")
    place.servers(b="node2")
    place.ingress(one.ip, two.ip)
    place.answers(three.wire, two.ip, 8088, ("b", ROUTER))
    eventually(lambda: health(two, check) == (200, 1), 10, "health of node2")
    three.kubectl("delete", "service", "web", "-n", place.ns)
    eventually(lambda: one.run("curl", "-s", "-m", "1", f"http://{one.ip}:{check}/", check=False).returncode == 7, 10, "a closed health port")


def test_proxy_health(three):
    """On the node alone: 200 while changes get into the kernel and the node is to stay."""
    node, taint = three.nodes[1], "ToBeDeletedByClusterAutoscaler"

    def says(path, port=10256):
        body, code = node.sh(f"curl -s -m 2 -w ' %{{http_code}}' http://127.0.0.1:{port}{path}").rsplit(" ", 1)
        return int(code), body
    code, body = says("/healthz")
    assert code == 200 and json.loads(body)["nodeEligible"] and {"lastUpdated", "currentTime"} <= set(json.loads(body))
    assert says("/proxyMode", 10249) == (200, "nftables") and says("/metrics", 10249)[0] == 404
    three.kubectl("taint", "node", node.name, f"{taint}=now:NoSchedule")
    eventually(lambda: says("/healthz")[0] == 503, 10, "a node that is about to go")
    assert not json.loads(says("/healthz")[1])["nodeEligible"] and says("/livez")[0] == 200
    three.kubectl("taint", "node", node.name, f"{taint}-")
    eventually(lambda: says("/healthz")[0] == 200, 10, "a node that stays")


def test_external_cluster(three, place):
    place.servers(a="node1")
    place.service(type="LoadBalancer", ports=[{"port": 8089, "targetPort": 8080}])
    node_port = place.get()["spec"]["ports"][0]["nodePort"]
    place.ingress(*sorted(m.ip for m in three.machines))
    for m in three.machines:
        for port in (8089, node_port):
            name, seen = place.answers(three.wire, m.ip, port)
            assert name == "a" and seen != ROUTER
    for m in three.machines:  # each node at the next one's port
        for at in three.machines:
            assert place.answers(m, at.ip, node_port)[0] == "a"


def test_load_balancer_addresses(three, place):
    one = three.nodes[0]
    place.servers(a="node1")
    ports = [{"port": 8090, "targetPort": 8080}]
    s = place.service(type="LoadBalancer", ports=ports, allocateLoadBalancerNodePorts=False)
    everybody = sorted(m.ip for m in three.machines)
    place.ingress(*everybody)
    assert "nodePort" not in s["spec"]["ports"][0]
    place.answers(three.wire, one.ip, 8090)
    # The port is taken (of two that are made within a second the first by name has it), or the node's own; a class is somebody else's business.
    place.service("yet-later", type="LoadBalancer", ports=ports)
    place.service("api", type="LoadBalancer", ports=[{"port": 6443}])
    place.service("kubelet", type="LoadBalancer", ports=[{"port": 10250}])
    place.service("classy", type="LoadBalancer", loadBalancerClass="example.com/lb", ports=[{"port": 8091}])
    eventually(lambda: all(f"port {p}" in three.kubectl("get", "events", "-n", place.ns) for p in (8090, 6443, 10250)), 10, "events that say why")
    for name in ("yet-later", "api", "kubelet", "classy"):
        assert place.get(name)["status"]["loadBalancer"] == {}
    # Only these clients.
    place.service(type="LoadBalancer", ports=ports, allocateLoadBalancerNodePorts=False, loadBalancerSourceRanges=["198.51.100.0/24", f"{one.ip}/32"])
    place.silent(three.wire, one.ip, 8090)
    place.answers(one, three.nodes[1].ip, 8090)
    place.service(type="LoadBalancer", ports=ports, allocateLoadBalancerNodePorts=False, loadBalancerSourceRanges=["192.0.2.0/24"])
    place.answers(three.wire, one.ip, 8090)
    # A node that is to be left out.
    three.kubectl("label", "node", "node2", "node.kubernetes.io/exclude-from-external-load-balancers=")
    place.ingress(*[ip for ip in everybody if ip != three.nodes[1].ip])
    three.kubectl("label", "node", "node2", "node.kubernetes.io/exclude-from-external-load-balancers-")
    three.kubectl("delete", "service", "web", "-n", place.ns)
    place.ingress(*everybody, name="yet-later")
    place.answers(three.wire, one.ip, 8090)
    three.kubectl("patch", "service", "yet-later", "-n", place.ns, "-p", '{"spec":{"type":"ClusterIP"}}')
    place.ingress(name="yet-later")
    place.silent(three.wire, one.ip, 8090)


def test_internal_local(three, place):
    place.servers(a="node1")
    place.pods(near="node1", far="node2")
    address = place.service(internalTrafficPolicy="Local")["spec"]["clusterIP"]
    place.answers("near", address, 80)
    place.silent("far", address, 80)
    place.servers(b="node2")
    assert place.answers("far", address, 80)[0] == "b" and place.answers("near", address, 80)[0] == "a"


def test_traffic_distribution(three, place):
    for node, zone in (("master", "x"), ("node1", "x"), ("node2", "y")):
        three.kubectl("label", "node", node, f"topology.kubernetes.io/zone={zone}", "--overwrite")
    place.servers(a="node1", b="node2", m="master")
    place.pods(one="node1", two="node2")
    address = place.service()["spec"]["clusterIP"]

    def seen(client):
        loop = f"for i in $(seq 24); do timeout 2 wget -qO- http://{address}/cgi-bin/who; done"
        return {line.split()[0] for line in three.kubectl("exec", "-n", place.ns, client, "--", "sh", "-c", loop).splitlines() if line.strip()}

    eventually(lambda: seen("one") == {"a", "b", "m"}, 15, "all three")
    place.service(trafficDistribution="PreferClose")
    eventually(lambda: seen("one") == {"a", "m"} and seen("two") == {"b"}, 15, "those of the zone")
    place.service(trafficDistribution="PreferSameNode")
    eventually(lambda: seen("one") == {"a"} and seen("two") == {"b"}, 15, "those of the node")
    three.kubectl("delete", "pod", "a", "-n", place.ns)
    eventually(lambda: seen("one") == {"m"}, 15, "the zone's, with none on the node")
    three.kubectl("label", "node", "--all", "topology.kubernetes.io/zone-")


CLIENTS = [f"192.0.2.{n}" for n in range(101, 149)]


@pytest.fixture(scope="module")
def crowd(three):
    """Asks as each of the clients, which are addresses of the router, at once: {client: who answered}."""
    for c in CLIENTS:
        three.wire.sh(f"ip addr add {c}/32 dev wire0")

    def ask(host, port, clients=CLIENTS):
        url = f"http://{host}:{port}/cgi-bin/who"
        out = three.wire.sh(f"for c in {' '.join(clients)}; do echo $c $(curl -sf -m 3 --interface $c {url}) & done; wait")
        return {line.split()[0]: line.split()[1] for line in out.splitlines() if " " in line}
    return ask


def sticky(place, seconds):
    return place.service(type="NodePort", sessionAffinity="ClientIP", sessionAffinityConfig={"clientIP": {"timeoutSeconds": seconds}})["spec"]


def test_affinity(three, place, crowd):
    """Clients stay with their pods over other pods' comings and goings, and over the agent's ends."""
    place.servers(a="node1", b="node2", m="master")
    place.pods(client="node1")
    s = sticky(place, 10800)
    node, at = three.nodes[0], (s["clusterIP"], 80)
    world = (node.ip, s["ports"][0]["nodePort"])
    mine = place.answers("client", *at)[0]
    place.answers(three.wire, *world)
    eventually(lambda: set(crowd(*world, CLIENTS[24:]).values()) == {"a", "b", "m"}, 10, "all three")
    old = crowd(*world, CLIENTS[:24])
    assert len(old) == 24 and len(set(old.values())) == 3

    def stays(exec_works=True):
        assert crowd(*world, CLIENTS[:24]) == old
        if exec_works:
            assert {place.answers("client", *at)[0] for _ in range(5)} == {mine}

    stays()
    for sig in (signal.SIGTERM, signal.SIGKILL):
        node.stop(sig)
        stays(exec_works=False)
        node.join("skiff agent --server https://192.0.2.10:6443", *three.agent_flags)
        three.wait_ready("node1")
        stays()
    place.servers(z="node2")
    fresh = iter(f"192.0.2.{n}" for n in range(149, 250))

    def somebody_new():
        c = next(fresh)
        three.wire.sh(f"ip addr add {c}/32 dev wire0")
        return crowd(*world, [c])[c] == "z"
    eventually(somebody_new, 15, "a new client at z")
    stays()
    gone = next(name for name in "abm" if name != mine)
    three.kubectl("delete", "pod", gone, "-n", place.ns)
    eventually(lambda: gone not in crowd(*world).values(), 10, f"nobody at {gone}")
    now = crowd(*world, CLIENTS[:24])
    assert {c: who for c, who in now.items() if old[c] != gone} == {c: who for c, who in old.items() if who != gone}
    old = now
    stays()


def test_affinity_ends(three, place, crowd):
    """Who comes back within the timeout of its last connection is sent where it was, however long that goes on; later it is sent anywhere."""
    place.servers(a="node1", b="node2", m="master")
    s = sticky(place, 2)
    world = (three.nodes[0].ip, s["ports"][0]["nodePort"])
    place.answers(three.wire, *world)
    eventually(lambda: set(crowd(*world).values()) == {"a", "b", "m"}, 10, "all three")
    began = asked = time.monotonic()
    first = crowd(*world)
    while time.monotonic() < began + 5:
        last, asked = asked, time.monotonic()
        now = crowd(*world)
        if time.monotonic() > last + 2:  # a busy machine: not all of them came in time
            began, first = asked, now
        assert now == first
    time.sleep(2.5)
    then = crowd(*world)
    assert len(then) == len(first) and then != first


def test_source_addresses(three, place):
    ip = place.servers(a="node1")
    ip.update(place.pods(near="node1", far="node2"))
    three.apply(pod("host", place.ns, "node2", command="sleep 1000", hostNetwork=True))
    place.wait("host")
    address = place.service()["spec"]["clusterIP"]
    for client in ("near", "far"):
        place.answers(client, ip["a"], 8080, ("a", ip[client]))
        place.answers(client, address, 80, ("a", ip[client]))
    # A node, and what shares its network, is seen by the address that leads there.
    place.answers(three.nodes[1], ip["a"], 8080, ("a", three.nodes[1].ip))
    place.answers("host", address, 80, ("a", three.nodes[1].ip))
    assert place.answers("a", address, 80)[0] == "a"  # itself, through its service


def test_ending_endpoints(three, place):
    """The last one is asked until it is gone, also when it is only the last of its node."""
    slow = f"{WHO} & trap 'sleep 12; exit 0' TERM; wait $!; wait"
    three.apply(server("a", place.ns, "node1", command=slow, terminationGracePeriodSeconds=30))
    place.wait_name("a")
    place.pods(client="node2")
    s = place.service(type="NodePort", externalTrafficPolicy="Local")["spec"]
    at = (three.nodes[0].ip, s["ports"][0]["nodePort"])
    place.answers(three.wire, *at, ("a", ROUTER))
    place.servers(b="node2")
    eventually(lambda: {place.answers("client", s["clusterIP"], 80)[0] for _ in range(8)} == {"a", "b"}, 15, "both")
    three.kubectl("delete", "pod", "a", "-n", place.ns, "--wait=false")
    eventually(lambda: '"terminating": true' in three.kubectl("get", "endpointslices", "-n", place.ns, "-o", "json"), 10, "an ending endpoint")
    eventually(lambda: {place.answers("client", s["clusterIP"], 80)[0] for _ in range(8)} == {"b"}, 5, "the ready one alone")
    assert place.who(three.wire, *at) == ("a", ROUTER)
    three.kubectl("delete", "pod", "b", "-n", place.ns)
    assert place.answers("client", s["clusterIP"], 80)[0] == "a"
    three.kubectl("delete", "pod", "a", "-n", place.ns, "--force")


UDP_SERVER = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.bind(("", 5353))
while True:
    s.sendto(sys.argv[1].encode(), s.recvfrom(100)[1])
"""
UDP_CLIENT = """
import socket, sys
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("", int(sys.argv[1])))
s.connect((sys.argv[2], int(sys.argv[3])))
s.settimeout(1)
try:
    s.send(b"x")
    print(s.recv(100).decode())
except OSError:
    pass
"""


def inside_pod(machine, ip):
    """The beginning of a command that runs in the network of the pod with this address, with the machine's programs."""
    for ns in machine.sh(f"ls {machine.run_dir}/engine/ns/*.net").split():
        if f" {ip}/" in machine.sh(f"nsenter --net={ns} ip -o -4 addr"):
            return machine.enter("nsenter", f"--net={ns}")
    raise Failure(f"no pod of {machine.name} has the address {ip}")


def test_udp_clients_of_an_endpoint_that_goes(three, place):
    """From one port all the time: one flow for the kernel, which would go on leading it where it led it first."""
    one, two = three.nodes
    client = inside_pod(one, place.pods(client="node1")["client"])
    running = []

    def up(name, machine):
        three.apply(pod(name, place.ns, machine.name, labels={"app": "web"}, command="sleep 1000"))
        ip = place.wait_name(name)
        running.append(subprocess.Popen([*inside_pod(machine, ip), "python3", "-c", UDP_SERVER, name]))

    def ask(enter, port, host, to):
        return subprocess.run([*enter, "python3", "-c", UDP_CLIENT, str(port), host, str(to)], capture_output=True, text=True, timeout=10).stdout.strip()

    s = place.service(type="NodePort", ports=[{"port": 53, "targetPort": 5353, "protocol": "UDP"}])["spec"]

    def answers():
        return (ask(client, 40000, s["clusterIP"], 53),
                ask(["nsenter", "-t", str(three.wire.pid), "-n"], 40001, one.ip, s["ports"][0]["nodePort"]))

    try:
        assert answers() == ("", "")
        for name, machine, before in (("a", one, None), ("b", two, "a")):
            up(name, machine)
            if before:
                three.kubectl("delete", "pod", before, "-n", place.ns)
            eventually(lambda name=name: answers() == (name, name), 10, f"answers of {name}")
        three.kubectl("delete", "pod", "b", "-n", place.ns)
        eventually(lambda: answers() == ("", ""), 10, "nobody")
        up("c", two)
        eventually(lambda: answers() == ("c", "c"), 10, "answers of c to the same flows")
    finally:
        for p in running:
            p.kill()
            p.wait()


# ---- MTU ----

@pytest.fixture(scope="module", params=["links", "path"])
def narrow(request):
    """Machines on two subnets with 1400 bytes a packet: on their links, or only on the way between them."""
    c = Cluster(2, subnets=2, names="thin")
    try:
        c.wire.sh("for l in $(ls /proc/sys/net/ipv4/conf | grep -e ^wire -e ^m-); do ip link set $l mtu 1400; done" if request.param == "links"
                  else "ip link set m-thin2 mtu 1400; ip link set wire1 mtu 1400")
        for m in c.machines if request.param == "links" else [c.nodes[1]]:
            m.sh("ip link set eth0 mtu 1400")
        c.start("--service-load-balancer", "off")
        yield c
    finally:
        c.close()


def test_mtu(narrow):
    place = Policies(narrow)
    ip = place.servers(a="thin1", b="thin2")
    big = 10 << 20
    for name in ip:
        narrow.kubectl("exec", "-n", place.ns, name, "--", "sh", "-c", f"dd if=/dev/zero of=/www/big bs=65536 count={big >> 16} 2>/dev/null")
    own = {}
    for name, node in (("a", "thin1"), ("b", "thin2")):
        m = next(m for m in narrow.machines if m.name == node)
        link = int(m.sh("ip -j link show eth0 | sed 's/.*\"mtu\":\\([0-9]*\\).*/\\1/'"))
        own[name] = int(narrow.kubectl("exec", "-n", place.ns, name, "--", "cat", "/sys/class/net/eth0/mtu"))
        assert own[name] == link - 50
    assert own["b"] == 1350
    s = place.service(type="LoadBalancer")["spec"]
    place.answers("a", s["clusterIP"], 80)
    place.answers(narrow.nodes[0], narrow.nodes[1].ip, s["ports"][0]["nodePort"])
    assert place.get()["status"]["loadBalancer"] == {}  # left to others
    for client, host in (("a", ip["b"]), ("b", ip["a"])):
        size = narrow.kubectl("exec", "-n", place.ns, client, "--", "sh", "-c", f"timeout 20 wget -qO- http://{host}:8080/big | wc -c")
        assert int(size) == big
    place.drop()
