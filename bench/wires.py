"""Paths for bench/machines.py to send bytes along: between pods, and between two hosts on the same wire that know nothing of pods. A bare host passes
packets on to one inner host by a veth pair, so that a packet takes as many hops as a pod's: inner host, host, wire, host, inner host."""

import glob
import json
import os
import subprocess
import time

from machine import SKIFF, Failure, Machine

IMAGE = "test/iperf3:1"
PROGRAM = "/usr/bin/iperf3"
PORT = 5201
SECONDS = 2
RENO = "sysctl -qw net.ipv4.tcp_congestion_control=reno"  # allowed in every namespace; some others pace themselves and hide what a path can carry
# A command before what else runs: in a session of its own, which is what the kernel shares CPU among where nothing else is said.
FIRST = '[ ! -e /proc/self/autogroup ] || echo -20 >/proc/self/autogroup; exec nice -n -20 "$@"'


def process_of(machine, program, ip):
    """A process, as the machine numbers them, of this program in a pod with this address."""
    return next(p for p in machine.sh(f"pgrep -x {program}").split() if f"{ip}/" in machine.run("nsenter", "-t", p, "-n", "ip", "-4", "addr").stdout)


class BareHosts:
    """Names: "bare hosts", "bare hosts over VXLAN". The inner hosts have an address for each: a route of its own leads to it."""

    def __init__(self, cluster):
        self.hosts = []
        for i in (1, 2):
            m = Machine(f"bare{i}", f"192.0.2.{20 + i}", cluster.wire)
            cluster.machines.append(m)
            self.hosts.append(m)
            m.inner = m.sh("unshare --net sleep infinity >/dev/null 2>&1 </dev/null & echo $!").strip()
            time.sleep(0.2)
            m.sh(f"sysctl -qw net.ipv4.ip_forward=1; ip link add inner type veth peer name eth0 netns {m.inner}; ip link set inner up; "
                 f"ip addr add 198.18.1{i}.1/24 dev inner; ip addr add 198.18.2{i}.1/24 dev inner; ip route add 198.18.1{3 - i}.0/24 via 192.0.2.{23 - i}; "
                 f"ip link add over type vxlan id 7 dstport 4789 local 192.0.2.{20 + i} remote 192.0.2.{23 - i}; ip addr add 198.18.3.{i}/24 dev over; "
                 f"ip link set over up; ip route add 198.18.2{3 - i}.0/24 via 198.18.3.{3 - i}")
            self.inside(m, f"ip link set lo up; ip link set eth0 up; ip addr add 198.18.1{i}.2/24 dev eth0; ip addr add 198.18.2{i}.2/24 dev eth0; "
                           f"ip route add default via 198.18.1{i}.1; ip route add 198.18.2{3 - i}.0/24 via 198.18.2{i}.1 src 198.18.2{i}.2 mtu 1450")
        self.inside(self.hosts[0], RENO)
        server = self.hosts[1]
        subprocess.Popen(server.enter("nsenter", "-t", server.inner, "-n", PROGRAM, "-s"), stdout=subprocess.DEVNULL)

    def inside(self, machine, script):
        machine.sh(f"nsenter -t {machine.inner} -n sh -ec '{script}'")

    def path(self, name):
        return self.hosts[0], ["-t", self.hosts[0].inner, "-n"], {"bare hosts": "198.18.12.2", "bare hosts over VXLAN": "198.18.22.2"}[name]


class Iperf:
    """A pod on each of two machines, with iperf3 and its libraries as the image, and what all paths share: how a round is measured."""

    def __init__(self, cluster, near, far):
        self.near = near
        for m in (near, far):
            self._import(m)
        for name, m in (("client", near), ("server", far)):
            cluster.make("/api/v1/namespaces/default/pods", {"metadata": {"name": name, "labels": {"app": name}}, "spec": {
                "nodeName": m.name, "terminationGracePeriodSeconds": 0, "containers": [{"name": "c", "image": IMAGE, "command": [PROGRAM, "-s"]}]}})
        service = cluster.make("/api/v1/namespaces/default/services", {"metadata": {"name": "server"}, "spec": {
            "selector": {"app": "server"}, "ports": [{"port": PORT}]}})
        self.service_ip = service["spec"]["clusterIP"]
        self.server_ip = cluster.wait_pods("app=server", 1)[0]["status"]["podIP"]
        ip = cluster.wait_pods("app=client", 1)[0]["status"]["podIP"]
        self.client = process_of(near, "iperf3", ip)
        near.sh(f"nsenter -t {self.client} -n {RENO}")

    def _import(self, m):
        root = f"{m.dir}/iperf3"
        libraries = [w for w in subprocess.run(["ldd", PROGRAM], capture_output=True, text=True, check=True).stdout.split() if w.startswith("/")]
        os.makedirs(f"{root}/tmp")
        for f in [PROGRAM, *libraries]:
            os.makedirs(root + os.path.dirname(f), exist_ok=True)
            subprocess.run(["cp", "-L", f, root + f], check=True)
        subprocess.run(["tar", "-C", root, "-cf", f"{root}.tar", "."], check=True)
        m.run(SKIFF, "image", "import", "--data-dir", m.data, f"{root}.tar", IMAGE)

    def pod_path(self):
        return self.near, ["-t", self.client, "-n", "-m"], self.server_ip

    def service_path(self):
        return self.near, ["-t", self.client, "-n", "-m"], self.service_ip

    def favour(self):
        """Paths are compared, not who runs at their ends: servers leave their cgroups (whose memory accounts and CPU shares only pods have), and come before
        what else runs on this host."""
        for pid in subprocess.run(["pgrep", "-x", "iperf3"], capture_output=True, text=True, check=True).stdout.split():
            for group in glob.glob("/sys/fs/cgroup/cgroup.procs") + glob.glob("/sys/fs/cgroup/*/cgroup.procs"):
                with open(group, "w") as f:
                    f.write(pid)
            for task in os.listdir(f"/proc/{pid}/task"):
                os.setpriority(os.PRIO_PROCESS, int(task), -20)
            if os.path.exists(f"/proc/{pid}/autogroup"):
                with open(f"/proc/{pid}/autogroup", "w") as f:
                    f.write("-20")

    def measure(self, machine, where, ip):
        """(Gbit/s, CPU seconds a gigabyte of both ends and of the kernel's threads for packets) of a round."""
        for _ in range(10):
            before = softirq_s()
            p = machine.run("setsid", "-w", "sh", "-c", FIRST, "sh", "nsenter", *where, PROGRAM, "-c", ip, "-p", str(PORT), "-J", "-t", str(SECONDS), "-O", "0.3",
                            check=False, timeout=SECONDS + 20)
            answer = json.loads(p.stdout)
            end = answer["end"]
            if "sum_received" in end:
                used = end["cpu_utilization_percent"]
                cpu = (used["host_total"] + used["remote_total"]) / 100 * end["sum_sent"]["seconds"] + softirq_s() - before
                return end["sum_received"]["bits_per_second"] / 1e9, cpu / (end["sum_received"]["bytes"] / 1e9)
            time.sleep(0.3)
        raise Failure(f"iperf3 to {ip}: {answer.get('error')}")


def softirq_s():
    total = 0
    for path in glob.glob("/proc/[0-9]*/comm"):
        try:
            with open(path) as f:
                if not f.read().startswith("ksoftirqd/"):
                    continue
            with open(os.path.dirname(path) + "/schedstat") as f:
                total += int(f.read().split()[0]) / 1e9
        except OSError:
            pass
    return total
