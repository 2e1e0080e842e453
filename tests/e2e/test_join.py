"""How machines join, and what they are told when they may not: each refusal names cause and remedy, and ends the agent for good."""

import datetime
import os
import shutil
import subprocess
import uuid

import pytest

from cluster import Cluster
from machine import Machine, eventually


@pytest.fixture(scope="module")
def three():
    c = Cluster(nodes=1)
    try:
        c.start("--node-monitor-grace", "4", "--node-lease", "2", agent_flags=("--node-lease", "2"), images=False)
        yield c
    finally:
        c.close()


used = iter(range(40, 200))


@pytest.fixture
def newcomer(three):
    """A machine on the wire that has not joined."""
    made = []

    def make():
        m = Machine("new" + uuid.uuid4().hex[:6], f"192.0.2.{next(used)}", three.wire)
        made.append(m)
        return m
    yield make
    for m in made:
        three.kubectl("delete", "node", m.name, "--ignore-not-found")
        m.close()


def refused(m, line, *flags, seconds=20):
    """Joins in vain; returns what the agent says. It must end by itself, with the status that tells a supervisor not to try again."""
    begin = os.path.getsize(f"{m.dir}/skiff.log") if os.path.exists(f"{m.dir}/skiff.log") else 0
    m.join(line, *flags)
    try:
        status = m.server.wait(timeout=seconds)
    finally:
        if m.server.poll() is None:
            m.stop()
    m.server = None
    with open(f"{m.dir}/skiff.log", errors="replace") as f:
        f.seek(begin)
        said = f.read()
    assert status == 3, said
    return said


def change_token(line, **parts):
    """The line with another id, secret or pin."""
    words = line.split()
    at = words.index("--token") + 1
    bearer, pin = words[at].split(":")
    name, secret = bearer.split(".")
    words[at] = f"{parts.get('id', name)}.{parts.get('secret', secret)}:{parts.get('pin', pin)}"
    return " ".join(words)


def token_id(line):
    return line.split("--token ")[1].split(".")[0]


def certificate(m, name, *what):
    return subprocess.run(["openssl", "x509", "-noout", "-in", f"{m.data}/agent/{name}.crt", *what], check=True, capture_output=True, text=True).stdout.strip()


def test_server_prints_the_line(three, newcomer):
    lines = [x for x in three.master.log_text(400).splitlines() if "machines join with: skiff agent" in x]
    assert len(lines) == 1
    m = newcomer()
    m.join(lines[0].split("machines join with: ")[1])
    three.wait_ready(m.name, seconds=20)
    three.master.stop()
    three.master.start("--node-monitor-grace", "4", "--node-lease", "2")
    again = eventually(lambda: [x for x in three.master.log_text(400).splitlines() if "machines join with: skiff agent" in x][1:], 10, "the line again")
    assert again[0].split("machines join")[1] == lines[0].split("machines join")[1], "a good token is used again"
    secrets = three.get("secrets", "-n", "kube-system", "-l", "skiff.dev/join=default")["items"]
    assert len(secrets) == 1


def test_two_identities(three):
    """The kubelet's and the network's; the second reads what its node needs and changes nothing."""
    n = three.nodes[0]
    assert "system:node:node1" in certificate(n, "node", "-subject") and "system:nodes" in certificate(n, "node", "-subject")
    subject = certificate(n, "network", "-subject")
    assert "system:node-network:node1" in subject and "skiff:node-network" in subject and "system:nodes" not in subject
    assert "skiff:server-nodes" in certificate(three.master, "node", "-subject")
    assert "skiff:server-nodes" not in certificate(n, "node", "-subject")
    as_network = ("--as", "system:node-network:node1", "--as-group", "skiff:node-network")
    for what in ("services", "endpointslices.discovery.k8s.io", "nodes", "namespaces", "pods", "networkpolicies.networking.k8s.io"):
        assert three.kubectl("auth", "can-i", "watch", what, "-A", *as_network).strip() == "yes", what
    for verb in ("create", "update", "patch", "delete"):
        for what in ("services", "endpointslices.discovery.k8s.io", "nodes", "nodes/status", "namespaces", "pods", "pods/status"):
            assert three.kubectl("auth", "can-i", verb, what, "-A", *as_network, check=False)[1].strip() == "no", (verb, what)
    for what in ("secrets", "configmaps", "serviceaccounts/token"):
        assert three.kubectl("auth", "can-i", "get", what, "-A", *as_network, check=False)[1].strip() == "no", what


