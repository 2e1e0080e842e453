#!/usr/bin/env python3
"""Measures what a burst of load leaves in the memory of a one-node cluster, on a test machine (namespaces; see tests/lib/machine.py):

    sudo bench/memory.py                (twelve minutes; PODS=2000 for a short look)

PODS pods, as many config maps and events, each pod written twice, while others watch all pods as JSON and as protobuf; then all of them deleted at
once, then rest, in which the server holds its past for five minutes. Prints a table like bench/figures.py, and ends like it."""

import json
import os
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from figures import LOAD, POD, ROWS, Api, Machine, memory_kb, row, run_figures  # noqa: E402

PODS = int(os.environ.get("PODS", "20000"))
KINDS = {
    "pods": POD,
    "configmaps": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "load-%d"}, "data": {"text": "x" * 1000}},
    "events": {"apiVersion": "v1", "kind": "Event", "metadata": {"name": "load-%d"}, "reason": "Load", "message": "y" * 200, "type": "Normal",
               "involvedObject": {"kind": "Pod", "namespace": "default", "name": "x"}, "source": {"component": "bench"}, "count": 1}}


class Burst:
    def __init__(self):
        self.m = Machine()
        self.m.start()
        self.m.wait_node()
        self.api = Api(self.m, timeout=120)
        self.watches = []

    def admin(self, program, *args):
        pki = f"{self.m.data}/pki"
        return [program, *args, *(("--cacert", f"{pki}/ca.crt") if program == "curl" else ("--address", f"127.0.0.1:{self.m.port}", "--ca", f"{pki}/ca.crt")),
                "--cert", f"{pki}/admin.crt", "--key", f"{pki}/admin.key"]

    def watch(self, accept):
        self.watches.append(subprocess.Popen(self.m.enter(*self.admin(
            "curl", "-sN", "-H", f"Accept: {accept}", "-o", "/dev/null", f"https://127.0.0.1:{self.m.port}/api/v1/pods?watch=1"))))

    def load(self, method, path, body):
        with open(f"{self.m.dir}/body.json", "w") as f:
            json.dump(body, f)
        self.m.run(*self.admin(LOAD, "--requests", str(PODS), "--connections", "32", "--method", method, "--body", f"{self.m.dir}/body.json"), path, timeout=300)

    def row(self, what, bound=None):
        pids = self.m.skiff_pids()
        rss = {n: memory_kb(p, "Rss") / 1000 for n, p in pids.items()}
        row(f"{what}: RSS of the control plane", bound, None, rss["control-plane"], "MB",
            f"no file's: {memory_kb(pids['control-plane'], 'Anonymous') / 1000:.1f}; with agent and supervisor {sum(rss.values()):.1f}")
        return ROWS[-1][3]

    def close(self):
        for w in self.watches:
            w.kill()
            w.wait()
        self.m.close()


def figure_burst():
    b = Burst()
    try:
        time.sleep(60)
        idle = b.row("idle")
        b.watch("application/json")
        b.watch("application/vnd.kubernetes.protobuf;stream=watch")
        for kind, body in KINDS.items():
            b.load("POST", f"/api/v1/namespaces/default/{kind}", body)
        b.load("PATCH", "/api/v1/namespaces/default/pods/load-%d/status", {"status": {"phase": "Pending", "message": "seen"}})
        b.row(f"{PODS} pods, config maps and events, watched")
        time.sleep(40)
        b.row("40 s later")
        for kind in KINDS:
            assert b.api.call("DELETE", f"/api/v1/namespaces/default/{kind}").status == 200
        assert not b.api.get("/api/v1/namespaces/default/pods").json["items"]
        b.row("just deleted")
        time.sleep(110)  # 75 s of the past are held whatever they weigh; 10 s until that is looked at, 20 s until the heap is
        b.row("110 s later, the past still held", idle + 100)
        time.sleep(260)
        b.row("6 minutes later", idle + 16)
    finally:
        b.close()


if __name__ == "__main__":
    run_figures({"burst": figure_burst}, __doc__)
