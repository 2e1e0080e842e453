"""What tests stand on: machines are limited, and a test that is killed leaves nothing."""

import glob
import os
import signal
import subprocess
import sys
import tempfile

import cgroup
from machine import Machine, eventually


class Small(Machine):
    MEMORY = 64 << 20


def test_memory_is_limited():
    m = Small("small")
    try:
        grow = "import sys; b = bytearray(int(sys.argv[1]) << 20); print(len(b))"
        assert m.run(sys.executable, "-c", grow, "16", member=True).stdout == f"{16 << 20}\n"
        assert m.run(sys.executable, "-c", grow, "200", member=True, check=False).returncode == -signal.SIGKILL
    finally:
        m.close()


def groups():
    return [p for _, _, point, _ in cgroup.hierarchies() for p in subprocess.run(["find", point, "-maxdepth", "6", "-type", "d", "-name", f"{cgroup.PREFIX}*"],
                                                                                capture_output=True, text=True).stdout.split()]


def test_killed_test_leaves_nothing():
    script = ("import os, subprocess, sys; from machine import Machine; from cluster import Wire; w = Wire(); m = Machine('doomed', wire=w); "
              "subprocess.Popen(m.enter('sleep', '1000', member=True)); print(m.dir, m.init, w.pid, flush=True); sys.stdin.read()")
    p = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                         env={**os.environ, "PYTHONPATH": os.path.dirname(cgroup.__file__)})
    folder, *pids = p.stdout.readline().split()
    owner = f"{p.pid}-{cgroup.start_time(p.pid)}"
    assert any(owner in g for g in groups())
    p.kill()
    p.communicate()
    eventually(lambda: not any(os.path.exists(f"/proc/{pid}") for pid in pids), 10, "the end of its machines")
    cgroup.remove_leftovers()
    assert not any(owner in g for g in groups())
    assert not os.path.exists(folder)
    assert os.path.dirname(folder) == tempfile.gettempdir() and not glob.glob(f"{tempfile.gettempdir()}/{cgroup.PREFIX}doomed-*")
