"""Snapshots: saved from a running server, checked, restored elsewhere."""

import json
import os

import pytest

from api import Api
from machine import SKIFF, Machine, eventually

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
    r = snapshot(machine, "verify", file, check=False)
    assert r.returncode == 1 and "damaged" in r.stderr
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