def test_without_a_token(newcomer):
    said = refused(newcomer(), "skiff agent --server https://192.0.2.10:6443")
    assert "has not joined yet: give --token" in said and "skiff token create" in said


def test_wrong_token(three, newcomer):
    line = three.token()
    for bad in (change_token(line, secret="x" * 16), change_token(line, id="zzzzzz")):
        said = refused(newcomer(), bad)
        assert f"does not take token {token_id(bad)}" in said and "mistyped" in said and "skiff token create" in said
        assert "x" * 16 not in said, "secrets stay out of logs"
    for bad in (line.rsplit(":", 1)[0], line[:-1]):
        assert "expected ID.SECRET:PIN" in refused(newcomer(), bad)


def test_expired_token(three, newcomer):
    line = three.token()
    past = (datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")
    three.kubectl("patch", "secret", "-n", "kube-system", f"bootstrap-token-{token_id(line)}", "-p", '{"stringData":{"expiration":"%s"}}' % past)
    said = refused(newcomer(), line)
    assert "it has expired" in said and "skiff token create" in said


def test_revoked_token(three, newcomer):
    line = three.token()
    three.kubectl("delete", "secret", "-n", "kube-system", f"bootstrap-token-{token_id(line)}")
    said = refused(newcomer(), line)
    assert "was revoked" in said and "skiff token create" in said


def test_wrong_ca(three, newcomer):
    m = newcomer()
    said = refused(m, change_token(three.token(), pin="0" * 64))
    assert "belongs to another cluster" in said and "--token" in said
    assert not os.path.exists(f"{m.data}/agent/node.crt")


def test_name_of_a_living_node(three, newcomer):
    m = newcomer()
    said = refused(m, three.token(), "--node-name", "node1")
    assert 'node "node1" is Ready at 192.0.2.11' in said and "--node-name" in said and "kubectl delete node node1" in said
    assert three.condition("node1") == "True"
    said = refused(m, three.token(), "--node-name", "master")
    assert 'node "master" is Ready at 192.0.2.10' in said


def test_two_of_one_name_at_once(three, newcomer):
    """Cloned machines started together: one becomes the node, the other is told."""
    one, other = newcomer(), newcomer()
    line, name = three.token(), "twin" + uuid.uuid4().hex[:6]
    one.join(line, "--node-name", name)
    other.join(line, "--node-name", name)
    loser = eventually(lambda: next((m for m in (one, other) if m.server.poll() is not None), None), 20, "the end of one")
    assert loser.server.wait() == 3 and f'node "{name}"' in loser.log_text()
    loser.server = None
    three.wait_ready(name, seconds=20)
    three.kubectl("delete", "node", name)


def test_name_of_the_api_server(three, newcomer):
    assert "is a name of the API server" in refused(newcomer(), three.token(), "--node-name", "kubernetes")


def test_address_of_others(three, newcomer):
    m = newcomer()
    said = refused(m, three.token(), "--node-ip", "192.0.2.10")
    assert "192.0.2.10 is the address of an API server" in said and "--node-ip" in said
    said = refused(m, three.token(), "--node-ip", "192.0.2.11")
    assert '192.0.2.11 is the address of node "node1"' in said and "--node-ip" in said
    m.join(three.token())
    three.wait_ready(m.name, seconds=20)


def test_rejoin(three, newcomer):
    """The same machine with an empty disk is taken back while its node still counts as Ready; another one when the first is gone."""
    first, other = newcomer(), newcomer()
    first.join(three.token())
    three.wait_ready(first.name, seconds=20)
    first.stop()
    shutil.rmtree(f"{first.data}/agent")
    first.join(three.token())
    eventually(lambda: "joined" in first.log_text(5) or "runs pods of" in first.log_text(3), 20, "the first to be back")
    three.wait_ready(first.name, seconds=20)
    assert "is Ready at" in refused(other, three.token(), "--node-name", first.name)
    first.stop()
    three.wait_ready(first.name, status="Unknown", seconds=30)
    other.join(three.token(), "--node-name", first.name)
    three.wait_ready(first.name, seconds=20)
    assert eventually(lambda: [a["address"] for a in three.get("node", first.name)["status"]["addresses"] if a["type"] == "InternalIP"] == [other.ip],
                      15, "the new address")


def test_restart_needs_no_token(three, newcomer):
    m = newcomer()
    line = three.token()
    m.join(line)
    three.wait_ready(m.name, seconds=20)
    three.kubectl("delete", "secret", "-n", "kube-system", f"bootstrap-token-{token_id(line)}")
    before = certificate(m, "node", "-serial")
    m.stop()
    m.join("skiff agent --server https://192.0.2.10:6443")
    eventually(lambda: m.log_text(400).count("runs pods of") == 2, 20, "the second start")
    assert certificate(m, "node", "-serial") == before
    m.stop()
    said = refused(m, "skiff agent --server https://192.0.2.10:6443", "--node-name", "elsewhere")
    assert "joined under another name than elsewhere" in said


def test_moved_machine_gets_new_names(three, newcomer):
    """Another address: the serving certificate is asked for anew."""
    m = newcomer()
    m.join(three.token())
    three.wait_ready(m.name, seconds=20)
    m.stop()
    m.ip = f"192.0.2.{next(used)}"
    m.sh(f"ip addr flush dev eth0 && ip addr add {m.ip}/24 dev eth0 && ip route add default via 192.0.2.1")
    m.join("skiff agent --server https://192.0.2.10:6443")
    eventually(lambda: m.ip in certificate(m, "kubelet", "-ext", "subjectAltName"), 20, "a certificate for the new address")


def test_no_server(newcomer):
    m = newcomer()
    m.join(change_token("skiff agent --server https://192.0.2.250:6443 --token abcdef.0123456789abcdef:" + "0" * 64))
    m.server.wait(timeout=30)
    assert "cannot connect to 192.0.2.250:6443" in m.log_text()
    m.server = None


def node_by_hand(c, name, cidr):
    c.apply({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name}, "spec": {"podCIDR": cidr, "podCIDRs": [cidr]}})


