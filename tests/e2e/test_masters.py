"""Further servers over one etcd, joined by a token that carries the key to the cluster's keys."""

import json
import time

import pytest

from api import Api
from cluster import Wire
from etcd import Etcd
from machine import SKIFF, Machine, eventually
from test_etcd import need


@pytest.fixture(scope="module")
def masters():
    """An etcd, a first server on it, and a maker of machines."""
    need("3.6")
    made = []
    wire = Wire()
    made.append(wire)
    try:
        etcd = Etcd("3.6", 1, wire)
        made.append(etcd)
        count = iter(range(10, 30))

        def machine(name):
            m = Machine(name, f"192.0.2.{next(count)}", wire)
            made.append(m)
            return m

        first = machine("a")
        first.start("--no-agent", *etcd.flags(), "--service-cidr=10.44.0.0/16")
        eventually(lambda: first.get("endpoints", "kubernetes")["subsets"], 10, "the first server's address")
        yield first, machine
    finally:
        for t in reversed(made):
            t.close()


def token(m, *flags, check=True):
    p = m.run(SKIFF, "token", "create", "--data-dir", m.data, "--kubeconfig", m.kubeconfig, *flags, check=check)
    return p.stdout.strip() if check else p


def flags_of(line):
    words = line.split()
    assert words[:2] == ["skiff", "server"]
    return words[2:]


def refused(m, *flags):
    p = m.run("timeout", "20", SKIFF, "server", "--no-agent", "--data-dir", m.data, "--run-dir", m.run_dir, "--kubeconfig", m.kubeconfig, "--node-name", m.name,
              "--node-ip", m.ip, *flags, check=False, timeout=40)
    assert p.returncode not in (0, 124), p.stderr
    return p.stderr


def sha(m, *names):
    return m.sh(f"cd {m.data}/pki && sha256sum {' '.join(names)}")


def test_a_second_server_joins(masters):
    first, machine = masters
    second = machine("b")
    line = token(first, "--role", "server", "--ttl", "10m")
    assert "--service-cidr=10.44.0.0/16" in line and "--store=etcd=https://" in line and "--pod-cidr" not in line
    ident = line.split("--token ")[1][:6]
    secrets = first.get("secrets", "-n", "kube-system")["items"]
    sealed = next(s for s in secrets if s["metadata"]["name"] == f"skiff-server-{ident}")
    assert sealed["metadata"]["ownerReferences"][0]["name"] == f"bootstrap-token-{ident}"
    assert "PRIVATE" not in json.dumps(sealed) and f"{ident}  server" in first.run(SKIFF, "token", "list", "--kubeconfig", first.kubeconfig).stdout

    second.start("--no-agent", *flags_of(line))
    shared = ("ca.crt", "ca.key", "service-account.key", "kubelet-client.crt", "kubelet-client.key", "admin.crt", "admin.key")
    assert sha(first, *shared) == sha(second, *shared)
    assert sha(first, "server.key").split()[0] != sha(second, "server.key").split()[0]
    assert second.sh(f"stat -c '%a %U' {second.data}/pki/ca.key {second.data}/pki") == "600 skiff\n750 skiff\n"
    assert not [a for a in second.skiff_pids() if a == "control-plane" and line.split("--token ")[1].split()[0] in
                open(f"/proc/{second.skiff_pids()[a]}/cmdline").read()], "the token is not handed on"

    # One cluster: what one writes the other reads, both are endpoints, tokens of one are good at the other.
    first.kubectl("create", "configmap", "x", "--from-literal=a=1")
    assert second.get("configmap", "x")["data"] == {"a": "1"}
    eventually(lambda: len(second.get("endpoints", "kubernetes")["subsets"][0]["addresses"]) == 2, 20, "two endpoints")
    bearer = first.kubectl("create", "token", "default").strip()
    api = Api(second, certificate=False, token=bearer)
    assert api.get("/api/v1/nodes").status == 403, "known, and not allowed"
    api.close()

    # Used up: nothing of it is left, and who comes with it again is told so.
    names = [o["metadata"]["name"] for kind in ("secrets", "roles", "rolebindings") for o in first.get(kind, "-n", "kube-system")["items"]]
    assert f"bootstrap-token-{ident}" not in names and f"skiff-server-{ident}" not in {s["metadata"]["name"] for s in first.get("secrets", "-n", "kube-system")["items"]}
    eventually(lambda: not [n for kind in ("roles", "rolebindings") for n in [o["metadata"]["name"] for o in first.get(kind, "-n", "kube-system")["items"]]
                            if ident in n], 20, "the end of its role")
    third = machine("c")
    text = refused(third, *flags_of(line))
    assert "was used already" in text and "skiff token create --role server" in text
    assert third.run("ls", f"{third.data}/pki", check=False).returncode, "no keys of its own were made instead"

    # The same line again on the machine that joined: it has its keys.
    second.stop()
    second.start("--no-agent", *flags_of(line))
    assert second.get("configmap", "x")["data"] == {"a": "1"}


