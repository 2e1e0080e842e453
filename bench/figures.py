#!/usr/bin/env python3
"""Measures the figures of a whole one-machine cluster, each on a test machine of its own (namespaces; see tests/lib/machine.py):

    sudo bench/figures.py [start] [idle] [apply] [size] [codec] [get] [create]      (nothing named: all)

Prints a table: figure, bound, goal, measured. Exit 1: a bound is missed. SKIFF, BENCH_LOAD and BENCH_CODEC name the binaries
(default: build/). CPU is the kernel's own count per thread (schedstat), before and after. IDLE_SECONDS: how long idling is watched."""

import glob
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
from api import Api  # noqa: E402
from machine import SKIFF, Failure, Machine, eventually  # noqa: E402

BUILD = os.path.dirname(SKIFF)
LOAD = os.environ.get("BENCH_LOAD", f"{BUILD}/bench-load")
CODEC = os.environ.get("BENCH_CODEC", f"{BUILD}/bench-codec")
IDLE_SECONDS = float(os.environ.get("IDLE_SECONDS", "60"))
ROWS = []


def row(figure, bound, goal, value, unit, note="", at_least=False):
    """at_least: the bound is the least that will do, not the most."""
    ROWS.append((figure, bound, goal, value, unit, at_least))
    print(f"  {figure}: {value:.4g} {unit}{' (' + note + ')' if note else ''}", flush=True)


def run_figures(figures, doc, packages=("openssl",)):
    """Measures those that the command line names, all when it names none; prints the table and exits 1 when a bound is missed."""
    wanted = sys.argv[1:] or list(figures)
    missing = [p for p in packages if not shutil.which(p)]
    if os.geteuid() != 0 or any(w not in figures for w in wanted) or missing:
        sys.exit(f"{doc}\nIt needs root and {', '.join(packages)}{'; missing: ' + ', '.join(missing) if missing else ''}.")
    for name in wanted:
        print(f"{name}:", flush=True)
        figures[name]()
    print(f"\nload {' '.join(f'{x:.1f}' for x in os.getloadavg())}\n\n| figure | bound | goal | measured |\n| --- | --- | --- | --- |")
    failed = False
    for figure, bound, goal, value, unit, at_least in ROWS:
        bad = bound is not None and (value < bound if at_least else value > bound)
        failed |= bad
        limit = "" if bound is None else f"{'>=' if at_least else '<='} {bound} {unit}"
        print(f"| {figure} | {limit} | {f'{goal} {unit}' if goal else ''} | {value:.3g} {unit}{' MISSED' if bad else ''} |")
    sys.exit(1 if failed else 0)


# ---- reading the kernel ----

def threads(pid):
    """(thread id, name, CPU nanoseconds) of each thread."""
    for task in glob.glob(f"/proc/{pid}/task/*"):
        try:
            with open(f"{task}/comm") as name, open(f"{task}/schedstat") as stat:
                yield int(os.path.basename(task)), name.read().strip(), int(stat.read().split()[0])
        except OSError:
            pass


def cpu_ns(pid, *names):
    """CPU of a process; of the threads with these names alone when there are any."""
    return sum(ns for _, name, ns in threads(pid) if not names or name in names)


def ticks_s(pid):
    """CPU seconds of a process, threads that ended included; to 10 ms."""
    with open(f"/proc/{pid}/stat") as f:
        return sum(int(x) for x in f.read().rsplit(")", 1)[1].split()[11:13]) / os.sysconf("SC_CLK_TCK")


def memory_kb(pid, field):
    with open(f"/proc/{pid}/smaps_rollup") as f:
        return next(int(line.split()[1]) for line in f if line.startswith(field + ":"))


# ---- figures ----

# Runs in the machine: says when it is there, then asks until the API says that it is ready, and prints the clock.
ASKER = """
import socket, ssl, sys, time
context = ssl._create_unverified_context()
print("here", flush=True)
while True:
    try:
        with context.wrap_socket(socket.create_connection(("127.0.0.1", int(sys.argv[1])))) as s:
            s.sendall(b"GET /readyz HTTP/1.1\\r\\nHost: a\\r\\nConnection: close\\r\\n\\r\\n")
            if b" 200 " in s.recv(4096):
                break
    except OSError:
        pass
    time.sleep(0.0005)
print(time.monotonic(), flush=True)
"""