@pytest.mark.parametrize("cidr,text", [("10.43.7.0/24", "overlaps the services' network 10.43.0.0/16"), ("192.0.2.0/24", "has the node's own address")])
def test_pod_addresses_that_are_others(three, newcomer, cidr, text):
    m = newcomer()
    node_by_hand(three, m.name, cidr)
    said = refused(m, three.token())
    assert f"spec.podCIDR of node {m.name} is {cidr}, which {text}" in said and "delete the node" in said
    three.kubectl("delete", "node", m.name)
    m.join(three.token())
    three.wait_ready(m.name, seconds=20)


def test_pod_addresses_of_another_node(three, newcomer):
    """The one that came later is left out by the others, who say so."""
    m, cidr = newcomer(), three.get("node", "node1")["spec"]["podCIDR"]
    node_by_hand(three, m.name, cidr)
    m.join(three.token())
    eventually(lambda: f"node {m.name} ({m.ip}, pods {cidr}) has pod addresses of this node and is left out" in three.nodes[0].log_text(200), 20, "the word of node1")
    eventually(lambda: f"node {m.name} ({m.ip}, pods {cidr}) has pod addresses of another node and is left out" in three.master.log_text(200), 10, "the word of the master")
    assert f"{cidr} via {three.nodes[0].ip}" in three.master.sh("ip route")
