"""A test machine: network, mount, PID and UTS namespaces of its own, with everything that skiff writes under one temporary folder.

Its first process holds the namespaces; when it ends, the kernel ends every process inside (containers too) and takes down links, mounts and nftables
tables. Cgroups made by its pods are removed by `close`. Nothing of a machine is reachable from, or talks to, the host's own network."""

import glob
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIFF = os.environ.get("SKIFF", os.path.join(ROOT, "build", "skiff"))
CLIENTS = os.path.join(ROOT, "build", "clients")
# For a build with sanitizers.
os.environ.setdefault("LSAN_OPTIONS", f"suppressions={os.path.join(ROOT, 'tests', 'lib', 'lsan.supp')}:print_suppressions=0")


class Failure(AssertionError):
    """A command that should have worked did not; says which, and what it printed."""


def eventually(check, seconds=30.0, what="condition"):
    """Asks `check` until it answers something true, and returns that; the last answer or error is told when time is up."""
    end = time.monotonic() + seconds
    last = None
    while True:
        try:
            last = check()
            if last:
                return last
        except (Failure, subprocess.SubprocessError, json.JSONDecodeError, KeyError, IndexError, OSError) as e:
            last = e
        if time.monotonic() > end:
            raise Failure(f"{what} did not come true within {seconds} s; last: {last}")
        time.sleep(0.05)