def start_once(m, *flags):
    """Milliseconds from the start of `skiff server` until /readyz says yes, and what the control plane logs of itself."""
    m.log = open(f"{m.dir}/skiff.log", "wb")
    asker = subprocess.Popen(m.enter("timeout", "20", sys.executable, "-c", ASKER, str(m.port)), stdout=subprocess.PIPE, text=True)
    asker.stdout.readline()
    begin = time.monotonic()
    m.server = subprocess.Popen(
        m.enter(SKIFF, "server", "--data-dir", m.data, "--run-dir", m.run_dir, "--pod-log-dir", f"{m.dir}/podlogs", "--kubeconfig", m.kubeconfig,
                "--listen", f"0.0.0.0:{m.port}", "--node-name", m.name, "--node-ip", m.ip, *flags), stdin=subprocess.DEVNULL, stdout=m.log, stderr=m.log)
    end = asker.communicate()[0]
    if not end:
        raise Failure(f"not ready within 20 s:\n{m.log_text()}")
    return (float(end) - begin) * 1000, int(re.search(r"served on \S+ after (\d+) ms", m.log_text()).group(1))


def figure_start():
    first, again, logged = [], [], []
    for _ in range(5):
        m = Machine()
        try:
            took, own = start_once(m, "--no-agent")
            first.append(took)
            logged.append(own)
            m.stop()
            again.append(start_once(m, "--no-agent")[0])
            m.stop()
        finally:
            m.close()
    for figure, values in (("start of an empty control plane to /readyz, keys made first", first), ("the same, its own process as it logs", logged),
                           ("start again, keys and store there", again)):
        row(figure, 200, 40, min(values), "ms", f"best of 5; {min(values):.0f}-{max(values):.0f}, median {statistics.median(values):.0f}")


def figure_idle():
    m = Machine()
    try:
        m.start()
        m.wait_node()
        m.import_busybox()
        time.sleep(15)
        pids = m.skiff_pids()
        before, begin = {n: ticks_s(p) for n, p in pids.items()}, time.monotonic()
        time.sleep(IDLE_SECONDS)
        took = time.monotonic() - begin
        used = {n: (ticks_s(p) - before[n]) / took * 100 for n, p in pids.items()}
        rss = {n: memory_kb(p, "Rss") / 1000 for n, p in pids.items()}
        pss = sum(memory_kb(p, "Pss") for p in pids.values()) / 1000
        own = sum(memory_kb(p, "Anonymous") for p in pids.values()) / 1000

        def parts(values, digits):
            return ", ".join(f"{n} {v:.{digits}f}" for n, v in values.items())

        row("idle one-node cluster, RSS in all", 40, 20, sum(rss.values()), "MB", parts(rss, 1))
        row("the same, shared pages counted once (PSS)", None, None, pss, "MB")
        row("the same, memory that is no file's", None, None, own, "MB")
        row("idle one-node cluster, CPU", 1, 0.3, sum(used.values()), "% of a core", parts(used, 3))
    finally:
        m.close()


def figure_apply():
    m = Machine()
    try:
        m.start()
        m.wait_node()
        m.import_busybox("quickstart/busybox:1")
        api, took, after = Api(m), [], []
        path = "/api/v1/namespaces/default/pods"
        for _ in range(5):
            begin = time.monotonic()
            m.kubectl("apply", "-f", f"{ROOT}/examples/quickstart.yaml")
            applied = time.monotonic()
            while [p["status"].get("phase") for p in api.get(path).json["items"]].count("Running") < 3:
                time.sleep(0.002)
            end = time.monotonic()
            took.append((end - begin) * 1000)
            after.append((end - applied) * 1000)
            m.kubectl("delete", "-f", f"{ROOT}/examples/quickstart.yaml")
            eventually(lambda: not api.get(path).json["items"], 30, "the pods are gone")
        row("kubectl apply of the quickstart until 3 pods are Running", 1000, None, min(took), "ms", f"best of 5; {min(took):.0f}-{max(took):.0f}, after "
            f"kubectl ended {min(after):.0f}-{max(after):.0f}")
    finally:
        m.close()


def figure_size():
    with tempfile.TemporaryDirectory() as d:
        subprocess.run(["strip", "-o", f"{d}/skiff", SKIFF], check=True)
        row("stripped binary", 6, None, os.path.getsize(f"{d}/skiff") / 1e6, "MB")


def figure_codec():
    out = subprocess.run([CODEC], cwd=ROOT, capture_output=True, text=True, check=False).stdout
    for form, bound in (("JSON", 6), ("protobuf", 3)):
        row(f"decode of a 2 KB pod, {form}", bound, None, float(re.search(rf"decode {form}\s+([\d.]+) us", out).group(1)), "us")


