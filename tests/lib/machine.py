"""A test machine: network, mount, PID, UTS, IPC and cgroup namespaces of its own and a memory limit, with everything that skiff writes under one temporary
folder.

Its first process holds the namespaces; when it ends, the kernel ends every process inside (containers too) and takes down links, mounts and nftables
tables. It ends with the test, however that ends. The machine's cgroup is removed by `close`, or by the next test. Nothing of a machine is reachable from,
or talks to, the host's own network. `crash` is the plug pulled: every process at once, the link first; `restart` is the boot after it."""

import glob
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
import uuid

import cgroup

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
SKIFF = os.environ.get("SKIFF", os.path.join(ROOT, "build", "skiff"))
CLIENTS = os.path.join(ROOT, "build", "clients")
# How many times slower than a usual one this machine may be: an emulated one is. Every time limit is multiplied by it.
SLOW = float(os.environ.get("SKIFF_SLOW", "1"))
# For a build with sanitizers.
os.environ.setdefault("LSAN_OPTIONS", f"suppressions={os.path.join(ROOT, 'tests', 'lib', 'lsan.supp')}:print_suppressions=0")


class Failure(AssertionError):
    """A command that should have worked did not; says which, and what it printed."""


def eventually(check, seconds=30.0, what="condition"):
    """Asks `check` until it answers something true, and returns that; the last answer or error is told when time is up."""
    end = time.monotonic() + seconds * SLOW
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


def holder(*unshare, script="exec cat", prefix=""):
    """A process that holds new namespaces, and the pid of the one inside. They end when their standard input does: at the latest with this test."""
    p = subprocess.Popen(["sh", "-ec", f'{prefix}exec unshare "$@"', "holder", *unshare, "--fork", "--kill-child", "sh", "-ec", script],
                         stdin=subprocess.PIPE)

    def inside():
        with open(f"/proc/{p.pid}/task/{p.pid}/children") as f:
            children = f.read().split()
        if not children:
            return None
        with open(f"/proc/{children[0]}/comm") as f:
            return int(children[0]) if f.read().strip() == "cat" else None

    return p, eventually(inside, 30, "the namespaces' first process")


def let_go(p):
    if p.poll() is None:
        p.kill()
    p.wait()
    p.stdin.close()


def web(replicas):
    """A service that answers with the name of one of so many pods."""
    return f"""
apiVersion: v1
kind: ReplicationController
metadata: {{name: web}}
spec:
  replicas: {replicas}
  selector: {{app: web}}
  template:
    metadata: {{labels: {{app: web}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers: [{{name: c, image: "test/busybox:1", command: [sh, -c, "hostname > /index.html; httpd -f -p 8080 -h /"]}}]
---
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{port: 80, targetPort: 8080}}]}}
"""


