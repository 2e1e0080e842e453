"""Snapshots: saved from a running server, checked, restored elsewhere."""

import json
import os

import pytest

from api import Api
from cluster import Wire
from etcd import Etcd
from machine import SKIFF, Machine, eventually
from test_etcd import need

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"


@pytest.fixture
def other():
    m = Machine(name="other")
    try:
        yield m
    finally:
        m.close()


def snapshot(m, *args, check=True):
    return m.run(SKIFF, "snapshot", *args, "--data-dir", m.data, "--kubeconfig", m.kubeconfig, check=check)


def test_save_and_restore(machine, other):
    machine.start("--no-agent")
    api = Api(machine)
    for i in range(50):
        api.post(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c-{i}", "labels": {"n": str(i % 5)}},
                              "data": {"text": f'{i} "quoted" \u00e9\n', "resourceVersion": "1"}})
    api.call("PATCH", CONFIGMAPS + "/c-7", {"data": {"more": "x"}}, content_type="application/merge-patch+json")
    before = {o["metadata"]["name"]: o for o in api.get(CONFIGMAPS).json["items"]}
    file = f"{machine.dir}/cluster.tar"
    assert "saved" in snapshot(machine, "save", file).stderr
    assert "is whole" in snapshot(machine, "verify", file).stdout
    manifest = json.loads(snapshot(machine, "inspect", file).stdout)
    assert manifest["revision"] >= int(before["c-7"]["metadata"]["resourceVersion"]) and manifest["objects"] > 50
    assert {f["name"] for f in manifest["files"]} >= {"store.jsonl", "pki/ca.crt", "pki/ca.key", "pki/service-account.key"}
    # What is written after it is not in it.
    after = int(api.post(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "late"}}).json["metadata"]["resourceVersion"])
    token = api.post("/api/v1/namespaces/default/serviceaccounts/default/token",
                     {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}).json["status"]["token"]
    api.close()

    other.run("mkdir", "-p", other.data)
    assert "restored" in snapshot(other, "restore", file).stdout
    other.start("--no-agent")
    api = Api(other)
    restored = {o["metadata"]["name"]: o for o in api.get(CONFIGMAPS).json["items"]}
    assert restored.keys() == before.keys()
    for name, o in restored.items():
        assert int(o["metadata"].pop("resourceVersion")) > after + 1000
        before[name]["metadata"].pop("resourceVersion")
        assert o == before[name]
    assert len(api.get(CONFIGMAPS + "?labelSelector=n%3D3").json["items"]) == 10
    # A watch that remembers the old cluster is told to begin anew.
    r = api.get(f"{CONFIGMAPS}?watch=1&resourceVersion={after}&timeoutSeconds=1")
    assert r.status == 410 or r.json["object"]["code"] == 410, r
    # Same keys: what the old cluster signed is still good.
    holder = Api(other, certificate=False, token=token)
    assert holder.get("/api/v1/nodes").status == 403
    holder.close()
    api.close()


def test_damage_is_told(machine):
    machine.start("--no-agent")
    file = f"{machine.dir}/cluster.tar"
    snapshot(machine, "save", file)
    with open(file, "r+b") as f:
        f.seek(2000)
        byte = f.read(1)
        f.seek(2000)
        f.write(bytes([byte[0] ^ 1]))
    for verb in ("verify", "inspect"):
        r = snapshot(machine, verb, file, check=False)
        assert r.returncode == 1 and "damaged" in r.stderr and file in r.stderr
    os.truncate(file, 5000)
    for verb in ("verify", "restore"):
        r = snapshot(machine, verb, file, check=False)
        assert r.returncode == 1 and "damaged" in r.stderr
    snapshot(machine, "save", file)
    r = snapshot(machine, "restore", file, check=False)
    assert r.returncode == 1 and "a server uses" in r.stderr
    machine.stop()
    r = snapshot(machine, "restore", file, check=False)
    assert r.returncode == 1 and "empty data directory" in r.stderr


def test_only_administrators_save(machine):
    machine.start("--no-agent")
    api = Api(machine)
    token = eventually(lambda: api.post("/api/v1/namespaces/default/serviceaccounts/default/token",
                                        {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}).json.get("status", {}).get("token"), 10)
    holder = Api(machine, certificate=False, token=token)
    assert holder.get("/skiff/v1/snapshot").status == 403
    holder.close()
    api.close()


