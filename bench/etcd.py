#!/usr/bin/env python3
"""CPU of the API server for a durable CREATE over a real etcd, beside upstream's kube-apiserver: same etcd 3.6, same TLS, same load, in alternation, each
in test machines of the same run. Prints a table, and exits 1 when ours takes more than half of upstream's. `make bench-etcd [ARGS="ROUNDS REQUESTS"]`.

Upstream's kube-apiserver comes from tests/tools/fetch-upstream.sh, etcd from fetch-etcd.sh. Counted of skiff is its whole control plane's process, with
the controllers and the scheduler that kube-apiserver does not have in it."""

import json
import os
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[0:0] = [os.path.join(ROOT, "tests", "lib"), os.path.join(ROOT, "bench")]  # the former's etcd.py is meant
from cluster import Wire  # noqa: E402
from etcd import Etcd, binary  # noqa: E402
from figures import LOAD, POD, cpu_ns, make_user, ticks_s  # noqa: E402
from machine import CLIENTS, Failure, Machine, eventually  # noqa: E402

APISERVER = os.path.join(ROOT, "build", "upstream", "kube-apiserver")
PODS = "/api/v1/namespaces/default/pods"
CONNECTIONS, WARM_UP, LIMIT = 32, 1000, 0.5


def sizes(pid):
    """Resident memory at its highest, in MB."""
    with open(f"/proc/{pid}/status") as f:
        return next(int(line.split()[1]) for line in f if line.startswith("VmHWM:")) / 1000


class Skiff:
    name = "skiff"

    def __init__(self, wire, etcd):
        self.m = Machine("api", "192.0.2.10", wire)
        self.m.start("--no-agent", "--snapshot-every", "0s", *etcd.flags())
        self.pid = self.m.skiff_pids()["control-plane"]

    def close(self):
        self.m.close()


class Upstream:
    """kube-apiserver alone, with admission as it is by default. What a controller would do is done by hand: pods' service account, and the rules of edit."""
    name = "kube-apiserver"

    def __init__(self, wire, etcd):
        m = self.m = Machine("api", "192.0.2.10", wire)
        pki = f"{m.data}/pki"
        m.sh(f"""mkdir -p {pki}; cd {pki}
            openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -out ca.crt -days 2 -subj /CN=ca 2>/dev/null
            openssl ecparam -name prime256v1 -genkey -noout -out sa.key; openssl ec -in sa.key -pubout -out sa.pub 2>/dev/null
            for who in server:/CN=kube-apiserver admin:/O=system:masters/CN=admin; do
                openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ${{who%%:*}}.key -subj "${{who#*:}}" -out x.csr 2>/dev/null
                printf 'subjectAltName=IP:127.0.0.1,IP:{m.ip}\\n' >x.ext
                openssl x509 -req -in x.csr -CA ca.crt -CAkey ca.key -CAcreateserial -days 2 -out ${{who%%:*}}.crt -extfile x.ext 2>/dev/null
            done""")
        _, ca, cert, key = (f.split("=", 1)[1] for f in etcd.flags())
        m.log = open(f"{m.dir}/skiff.log", "ab")
        self.process = subprocess.Popen(
            m.enter(APISERVER, f"--etcd-servers={','.join(f'https://{ip}:2379' for ip in etcd.ips)}", f"--etcd-cafile={ca}", f"--etcd-certfile={cert}",
                    f"--etcd-keyfile={key}", "--authorization-mode=Node,RBAC", f"--client-ca-file={pki}/ca.crt", f"--tls-cert-file={pki}/server.crt",
                    f"--tls-private-key-file={pki}/server.key", "--service-account-issuer=https://kubernetes.default.svc",
                    f"--service-account-key-file={pki}/sa.pub", f"--service-account-signing-key-file={pki}/sa.key", "--service-cluster-ip-range=10.43.0.0/16",
                    f"--secure-port={m.port}", f"--advertise-address={m.ip}"), stdin=subprocess.DEVNULL, stdout=m.log, stderr=m.log)
        m.run(os.path.join(CLIENTS, "kubectl-1.35"), "config", "--kubeconfig", m.kubeconfig, "set-cluster", "c", f"--server=https://127.0.0.1:{m.port}",
              f"--certificate-authority={pki}/ca.crt")
        for words in (("set-credentials", "u", f"--client-certificate={pki}/admin.crt", f"--client-key={pki}/admin.key"),
                      ("set-context", "x", "--cluster=c", "--user=u"), ("use-context", "x")):
            m.run(os.path.join(CLIENTS, "kubectl-1.35"), "config", "--kubeconfig", m.kubeconfig, *words)
        eventually(lambda: self.alive() and m.kubectl("get", "--raw", "/readyz", check=False)[1] == "ok", 120, "kube-apiserver's /readyz")
        m.kubectl("create", "serviceaccount", "default")
        rules = [rule for part in ("edit", "view") for rule in m.get("clusterrole", f"system:aggregate-to-{part}")["rules"]]
        m.kubectl("patch", "clusterrole", "edit", "--type=merge", "-p", json.dumps({"rules": rules}))
        with open(f"/proc/{self.process.pid}/task/{self.process.pid}/children") as f:
            self.pid = int(f.read().split()[0])

    def alive(self):
        if self.process.poll() is not None:
            sys.exit(f"kube-apiserver ended:\n{self.m.log_text()}")
        return True

    def close(self):
        self.process.kill()
        self.process.wait()
        self.m.close()


