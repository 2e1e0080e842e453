"""quickstart.sh: up, up again, down, up, reset; without any network, and nothing left at the end."""

import os

from machine import ROOT


def test_quickstart(machine):
    env = {"SKIFF_DATA": machine.data, "SKIFF_RUN": machine.run_dir, "SKIFF_LOG_PODS": f"{machine.dir}/podlogs", "SKIFF_KUBECONFIG": machine.kubeconfig}

    def quickstart(*args):
        return machine.run(os.path.join(ROOT, "quickstart.sh"), *args, env=env, timeout=300, member=True).stdout

    links = machine.sh("ls /sys/class/net || ip -o link | wc -l")
    mounts = machine.sh("cut -d' ' -f2 /proc/mounts | sort")
    first = quickstart()
    assert first.count("answers") == 2 and "hello from hello-" in first
    assert "restarts: 0 -> 1" in first
    for part in ("server to /readyz", "three pods Running", "export KUBECONFIG"):
        assert part in first
    pids = machine.skiff_pids()
    again = quickstart()
    assert machine.skiff_pids() == pids, "a second run starts nothing"
    assert "replicationcontroller/hello unchanged" in again
    assert "skiff_in" in machine.sh("tc filter show dev eth0 ingress")
    assert "stopped" in quickstart("down")
    assert not machine.skiff_pids()
    assert "replicationcontroller/hello unchanged" in quickstart()

    uids = [p["metadata"]["uid"] for p in machine.get("pods")["items"]]
    groups = machine.sh("find /sys/fs/cgroup -type d -name 'pod*'")
    assert len(uids) == 3 and all(f"pod{u}" in groups for u in uids)
    assert "nothing is left" in quickstart("reset")
    assert not machine.skiff_pids()
    assert "conmon" not in machine.sh("ps -e -o stat=,comm= | grep -v ^Z")
    assert machine.sh("nft list ruleset") == ""
    assert "clsact" not in machine.sh("tc qdisc show")
    assert machine.sh("cut -d' ' -f2 /proc/mounts | sort") == mounts
    assert machine.sh("ls /sys/class/net || ip -o link | wc -l") == links
    for path in (machine.data, machine.run_dir, f"{machine.dir}/podlogs", machine.kubeconfig):
        assert not os.path.exists(path), path
    assert machine.sh("find /sys/fs/cgroup -type d -name 'pod*'") == ""


def test_quickstart_machines(machine):
    """Three machines inside this one."""
    env = {"SKIFF_DATA": machine.data, "SKIFF_RUN": machine.run_dir, "SKIFF_LOG_PODS": f"{machine.dir}/podlogs", "SKIFF_KUBECONFIG": machine.kubeconfig,
           "SKIFF_MACHINES": f"{machine.dir}/machines"}

    def quickstart(*args):
        return machine.run(os.path.join(ROOT, "quickstart.sh"), *args, env=env, timeout=300, member=True).stdout

    # The machine's own link has the addresses that the wire uses.
    machine.sh("ip link del eth0")
    out = quickstart("--machines", "3")
    for name in ("m1", "m2", "m3"):
        assert f"{name} " in out
    assert out.count("hello from hello-") == 3
    assert "skiff agent --server https://192.0.2.11:6443 --token" in out
    assert "replicationcontroller/hello unchanged" in quickstart("--machines", "3")
    assert "nothing is left" in quickstart("reset")
    assert "conmon" not in machine.sh("ps -e -o stat=,comm= | grep -v ^Z")
    assert "skiff" not in machine.sh("ps -e -o stat=,comm= | grep -v ^Z")
    assert "skiff" not in machine.sh("ip -o link")
    assert not os.path.exists(f"{machine.dir}/machines")