def test_schedule(machine):
    """One each second here, instead of each twelve hours: the newest five stay, and each is whole."""
    machine.start("--no-agent", "--snapshot-every", "1s")
    folder = f"{machine.data}/snapshots"

    def files():
        return sorted(f for f in os.listdir(folder) if f.endswith(".tar"))
    first = eventually(lambda: files()[0], 10, "the first snapshot")
    eventually(lambda: first not in files(), 20, "the first one's removal")
    assert len(files()) == 5
    assert "is whole" in snapshot(machine, "verify", f"{folder}/{files()[0]}").stdout


def test_restore_into_etcd(machine, things):
    need("3.6")
    machine.start("--no-agent", "--snapshot-every", "0s")
    machine.kubectl("create", "deployment", "web", "--image=none", "--replicas=2")
    machine.kubectl("create", "namespace", "team")
    eventually(lambda: len(machine.get("pods", "-l", "app=web")["items"]) == 2, 20, "the deployment's pods")
    api = Api(machine)
    for i in range(30):
        api.post(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"c-{i}", "labels": {"n": str(i % 5)}},
                              "data": {"text": f'{i} "quoted" \u00e9\n', "resourceVersion": "1"}})
    file = f"{machine.dir}/cluster.tar"
    snapshot(machine, "save", file)
    kinds = ("configmaps", "deployments", "replicasets", "pods", "secrets", "services", "namespaces", "serviceaccounts", "clusterroles")

    def everything(m):
        items = [o for kind in kinds for o in m.get(kind, "-A")["items"]]
        return {o["metadata"]["uid"]: o for o in items if o["metadata"]["name"] != "kube-root-ca.crt" and not o["metadata"]["name"].startswith("bootstrap-token")}

    before = everything(machine)
    for i in range(40):
        late = int(api.post(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": f"late-{i}"}}).json["metadata"]["resourceVersion"])
    api.close()
    machine.stop()

    wire = Wire()
    things.append(wire)
    etcd = Etcd("3.6", 1, wire)
    things.append(etcd)
    m = Machine("m0", "192.0.2.10", wire)
    things.append(m)
    m.run("mkdir", "-p", m.data)

    def restore(*flags, check=True):
        return m.run(SKIFF, "snapshot", "restore", file, "--data-dir", m.data, "--revision-jump", "3000", *etcd.flags(), *flags, check=check)

    assert "read back and compared" in restore().stdout
    assert len(etcd.keys()) > 100
    m.start("--no-agent", *etcd.flags())
    restored = everything(m)
    assert restored.keys() == before.keys()
    first = min(int(o["metadata"].pop("resourceVersion")) for o in restored.values())
    assert first > late + 1000, "further on than anything that a client may remember"
    for uid, o in restored.items():
        before[uid]["metadata"].pop("resourceVersion")
        assert o == before[uid]
    api = Api(m)
    for old in (int(late), int(late) - 60, 1):
        r = api.get(f"{CONFIGMAPS}?watch=1&resourceVersion={old}&timeoutSeconds=1")
        assert r.status == 410 or r.json["object"]["code"] == 410, f"a watch from {old}: {r}"
    m.kubectl("delete", "deployment", "web")  # what was restored is alive
    eventually(lambda: not m.get("pods", "-l", "app=web")["items"], 20, "the pods' end")
    now = api.post(CONFIGMAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "extra"}}).json["metadata"]["resourceVersion"]
    api.close()

    # again, over what is there
    assert "a server uses" in restore("--replace", check=False).stderr
    m.stop()
    r = restore(check=False)
    assert r.returncode == 1 and "objects already" in r.stderr and "--replace" in r.stderr
    assert etcd.keys("/registry/configmaps/default/extra"), "a refusal changes nothing"
    assert "read back and compared" in restore("--replace").stdout
    m.start("--no-agent", *etcd.flags())
    assert everything(m).keys() == before.keys(), "neither more nor less"
    api = Api(m)
    r = api.get(f"{CONFIGMAPS}?watch=1&resourceVersion={now}&timeoutSeconds=1")
    assert r.status == 410 or r.json["object"]["code"] == 410, r
    api.close()