class Machine:
    MEMORY = 2 << 30
    swept = False
    made = 0

    def __init__(self, name="node1", ip="192.0.2.10", wire=None):
        """wire: what its eth0 is plugged into (see cluster.py); None: a link that leads nowhere."""
        if not Machine.swept:
            cgroup.remove_leftovers()
            Machine.swept = True
        self.name, self.ip, self.wire = name, ip, wire
        self.dir = tempfile.mkdtemp(prefix=f"{cgroup.PREFIX}{name}-")
        os.chmod(self.dir, 0o755)
        with open(f"{self.dir}/owner", "w") as f:
            f.write(cgroup.owner())
        self.data, self.run_dir = f"{self.dir}/data", f"{self.dir}/run"
        self.kubeconfig = f"{self.dir}/kubeconfig"
        self.binary = None  # the program of this machine, when it is not everybody's
        self.prefix = []  # of its command line, as in env A=B
        self.server = None
        self.port = 6443
        self.holder = self.group = None
        try:
            self.boot()
        except BaseException:
            self.close()
            raise

    def boot(self):
        """Makes the namespaces; what lies on disk is not touched. Each boot has an id of its own, and nothing in the run folder, which is in memory on a
        real machine."""
        Machine.made += 1
        self.group = cgroup.Group(f"{self.name}-{Machine.made}", self.MEMORY)
        shutil.rmtree(self.run_dir, ignore_errors=True)
        with open(f"{self.dir}/boot_id", "w") as f:
            f.write(f"{uuid.uuid4()}\n")
        self.holder, self.init = holder(
            "--cgroup", "--mount", "--net", "--pid", "--uts", "--ipc", "--mount-proc", "--propagation", "private", prefix=f"{self.group.move_script()}; ",
            script=f"{self.group.mount_script()}; mount --bind {self.dir}/boot_id /proc/sys/kernel/random/boot_id; hostname {self.name}; "
                   "exec env --ignore-signal=CHLD cat")
        self.group.settle(self.holder.pid, self.init)
        self._link(self.wire)

    def _link(self, wire):
        if wire:
            gateway = wire.plug(self)
            self.sh(f"ip link set lo up && ip link set eth0 up && ip addr add {self.ip}/24 dev eth0 && ip route add default via {gateway}")
            return
        self.sh("ip link set lo up && ip link add eth0 type veth peer name wire0 && ip link set wire0 up && ip link set eth0 up && "
                f"ip addr add {self.ip}/24 dev eth0 && ip route add default dev eth0")

    def enter(self, *argv, member=False):
        """argv as a command of the machine. member: counted in its cgroup and limited with it, as skiff and what it starts are; a client that only asks need
        not be, and starts sooner."""
        into = ["nsenter", "-t", str(self.init), "-m", "-n", "-p", "-u", "-i", *(["-C"] if member else []), "--", *argv]
        return ["sh", "-ec", f'{self.group.move_script()}; exec "$@"', "enter", *into] if member else into

    def run(self, *argv, check=True, timeout=60, input=None, env=None, member=False):
        p = subprocess.run(self.enter(*argv, member=member), capture_output=True, text=True, timeout=timeout * SLOW, input=input, cwd=ROOT,
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
        self._launch("server", "--kubeconfig", self.kubeconfig, "--listen", f"0.0.0.0:{self.port}", *flags)
        try:
            eventually(self.ready, 20, "/readyz")
        except Failure as e:
            raise Failure(f"{e}\n{self.log_text()}") from None
        return time.monotonic() - begin

    def join(self, line, *flags):
        """Starts `skiff agent` as `skiff token create` prints it."""
        self._launch(*line.split()[1:], *flags)

    def again(self):
        """What start or join did last, without waiting."""
        self._launch(*self.command)

    def _launch(self, *command):
        self.command = command
        self.log = open(f"{self.dir}/skiff.log", "ab")
        self.server = subprocess.Popen(
            self.enter(*self.prefix, self.binary or SKIFF, command[0], "--data-dir", self.data, "--run-dir", self.run_dir, "--pod-log-dir", f"{self.dir}/podlogs", "--node-name", self.name,
                       "--node-ip", self.ip, *command[1:], member=True),
            stdin=subprocess.DEVNULL, stdout=self.log, stderr=self.log)

    def crash(self):
        """Every process of the machine ends at once, and its peers hear nothing of it."""
        if self.wire:
            self.wire.unplug(self)
        let_go(self.holder)
        if self.server:
            self.server.wait()
        self.server = None
        self.group.remove()

    def restart(self):
        """Boots after a crash, and starts skiff as it was started last; does not wait for it."""
        self.boot()
        self.again()

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
        # What was launched a moment ago may not be skiff yet, but the shell that becomes it.
        eventually(lambda: self.skiff_pids() or self.server.poll() is not None, 10, "a process of skiff")
        pids = self.skiff_pids()
        if sig == signal.SIGKILL:
            for pid in pids.values():
                os.kill(pid, sig)
        elif pids:
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
        if self.server and self.server.poll() is None:
            self.server.kill()
        if self.holder:
            let_go(self.holder)
        if self.server:
            self.server.wait()
        if self.group:
            self.group.remove()
        shutil.rmtree(self.dir, ignore_errors=True)