def load(m, requests):
    out = m.run(LOAD, "--address", f"127.0.0.1:{m.port}", "--ca", f"{m.data}/pki/ca.crt", "--cert", f"{m.dir}/bench.crt", "--key", f"{m.dir}/bench.key",
                "--connections", str(CONNECTIONS), "--requests", str(requests), "--seconds", "300", "--method", "POST", "--body", f"{m.dir}/pod.json", PODS,
                timeout=400).stdout
    return json.loads(out)


def refused(m):
    """RBAC decides about this user: what the role edit does not have is refused."""
    p = m.run(LOAD, "--address", f"127.0.0.1:{m.port}", "--ca", f"{m.data}/pki/ca.crt", "--cert", f"{m.dir}/bench.crt", "--key", f"{m.dir}/bench.key",
              "--requests", "1", "/api/v1/nodes", check=False)
    return p.returncode == 1 and " 403 " in p.stderr


def write_pod(m, prefix):
    with open(f"{m.dir}/pod.json", "w") as f:
        json.dump({**POD, "metadata": {**POD["metadata"], "name": f"{prefix}-%d"}}, f)


def measure(kind, requests):
    wire = Wire()
    things = [wire]
    try:
        etcd = Etcd("3.6", 1, wire)
        things.append(etcd)
        server = kind(wire, etcd)
        things.append(server)
        m = server.m
        make_user(m)
        eventually(lambda: refused(m), 10, "the refusal of what the user may not do")
        write_pod(m, "warm")
        load(m, WARM_UP)
        write_pod(m, "load")
        before = ticks_s(server.pid), ticks_s(etcd.pid(0)), cpu_ns(server.pid, "api", "store-writer", "etcd")
        got = load(m, requests)
        time.sleep(0.5)  # what follows from the last ones
        api, store = ticks_s(server.pid) - before[0], ticks_s(etcd.pid(0)) - before[1]
        n = got["good"]
        keys = len(etcd.keys("/registry/pods/"))
        if keys != WARM_UP + requests:
            raise Failure(f"{keys} pods are in etcd, not {WARM_UP + requests}")
        row = {"server": kind.name, "api": api / n * 1e6, "etcd": store / n * 1e6, "rss": sizes(server.pid), "per_second": got["per_second"], "p50": got["p50_us"],
               "p99": got["p99_us"], "own": (cpu_ns(server.pid, "api", "store-writer", "etcd") - before[2]) / n / 1000}
        print(f"  {kind.name}: {row['api']:.0f} us of the server, {row['etcd']:.0f} us of etcd, {row['rss']:.0f} MB, {row['per_second']}/s, load "
              f"{os.getloadavg()[0]:.0f}", flush=True)
        return row
    finally:
        for t in reversed(things):
            t.close()


def main():
    rounds, requests = (int(a) for a in (sys.argv[1:] + ["3", "5000"][len(sys.argv[1:]):]))
    if os.geteuid() != 0 or not os.access(APISERVER, os.X_OK) or not binary("3.6"):
        sys.exit(__doc__ + "\nIt needs root, tests/tools/fetch-upstream.sh apiserver and tests/tools/fetch-etcd.sh.")
    rows = [measure(kind, requests) for _ in range(rounds) for kind in (Upstream, Skiff)]

    def span(server, what, digits=0):
        values = [r[what] for r in rows if r["server"] == server]
        return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}", statistics.median(values)

    print(f"\n{requests} creates of a pod over {CONNECTIONS} connections, {rounds} rounds: from-to, median\n")
    print("| | kube-apiserver | skiff | ratio of the medians |\n| --- | --- | --- | --- |")
    ratios = {}
    for what, text in (("api", "CPU of the API server's process, us a create"), ("etcd", "CPU of etcd, us a create"), ("rss", "RSS at its highest, MB"),
                       ("per_second", "creates a second"), ("p50", "half are answered within, us"), ("p99", "99 % within, us")):
        (a, am), (b, bm) = span("kube-apiserver", what), span("skiff", what)
        ratios[what] = bm / am
        print(f"| {text} | {a}, {am:,.0f} | {b}, {bm:,.0f} | {bm / am:.2f} |")
    print(f"| of skiff's, the threads of API, store and etcd's client alone | | {span('skiff', 'own')[0]} | |")
    bad = ratios["api"] > LIMIT
    print(f"\nskiff takes {ratios['api']:.2f} of upstream's CPU; at most {LIMIT} is asked for{': MISSED' if bad else ''}")
    sys.exit(bad)


if __name__ == "__main__":
    main()