class Machine:
    def __init__(self, name="node1", ip="192.0.2.10", wire=None):
        """wire: what its eth0 is plugged into (see cluster.py); None: a link that leads nowhere."""
        self.name, self.ip = name, ip
        self.dir = tempfile.mkdtemp(prefix=f"skiff-test-{name}-")
        os.chmod(self.dir, 0o755)
        self.data, self.run_dir = f"{self.dir}/data", f"{self.dir}/run"
        self.kubeconfig = f"{self.dir}/kubeconfig"
        self.server = None
        self.port = 6443
        self.holder = subprocess.Popen(
            ["unshare", "--mount", "--net", "--pid", "--uts", "--ipc", "--fork", "--mount-proc", "--propagation", "private", "--kill-child",
             "sh", "-c", f"hostname {name} && exec env --ignore-signal=CHLD sleep infinity"], stdin=subprocess.DEVNULL)
        self.init = eventually(self._find_init, 5, "the machine's first process")
        try:
            self._link(wire)
        except BaseException:
            self.close()
            raise

    def _link(self, wire):
        if wire:
            gateway = wire.plug(self)
            self.sh(f"ip link set lo up && ip link set eth0 up && ip addr add {self.ip}/24 dev eth0 && ip route add default via {gateway}")
            return
        self.sh("ip link set lo up && ip link add eth0 type veth peer name wire0 && ip link set wire0 up && ip link set eth0 up && "
                f"ip addr add {self.ip}/24 dev eth0 && ip route add default dev eth0")

    def _find_init(self):
        with open(f"/proc/{self.holder.pid}/task/{self.holder.pid}/children") as f:
            children = f.read().split()
        if not children:
            return None
        with open(f"/proc/{children[0]}/comm") as f:
            return int(children[0]) if f.read().strip() == "sleep" else None

    def enter(self, *argv):
        return ["nsenter", "-t", str(self.init), "-m", "-n", "-p", "-u", "-i", "--", *argv]

    def run(self, *argv, check=True, timeout=60, input=None, env=None):
        p = subprocess.run(self.enter(*argv), capture_output=True, text=True, timeout=timeout, input=input, cwd=ROOT,
                           env={**os.environ, **(env or {})})
        if check and p.returncode != 0:
            raise Failure(f"{' '.join(argv)}: exit {p.returncode}\n{p.stdout}{p.stderr}")
        return p

    def sh(self, script, **kw):
        return self.run("sh", "-ec", script, **kw).stdout

    # ---- skiff ----

    def start(self, *flags):
        """Starts `skiff server` and waits until it is ready. Returns the seconds that took."""
        begin = time.monotonic()
        self.log = open(f"{self.dir}/skiff.log", "ab")
        self.server = subprocess.Popen(
            self.enter(SKIFF, "server", "--data-dir", self.data, "--run-dir", self.run_dir, "--pod-log-dir", f"{self.dir}/podlogs", "--kubeconfig",
                       self.kubeconfig, "--listen", f"0.0.0.0:{self.port}", "--node-name", self.name, "--node-ip", self.ip, *flags),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)
        try:
            eventually(self.ready, 20, "/readyz")
        except Failure as e:
            raise Failure(f"{e}\n{self.log_text()}") from None
        return time.monotonic() - begin

    def join(self, line, *flags):
        """Starts `skiff agent` as `skiff token create` prints it."""
        self.log = open(f"{self.dir}/skiff.log", "ab")
        self.server = subprocess.Popen(
            self.enter(SKIFF, *line.split()[1:], "--data-dir", self.data, "--run-dir", self.run_dir, "--pod-log-dir", f"{self.dir}/podlogs",
                       "--node-name", self.name, "--node-ip", self.ip, *flags),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def ready(self):
        if self.server.poll() is not None:
            raise Failure(f"skiff server ended with {self.server.returncode}:\n{self.log_text()}")
        return self.run("curl", "-sf", "--cacert", f"{self.data}/pki/ca.crt", f"https://127.0.0.1:{self.port}/readyz", check=False).returncode == 0

    def log_text(self, lines=60):
        with open(f"{self.dir}/skiff.log", errors="replace") as f:
            return "".join(f.readlines()[-lines:])

    def skiff_pids(self):
        """name -> pid (as the host sees it) of the supervisor, control plane and agent."""
        out = {}
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            try:
                with open(path, "rb") as f:
                    argv = f.read().split(b"\0")
                if len(argv) > 1 and self.data.encode() in b" ".join(argv) and argv[1] in (b"server", b"control-plane", b"agent"):
                    out[argv[1].decode()] = int(path.split("/")[2])
            except OSError:
                pass
        return out

    def stop(self, sig=signal.SIGTERM):
        if not self.server:
            return
        pids = self.skiff_pids()
        if sig == signal.SIGKILL:
            for pid in pids.values():
                os.kill(pid, sig)
        else:
            os.kill(pids.get("server") or pids["agent"], sig)
        self.server.wait(timeout=30)
        self.server = None
        eventually(lambda: not self.skiff_pids(), 10, "the end of all processes")

    # ---- kubectl ----

    def kubectl(self, *args, version=None, check=True, input=None, timeout=60):
        """Runs kubectl in the machine and returns what it prints; (exit status, output, errors) when check is False."""
        binary = os.path.join(CLIENTS, f"kubectl-{version or '1.35'}")
        p = self.run(binary, "--kubeconfig", self.kubeconfig, *args, check=check, input=input, timeout=timeout,
                     env={"HOME": self.dir, "KUBECACHEDIR": f"{self.dir}/kubecache"})
        return p.stdout if check else (p.returncode, p.stdout, p.stderr)

    def get(self, *args):
        return json.loads(self.kubectl("get", *args, "-o", "json"))

    def apply(self, manifest, *args, **kw):
        text = manifest if isinstance(manifest, str) else json.dumps(manifest)
        return self.kubectl("apply", "-f", "-", *args, input=text, **kw)

    def wait_node(self, name=None):
        eventually(lambda: any(c["type"] == "Ready" and c["status"] == "True"
                               for c in self.get("node", name or self.name)["status"]["conditions"]), 30, "node Ready")

    def pods(self, selector, phase="Running", ready=True, ns="default"):
        """Pods of a selector in a phase, ready ones only unless told otherwise, not being deleted."""
        out = []
        for p in self.get("pods", "-n", ns, "-l", selector)["items"]:
            is_ready = any(c["type"] == "Ready" and c["status"] == "True" for c in p.get("status", {}).get("conditions", []))
            if p["status"].get("phase") == phase and "deletionTimestamp" not in p["metadata"] and (is_ready or not ready):
                out.append(p)
        return out

    def wait_pods(self, selector, n, seconds=40, **kw):
        try:
            return eventually(lambda: (lambda found: found if len(found) == n else None)(self.pods(selector, **kw)), seconds, f"{n} pods {selector}")
        except Failure as e:
            raise Failure(f"{e}\n{self.kubectl('get', 'pods,events', '-A', '-o', 'wide', check=False)[1]}\n{self.log_text(30)}") from None

    # ---- image: busybox and nothing else ----

    def import_busybox(self, tag="test/busybox:1"):
        root = f"{self.dir}/rootfs"
        if not os.path.isdir(root):
            for d in ("bin", "etc", "tmp", "root"):
                os.makedirs(f"{root}/{d}")
            shutil.copy("/bin/busybox", f"{root}/bin/busybox")
            for applet in ("sh ls cat echo httpd wget nslookup sleep hostname ps kill env id touch mkdir nc ip ping true false stat dd head tail grep "
                           "date mount chmod rm test timeout seq wc cut sed awk sort uniq tr printf yes od").split():
                os.symlink("busybox", f"{root}/bin/{applet}")
            with open(f"{root}/etc/passwd", "w") as f:
                f.write("root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/:/bin/sh\n")
            with open(f"{root}/etc/group", "w") as f:
                f.write("root:x:0:\nuser:x:1000:\n")
            subprocess.run(["tar", "-C", root, "-cf", f"{self.dir}/busybox.tar", "."], check=True)
        self.run(SKIFF, "image", "import", "--data-dir", self.data, f"{self.dir}/busybox.tar", tag)
        return tag

    # ---- end ----

    def close(self):
        pod_uids = set()
        for d in glob.glob(f"{self.data}/kubelet/pods/*"):
            pod_uids.add(os.path.basename(d))
        if self.server and self.server.poll() is None:
            self.server.kill()
        if self.holder.poll() is None:
            self.holder.kill()
        self.holder.wait()
        if self.server:
            self.server.wait()
        self._remove_cgroups(pod_uids)
        shutil.rmtree(self.dir, ignore_errors=True)

    @staticmethod
    def _remove_cgroups(pod_uids):
        """Groups below kubepods that no process is in; deepest first."""
        for base in glob.glob("/sys/fs/cgroup/kubepods") + glob.glob("/sys/fs/cgroup/*/kubepods"):
            for path, _, _ in os.walk(base, topdown=False):
                try:
                    os.rmdir(path)
                except OSError:
                    pass
