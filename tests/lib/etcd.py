"""etcd for tests: members in machines of their own, TLS with client certificates. The programs come from tests/tools/fetch-etcd.sh."""

import os
import shutil
import signal
import subprocess
import tempfile

from machine import ROOT, Machine, eventually

ETCD = os.path.join(ROOT, "build", "etcd")


def binary(version):
    """The program of a version, or None."""
    path = os.path.join(ETCD, f"etcd-{version}")
    return path if os.access(path, os.X_OK) else None


def _run(*argv, cwd):
    subprocess.run(argv, cwd=cwd, check=True, capture_output=True)


class Etcd:
    """A cluster of n members, each a machine on the wire."""

    def __init__(self, version="3.4", members=1, wire=None, subnet="192.0.2", first=31):
        self.version, self.wire = version, wire
        self.dir = tempfile.mkdtemp(prefix="skiff-test-etcd-")
        os.chmod(self.dir, 0o755)
        self.machines = []
        self.processes = {}
        self.logs = {}
        self.ips = [f"{subnet}.{first + i}" for i in range(members)]
        self._make_certificates()
        for i, ip in enumerate(self.ips):
            self.machines.append(Machine(f"etcd{first + i}", ip, wire))
        for i in range(members):
            self.start(i)
        eventually(self.healthy, 20, "etcd's health")

    def _make_certificates(self):
        names = ",".join(f"IP:{ip}" for ip in self.ips) + ",IP:127.0.0.1"
        _run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", "ca.key", "-out", "ca.crt", "-days", "2",
             "-subj", "/CN=etcd-ca", cwd=self.dir)
        for who in ("member", "client"):
            _run("openssl", "req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-keyout", f"{who}.key", "-out", f"{who}.csr", "-subj",
                 f"/CN={who}", cwd=self.dir)
            with open(f"{self.dir}/{who}.ext", "w") as f:
                f.write(f"subjectAltName={names}\nextendedKeyUsage=serverAuth,clientAuth\n")
            _run("openssl", "x509", "-req", "-in", f"{who}.csr", "-CA", "ca.crt", "-CAkey", "ca.key", "-CAcreateserial", "-out", f"{who}.crt", "-days", "2",
                 "-extfile", f"{who}.ext", cwd=self.dir)
        for name in os.listdir(self.dir):
            os.chmod(f"{self.dir}/{name}", 0o644)  # the control plane is another user

    def start(self, i):
        ip, m = self.ips[i], self.machines[i]
        peers = ",".join(f"m{k}=https://{p}:2380" for k, p in enumerate(self.ips))
        cert, key, ca = (f"{self.dir}/{name}" for name in ("member.crt", "member.key", "ca.crt"))
        tls = ["--cert-file", cert, "--key-file", key, "--trusted-ca-file", ca, "--client-cert-auth"]
        peer = ["--peer-cert-file", cert, "--peer-key-file", key, "--peer-trusted-ca-file", ca, "--peer-client-cert-auth"]
        self.logs[i] = open(f"{self.dir}/m{i}.log", "ab")
        self.processes[i] = subprocess.Popen(
            m.enter(binary(self.version), "--name", f"m{i}", "--data-dir", f"{self.dir}/m{i}", "--listen-client-urls", f"https://{ip}:2379,https://127.0.0.1:2379",
                    "--advertise-client-urls", f"https://{ip}:2379", "--listen-peer-urls", f"https://{ip}:2380", "--initial-advertise-peer-urls",
                    f"https://{ip}:2380", "--initial-cluster", peers, "--initial-cluster-token", "test", "--heartbeat-interval", "50", "--election-timeout", "500",
                    *tls, *peer),
            stdin=subprocess.DEVNULL, stdout=self.logs[i], stderr=self.logs[i])

    def pid(self, i):
        with open(f"/proc/{self.processes[i].pid}/task/{self.processes[i].pid}/children") as f:
            children = f.read().split()
        return int(children[0]) if children else self.processes[i].pid

    def kill(self, i, sig=signal.SIGKILL):
        os.kill(self.pid(i), sig)
        self.processes[i].send_signal(signal.SIGCONT)  # nsenter stops itself when its child is stopped
        self.processes[i].wait(timeout=20)
        del self.processes[i]

    def ctl(self, *args, member=None, check=True):
        i = member if member is not None else next(iter(self.processes))
        p = subprocess.run(self.machines[i].enter(os.path.join(ETCD, "etcdctl-3.4"), "--endpoints", f"https://{self.ips[i]}:2379", "--cacert", f"{self.dir}/ca.crt",
                                                  "--cert", f"{self.dir}/client.crt", "--key", f"{self.dir}/client.key", *args),
                           capture_output=True, env={**os.environ, "ETCDCTL_API": "3"}, timeout=20)
        if check and p.returncode:
            raise subprocess.SubprocessError(f"etcdctl {' '.join(args)}: {p.stderr.decode()}")
        return p.stdout

    def healthy(self):
        return all(self.ctl("get", "/none", member=i) == b"" for i in self.processes)

    def leader(self):
        """Number of the member that leads."""
        for i in self.processes:
            fields = self.ctl("endpoint", "status", "-w", "fields", member=i).decode()
            values = dict(line.split(" : ") for line in fields.splitlines() if " : " in line)
            if values['"MemberID"'] == values['"Leader"']:
                return i
        raise subprocess.SubprocessError("no leader")

    def keys(self, prefix="/registry/"):
        return [k for k in self.ctl("get", prefix, "--prefix", "--keys-only").decode(errors="replace").split("\n") if k]

    def flags(self):
        urls = ",".join(f"https://{ip}:2379" for ip in self.ips)
        return [f"--store=etcd={urls}", f"--etcd-cafile={self.dir}/ca.crt", f"--etcd-certfile={self.dir}/client.crt", f"--etcd-keyfile={self.dir}/client.key"]

    def close(self):
        for i in list(self.processes):
            self.kill(i)
        for m in self.machines:
            m.close()
        shutil.rmtree(self.dir, ignore_errors=True)
