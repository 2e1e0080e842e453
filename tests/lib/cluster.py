"""Several machines on a wire: a network namespace with a bridge for each subnet, each machine's eth0 a veth into one of them. The namespace is the
router between the subnets too, and forwards nothing but the machines' own addresses: what a real router would know."""

import os
import subprocess
import sys

from machine import SKIFF, Failure, Machine, eventually, holder, let_go

RELAY = os.path.join(os.path.dirname(os.path.abspath(__file__)), "relay.py")
SUBNETS = ["192.0.2", "198.51.100", "203.0.113"]


class Wire:
    def __init__(self, subnets=1):
        self.holder, self.pid = holder("--net")
        self.relays = {}
        self.subnets = SUBNETS[:subnets]
        self.sh("ip link set lo up; sysctl -qw net.ipv4.ip_forward=1; sysctl -qw net.bridge.bridge-nf-call-iptables=0 || true")
        for i, net in enumerate(self.subnets):
            self.sh(f"ip link add wire{i} type bridge forward_delay 0 && ip link set wire{i} up && ip addr add {net}.1/24 dev wire{i}")
        # A router that would pass packets of pods on would hide that they were sent to it.
        allowed = ", ".join(f"{net}.0/24" for net in self.subnets)
        self.sh(f"nft add table ip wire; nft add chain ip wire forward '{{ type filter hook forward priority filter; policy drop; }}'; "
                f"nft add rule ip wire forward ip saddr {{ {allowed} }} ip daddr {{ {allowed} }} accept")

    def enter(self, *argv):
        return ["nsenter", "-t", str(self.pid), "-n", "--", *argv]

    def sh(self, script):
        p = subprocess.run(self.enter("sh", "-ec", script), capture_output=True, text=True)
        if p.returncode:
            raise Failure(f"wire: {script}: {p.stdout}{p.stderr}")
        return p.stdout

    def plug(self, machine):
        """Gives the machine its eth0, with the same hardware address at each boot, as a card has it; returns the gateway's address."""
        net = machine.ip.rsplit(".", 1)[0]
        mac = ":".join(["02", "00", *(f"{int(x):02x}" for x in machine.ip.split("."))])
        subprocess.run(["ip", "link", "add", "name", f"m-{machine.name}", "netns", str(self.pid), "type", "veth", "peer", "name", "eth0",
                        "address", mac, "netns", str(machine.init)], check=True)
        self.sh(f"ip link set m-{machine.name} master wire{self._subnet(machine)} && ip link set m-{machine.name} up")
        return f"{net}.1"

    def unplug(self, machine):
        self.sh(f"ip link del m-{machine.name}")

    def slow(self, machine, delay_ms, loss, seed=1):
        """Every frame to and from the machine is late, and lost with a chance of `loss` percent: by netem, or by a relay where the kernel has none. Says which."""
        self.steady(machine)
        link, tap = f"m-{machine.name}", f"t-{machine.name}"
        netem = f"tc qdisc add dev {{}} root netem delay {delay_ms}ms loss {loss}%"
        try:
            self.sh(netem.format(link))
            machine.sh(netem.format("eth0"))
            return "netem"
        except Failure:
            pass
        p = subprocess.Popen(self.enter(sys.executable, RELAY, link, tap, str(delay_ms), str(loss), str(seed)), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self.relays[machine.name] = p
        if p.stdout.readline() != b"ready\n":
            raise Failure("the relay has not started")
        # The link is a cable now, no interface of the router: it answers for no address.
        self.sh(f"echo 1 > /proc/sys/net/ipv4/conf/{link}/arp_ignore; ip link set {link} nomaster; "
                f"ip link set {tap} master wire{self._subnet(machine)}; ip link set {tap} up")
        return "relay"

    def steady(self, machine):
        """The end of slow."""
        link = f"m-{machine.name}"
        p = self.relays.pop(machine.name, None)
        if p:
            p.stdin.close()
            p.wait()
            self.sh(f"ip link set {link} master wire{self._subnet(machine)}")
        for side in (self, machine):
            try:
                side.sh(f"tc qdisc del dev {link if side is self else 'eth0'} root netem")
            except Failure:
                pass

    def _subnet(self, machine):
        return self.subnets.index(machine.ip.rsplit(".", 1)[0])

    def cut(self, machine):
        self.sh(f"ip link set m-{machine.name} down")

    def mend(self, machine):
        self.sh(f"ip link set m-{machine.name} up")

    def close(self):
        for p in self.relays.values():
            p.kill()
            p.wait()
        let_go(self.holder)


class Cluster:
    """A server without pods of its own unless told otherwise, and agents that join it."""

    def __init__(self, nodes=2, subnets=1, names="node"):
        self.wire = Wire(subnets)
        self.machines = []
        try:
            self.master = self._add("master", f"{SUBNETS[0]}.10")
            self.nodes = [self._add(f"{names}{i + 1}", f"{SUBNETS[i % subnets]}.{11 + i}") for i in range(nodes)]
        except BaseException:
            self.close()
            raise

    def _add(self, name, ip):
        m = Machine(name, ip, self.wire)
        self.machines.append(m)
        return m

    def start(self, *server_flags, agent_flags=(), images=True):
        self.agent_flags = agent_flags
        self.master.start(*server_flags)
        line = eventually(self.token, 10, "a token")
        for m in self.nodes:
            m.join(line, *agent_flags)
        for m in self.machines if "--no-agent" not in server_flags else self.nodes:
            self.wait_ready(m.name)
            if images:
                m.import_busybox()

    def token(self, *flags):
        p = self.master.run(SKIFF, "token", "create", "--data-dir", self.master.data, "--kubeconfig", self.master.kubeconfig, *flags)
        return p.stdout.strip()

    def condition(self, name):
        """Ready's status of a node: True, False, Unknown; None when there is no such node."""
        code, out, _ = self.kubectl("get", "node", name, "-o", "jsonpath={.status.conditions[?(@.type=='Ready')].status}", check=False)
        return out if code == 0 else None

    def wait_ready(self, name, status="True", seconds=30):
        try:
            eventually(lambda: self.condition(name) == status, seconds, f"node {name} Ready={status}")
        except Failure as e:
            raise Failure(f"{e}\n{self.logs()}") from None

    def logs(self):
        return "\n".join(f"---- {m.name}\n{m.log_text(25)}" for m in self.machines if hasattr(m, "log"))

    def __getattr__(self, name):
        """kubectl, apply, get, pods and the like: the master's."""
        if name in ("master", "wire"):
            raise AttributeError(name)
        return getattr(self.master, name)

    def close(self):
        for m in reversed(self.machines):
            m.close()
        self.wire.close()
