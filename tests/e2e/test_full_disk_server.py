"""The disk under the server is full: writes are refused with cause and remedy, reads and watches go on, nothing acknowledged is lost, and it goes on by
itself when there is room again. The data directory is a small file system of its own."""

import os
import signal

from api import Api
from machine import eventually
from test_etcd import Watcher

CONFIGMAPS = "/api/v1/namespaces/default/configmaps"
SIZE_MB = 24


def config_map(name, n=60_000):
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"x": os.urandom(n // 2).hex()}}


def test_disk_full(machine):
    m = machine
    m.sh(f"mkdir -p {m.data} && mount -t tmpfs -o size={SIZE_MB}m,mode=755 none {m.data}")
    m.start("--no-agent", "--snapshot-every", "0s")
    api = Api(m)
    start = api.get(CONFIGMAPS).json["metadata"]["resourceVersion"]
    watcher = Watcher(m, start)
    m.sh(f"dd if=/dev/zero of={m.data}/filler bs=1M count=8 2>/dev/null")
    acked, refusal = {}, None
    for rounds in range(3):
        for i in range(2000):
            r = api.post(CONFIGMAPS, config_map(f"c-{rounds}-{i}"))
            if r.status != 201:
                refusal = r
                break
            acked[r.json["metadata"]["name"]] = r.json["data"]["x"]
        assert refusal is not None and refusal.status // 100 == 5, refusal
        for word in ("was not stored", "no room", "free"):
            assert word in refusal.json["message"], refusal.json["message"]
        # reads and watches go on, and say what was acknowledged
        there = {o["metadata"]["name"]: o.get("data", {}).get("x") for o in api.get(CONFIGMAPS).json["items"] if o["metadata"]["name"].startswith("c-")}
        assert there == acked
        assert api.get("/readyz").status == 200 and m.skiff_pids()["control-plane"]
        eventually(lambda: {e[1] for e in watcher.events if e[1].startswith("c-")} == acked.keys(), 10, "the watcher's events")
        assert api.call("PATCH", f"{CONFIGMAPS}/c-0-0", {"data": {"y": "z" * 60_000}}, content_type="application/merge-patch+json").status // 100 == 5
        if rounds == 0:  # room by taking something away beside it
            m.sh(f"rm {m.data}/filler")
        elif rounds == 1:  # it dies while there is no room
            m.stop(signal.SIGKILL)
            watcher.end()
            m.sh(f"mount -o remount,size={SIZE_MB + 8}m {m.data}")
            m.start("--no-agent", "--snapshot-every", "0s")
            api.close()
            api = Api(m)
            watcher = Watcher(m, start)
    revisions = [e[2] for e in watcher.end()]
    assert revisions == sorted(set(revisions)), "each revision once and in order"
    m.sh(f"mount -o remount,size={SIZE_MB + 64}m {m.data}")  # a deletion is written too
    eventually(lambda: api.post(CONFIGMAPS, config_map("more")).status == 201, 10, "writes when there is room")
    for name in acked:
        assert api.call("DELETE", f"{CONFIGMAPS}/{name}").status == 200
    assert api.post(CONFIGMAPS, config_map("again")).status == 201
    api.close()


def test_start_on_a_full_disk(machine):
    m = machine
    m.sh(f"mkdir -p {m.data} && mount -t tmpfs -o size={SIZE_MB}m,mode=755 none {m.data}")
    m.start("--no-agent", "--snapshot-every", "0s")
    api = Api(m)
    assert api.post(CONFIGMAPS, config_map("kept")).status == 201
    api.close()
    m.stop()
    m.sh(f"dd if=/dev/zero of={m.data}/filler bs=64k 2>/dev/null || true")
    try:
        m.start("--no-agent", "--snapshot-every", "0s")
    except AssertionError:
        assert "No space left" in m.log_text() or "no room" in m.log_text() or "full" in m.log_text(), m.log_text()
        m.server.kill()
        m.server.wait()
        m.sh(f"rm {m.data}/filler")
        m.start("--no-agent", "--snapshot-every", "0s")
    else:
        m.sh(f"rm {m.data}/filler")
    api = Api(m)
    assert api.get(f"{CONFIGMAPS}/kept").status == 200
    eventually(lambda: api.post(CONFIGMAPS, config_map("new")).status == 201, 10, "writes")
    api.close()
