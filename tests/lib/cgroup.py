"""A machine's cgroup: one group in every hierarchy, below the test's own, which a cgroup namespace makes the root of all that the machine sees. Its memory
is limited. The group's name tells its owner, so what a killed test left is found and removed by the next one. v1, v2 and both at once."""

import glob
import os
import shutil
import signal
import subprocess
import tempfile
import time

PREFIX = "skiff-test-"


def start_time(pid):
    """When a process began, in ticks; None when there is none. A pid alone may be another's by now."""
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().rsplit(")", 1)[1].split()[19]
    except OSError:
        return None


def owner():
    return f"{os.getpid()}-{start_time(os.getpid())}"


def is_dead(text):
    """Of an owner() text."""
    pid, _, start = text.partition("-")
    return pid.isdigit() and start_time(pid) != start


def hierarchies():
    """(file system, its option or None, where it is mounted, the test's own group in it)"""
    own = {}
    with open("/proc/self/cgroup") as f:
        for line in f:
            _, names, path = line.rstrip("\n").split(":", 2)
            own[names] = path
    found = []
    with open("/proc/self/mountinfo") as f:
        for line in f:
            left, _, right = line.rstrip("\n").partition(" - ")
            point, (kind, _, options) = left.split()[4], right.split()[:3]
            if kind == "cgroup2":
                found.append((kind, None, point, own.get("")))
            elif kind == "cgroup":
                names = [o for o in options.split(",") if o not in ("rw", "ro", "xattr")]
                found.append((kind, ",".join(names), point, own.get(",".join(names))))
    return [h for h in found if h[3] is not None]


def _write(path, text):
    with open(path, "w") as f:
        f.write(text)


def _read(path):
    with open(path) as f:
        return f.read()


class Group:
    """made, used as the shell's own group by `enter`, and removed with all that runs in it."""

    def __init__(self, name, memory):
        self.hierarchies = hierarchies()
        self.v2_only = all(h[0] == "cgroup2" for h in self.hierarchies)
        self.paths = []
        try:
            for kind, option, point, own in self.hierarchies:
                base = self._base(point, own.rstrip("/"))
                path = f"{point}{base}/{PREFIX}{owner()}-{name}"
                os.makedirs(path, exist_ok=True)
                self.paths.append(path)
                if option and "cpuset" in option.split(","):
                    for file in ("cpuset.cpus", "cpuset.mems"):
                        _write(f"{path}/{file}", _read(f"{os.path.dirname(path)}/{file}"))
                if option and "memory" in option.split(","):
                    _write(f"{path}/memory.limit_in_bytes", str(memory))
            if self.v2_only:
                _write(f"{self.paths[0]}/memory.max", str(memory))
        except BaseException:
            self.remove()
            raise

    def _base(self, point, own):
        """Controllers are passed on only below a group that has them and no processes: the test's own, or the nearest one above it that is such."""
        while self.v2_only:
            wanted = _read(f"{point}{own}/cgroup.controllers").split()
            try:
                if own and not {"cpu", "memory", "pids"} <= set(wanted):
                    raise OSError(f"{own} has only {wanted}")
                _write(f"{point}{own}/cgroup.subtree_control", " ".join(f"+{c}" for c in wanted))
                break
            except OSError:
                if not own:
                    raise
                own = os.path.dirname(own).rstrip("/")
        return own

    def move_script(self):
        """Shell: the one who runs it becomes a member."""
        return " && ".join(f"echo 0 > {path}/cgroup.procs" for path in self.leaves())

    def leaves(self):
        """Under v2 a group whose controllers are passed on holds no process: the machine's own live in one below it."""
        return [f"{p}/init" for p in self.paths] if self.v2_only and os.path.isdir(f"{self.paths[0]}/init") else self.paths

    def settle(self, *pids):
        """v2: takes the machine's first processes out of its root."""
        if self.v2_only:
            os.makedirs(f"{self.paths[0]}/init", exist_ok=True)
            for pid in pids:
                _write(f"{self.paths[0]}/init/cgroup.procs", str(pid))

    def mount_script(self):
        """Shell, inside the new namespaces: what a machine of its own would have at /sys/fs/cgroup."""
        top = "/sys/fs/cgroup"
        lines = [f"umount -Rl {top}"]
        if not self.v2_only:
            lines.append(f"mount -t tmpfs -o mode=755 cgroup {top}")
        for kind, option, point, _ in self.hierarchies:
            where = point if point.startswith(top) else f"{top}/{option or 'unified'}"
            flag = "" if kind == "cgroup2" else f"-o {option if '=' not in option else 'none,' + option}"
            lines.append(f"mkdir -p {where} && mount -t {kind} {flag} cgroup {where}")
        return " && ".join(lines)

    def memory_path(self):
        """Its folder in the hierarchy that counts memory."""
        for (_, option, _, _), path in zip(self.hierarchies, self.paths):
            if self.v2_only or (option and "memory" in option.split(",")):
                return path
        return None

    def remove(self):
        _remove(self.paths)
        self.paths = []


def _remove(paths):
    """Groups, those below them, and whatever still runs there."""
    end = time.monotonic() + 10
    while paths and time.monotonic() < end:
        for path in paths:
            for directory, _, _ in os.walk(path, topdown=False):
                try:
                    for pid in _read(f"{directory}/cgroup.procs").split():
                        os.kill(int(pid), signal.SIGKILL)
                    os.rmdir(directory)
                except OSError:
                    pass
        paths = [p for p in paths if os.path.isdir(p)]
        if paths:
            time.sleep(0.02)


def remove_leftovers():
    """Of tests that were killed: their machines' groups with what runs in them, and their folders."""
    for _, _, point, own in hierarchies():
        found = subprocess.run(["find", point, "-maxdepth", "6", "-type", "d", "-name", f"{PREFIX}*"], capture_output=True, text=True).stdout.split()
        _remove([p for p in found if is_dead("-".join(os.path.basename(p)[len(PREFIX):].split("-")[:2]))])
    for file in glob.glob(f"{tempfile.gettempdir()}/{PREFIX}*/owner"):
        try:
            if is_dead(_read(file)):
                shutil.rmtree(os.path.dirname(file), ignore_errors=True)
        except OSError:
            pass