# ---- load ----

POD = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "load-%d", "labels": {"app": "load", "tier": "bench"}}, "spec": {
    "schedulerName": "none",  # so that what is counted is the API server's
    "containers": [{"name": "web", "image": "quickstart/busybox:1", "command": ["/bin/sh", "-c"], "args": ["exec httpd -f -p 8080 -h /www"],
                    "ports": [{"name": "http", "containerPort": 8080}], "env": [{"name": "A", "value": "1"}, {"name": "POD", "valueFrom": {"fieldRef": {
                        "fieldPath": "metadata.name"}}}], "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"memory": "64Mi"}},
                    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1}}]}}


def make_user(m):
    """A certificate for the user "bench", who is bound to the role edit in one namespace: RBAC decides about each of its requests."""
    m.sh(f"""cd {m.dir}; openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout bench.key -subj /CN=bench -out bench.csr 2>/dev/null
        openssl x509 -req -in bench.csr -CA {m.data}/pki/ca.crt -CAkey {m.data}/pki/ca.key -CAcreateserial -CAserial bench.srl -days 1 -out bench.crt 2>/dev/null""")
    m.kubectl("create", "rolebinding", "bench", "--clusterrole=edit", "--user=bench")


def load(m, *args):
    out = m.run(LOAD, "--address", f"127.0.0.1:{m.port}", "--ca", f"{m.data}/pki/ca.crt", "--cert", f"{m.dir}/bench.crt", "--key", f"{m.dir}/bench.key", *args,
                timeout=180).stdout
    return json.loads(out)


def measure(m, requests, *args):
    """(what the load generator says, CPU us a request of the whole control plane, of its API and store threads alone)."""
    pid = m.skiff_pids()["control-plane"]
    all_before, api_before = cpu_ns(pid), cpu_ns(pid, "api", "store-writer")
    got = load(m, "--requests", str(requests), *args)
    return got, (cpu_ns(pid) - all_before) / 1000 / got["good"], (cpu_ns(pid, "api", "store-writer") - api_before) / 1000 / got["good"]


def load_machine():
    m = Machine()
    m.start("--no-agent")
    make_user(m)
    with open(f"{m.dir}/pod.json", "w") as f:
        json.dump(POD, f)
    return m


def figure_get():
    m = load_machine()
    try:
        api = Api(m)
        assert api.post("/api/v1/namespaces/default/pods", json.dumps(POD).replace("%d", "one")).status == 201
        size = len(api.get("/api/v1/namespaces/default/pods/load-one").bytes)
        refused = m.run(LOAD, "--address", f"127.0.0.1:{m.port}", "--ca", f"{m.data}/pki/ca.crt", "--cert", f"{m.dir}/bench.crt", "--key", f"{m.dir}/bench.key",
                        "--requests", "1", "/api/v1/nodes", check=False)
        assert refused.returncode == 1 and " 403 " in refused.stderr, "RBAC is on"
        for connections in (1, 32):
            load(m, "--requests", "2000", "--connections", str(connections), "/api/v1/namespaces/default/pods/load-one")
            best = min((measure(m, 20000, "--connections", str(connections), "/api/v1/namespaces/default/pods/load-one") for _ in range(3)), key=lambda r: r[1])
            row(f"server CPU, GET of a pod, {connections} connection{'s' if connections > 1 else ''}", 37, 15, best[1], "us",
                f"{size} bytes; {best[0]['per_second']}/s, p50 {best[0]['p50_us']} us, p99 {best[0]['p99_us']} us")
    finally:
        m.close()


def figure_create():
    for connections in (1, 32):
        m = load_machine()
        try:
            args = ("--connections", str(connections), "--method", "POST", "--body", f"{m.dir}/pod.json", "/api/v1/namespaces/default/pods")
            got, whole, own = measure(m, 5000 if connections > 1 else 1000, *args)
            row(f"server CPU, durable CREATE of a pod, {connections} connection{'s' if connections > 1 else ''}", 100 if connections > 1 else None,
                40 if connections > 1 else None, own, "us", f"API and store; {whole:.0f} with controllers and scheduler; {got['per_second']}/s, "
                f"p50 {got['p50_us']} us, p99 {got['p99_us']} us")
        finally:
            m.close()


FIGURES = {"start": figure_start, "idle": figure_idle, "apply": figure_apply, "size": figure_size, "codec": figure_codec, "get": figure_get,
           "create": figure_create}


if __name__ == "__main__":
    run_figures(FIGURES, __doc__)