def test_only_a_servers_token_opens_the_keys(masters):
    first, machine = masters
    m = machine("d")
    line = token(first, "--role", "server")
    ident, secret, key = line.split("--token ")[1].split()[0].split(":")[0].split(".")
    agent = token(first)
    agent_token = agent.split("--token ")[1].split()[0].split(":")[0]
    path = f"/api/v1/namespaces/kube-system/secrets/skiff-server-{ident}"
    for bearer, statuses in ((agent_token, (403,)), (f"{ident}.{'x' * 16}", (401,)), (None, (401, 403)), (f"{ident}.{secret}", (200,))):
        api = Api(first, certificate=False, token=bearer)
        assert api.get(path).status in statuses, bearer
        # and nothing but that: no other secret, no list, no change
        for other in ("/api/v1/namespaces/kube-system/secrets", f"/api/v1/namespaces/kube-system/secrets/bootstrap-token-{ident}"):
            assert api.get(other).status in (401, 403), other
        api.close()
    # wrong kinds of token, each with its remedy
    flags = flags_of(line)
    at = flags.index("--token") + 1
    pin = flags[at].split(":")[1]

    def with_token(text):
        return flags[:at] + [text] + flags[at + 1:]

    assert "lets agents join" in refused(m, *with_token(f"{agent_token}:{pin}"))
    assert "lets a server join" in m.run("timeout", "20", SKIFF, "agent", "--server", f"https://{first.ip}:6443", "--token", flags[at], "--data-dir", m.data,
                                         check=False).stderr
    assert "does not open the keys" in refused(m, *with_token(f"{ident}.{secret}.{'0' * len(key)}:{pin}"))
    assert "opens no server's keys" in refused(m, *with_token(f"{agent_token}.{key}:{pin}"))
    assert "another cluster" in refused(m, *with_token(f"{ident}.{secret}.{key}:{'0' * 64}"))
    assert "--store etcd" in refused(m, *[f for f in flags if not f.startswith(("--store", "--etcd"))])
    # expired, and revoked
    short = flags_of(token(first, "--role", "server", "--ttl", "1s"))
    time.sleep(1.2)
    assert "has expired" in refused(m, *short)
    gone = short[short.index("--token") + 1][:6]
    eventually(lambda: not [o for kind in ("secrets", "roles", "rolebindings") for o in first.get(kind, "-n", "kube-system")["items"]
                            if gone in o["metadata"]["name"]], 60, "the end of all that the expired token owned")
    first.run(SKIFF, "token", "delete", ident, "--kubeconfig", first.kubeconfig)
    assert "was revoked" in refused(m, *flags)
    assert m.run("ls", f"{m.data}/pki", check=False).returncode
    # another cluster's keys are not overwritten
    own = machine("e")
    own.start("--no-agent")
    own.stop()
    before = sha(own, "ca.key")
    assert "keys of another cluster" in refused(own, *flags)
    assert sha(own, "ca.key") == before


def test_a_server_with_its_own_store_has_none_to_share(masters):
    _, machine = masters
    m = machine("f")
    m.start("--no-agent")
    p = token(m, "--role", "server", check=False)
    assert p.returncode and "several servers need etcd" in p.stderr
    p = token(m, "--role", "king", check=False)
    assert p.returncode and "expected agent or server" in p.stderr
    m.stop()
