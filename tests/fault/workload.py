"""What runs on a cluster while things are killed, and what it demands:

1. Writers raise one counter by conditional updates, creators make objects. What was acknowledged is there at the end; the counter is what was acknowledged,
   give or take answers that never came.
2. Watchers see each revision once and in order, over every loss of their connection.
3. A pod on each node asks a service all the time, and is answered by pods that live.
4. A thread looks at the cgroups of all machines at once: no moment sees two containers under one pod's name.
5. Settled: nodes ready, as many pods as wanted and no more, and the containers that run are the API's. By itself, within a minute.

Clients sit on the wire, so that no machine's end takes them along."""

import glob
import json
import os
import random
import subprocess
import sys
import threading
import time
import uuid

from api import Api
from machine import Failure, eventually

NS = "work"
CONFIG_MAPS = f"/api/v1/namespaces/{NS}/configmaps"
WEB = 4
ORDINALS = 3
AWAY = [{"key": f"node.kubernetes.io/{k}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 0} for k in ("unreachable", "not-ready")]


def template(app, command, grace, **spec):
    return {"metadata": {"labels": {"app": app}},
            "spec": {"terminationGracePeriodSeconds": grace, **spec,
                     "containers": [{"name": "c", "image": "test/busybox:1", "command": ["sh", "-c", command]}]}}


def serve(app, grace, tolerations):
    t = template(app, "mkdir -p /www; hostname > /www/index.html; trap 'exit 0' TERM; httpd -f -p 8080 -h /www & wait $!", grace, nodeSelector={"work": "yes"},
                 **({"tolerations": tolerations} if tolerations is not None else {}))
    t["spec"]["containers"][0]["readinessProbe"] = {"httpGet": {"path": "/", "port": 8080}, "periodSeconds": 1}
    return t


def manifests(tolerations):
    """The pods of a StatefulSet have a grace: without one, their deletion would not wait for their node."""
    return [
        {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NS}},
        {"apiVersion": "v1", "kind": "ReplicationController", "metadata": {"name": "web", "namespace": NS},
         "spec": {"replicas": WEB, "selector": {"app": "web"}, "template": serve("web", 0, tolerations)}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web", "namespace": NS},
         "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]}},
        {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "ordinal", "namespace": NS},
         "spec": {"clusterIP": "None", "selector": {"app": "ordinal"}, "ports": [{"port": 80}]}},
        {"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "ordinal", "namespace": NS},
         "spec": {"replicas": ORDINALS, "serviceName": "ordinal", "podManagementPolicy": "Parallel", "selector": {"matchLabels": {"app": "ordinal"}},
                  "template": serve("ordinal", 2, tolerations)}},
    ]


class Client(threading.Thread):
    """Writes in a loop. An answer that does not come makes a write unknown; one that comes is final."""

    def __init__(self, cluster, number):
        super().__init__(daemon=True)
        self.api = Api(cluster.master, wire=cluster.wire, timeout=3)
        self.number, self.stop, self.error = number, threading.Event(), None
        self.acknowledged = self.unknown = 0

    def run(self):
        try:
            while not self.stop.is_set():
                self.once()
                self.stop.wait(0.03)
        except Exception as e:  # told at the end
            self.error = e

    def send(self, *args):
        """True: done; False: refused; None: nobody knows."""
        try:
            r = self.api.call(*args)
        except ConnectionError:
            return None
        assert r.status in (200, 201, 409, 429, 500, 503, 504), r
        if r.status in (500, 504):  # "the outcome is unknown" comes so
            return None
        return r.status in (200, 201)

    def close(self):
        self.stop.set()
        self.join(60)
        self.api.close()
        assert self.error is None, repr(self.error)


class Writer(Client):
    def once(self):
        try:
            o = self.api.get(f"{CONFIG_MAPS}/counter")
        except ConnectionError:
            return
        if o.status != 200:
            return
        body = o.json
        body["data"] = {"n": str(int(body["data"]["n"]) + 1)}
        done = self.send("PUT", f"{CONFIG_MAPS}/counter", body)
        self.acknowledged += done is True
        self.unknown += done is None


class Creator(Client):
    def __init__(self, cluster, number):
        super().__init__(cluster, number)
        self.names, self.doubtful, self.prefix = set(), set(), f"made-{uuid.uuid4().hex[:8]}"

    def once(self):
        name = f"{self.prefix}-{len(self.names) + len(self.doubtful)}"
        done = self.send("POST", CONFIG_MAPS, {"metadata": {"name": name}, "data": {"by": str(self.number)}})
        if done:
            self.names.add(name)
        else:
            self.doubtful.add(name)
        self.stop.wait(0.1)


class Churner(Client):
    """Deletes a pod now and then, so that there are always some on their way up or down."""

    def __init__(self, cluster, seed):
        super().__init__(cluster, 0)
        self.rng, self.deleted = random.Random(seed), 0

    def once(self):
        try:
            r = self.api.get(f"/api/v1/namespaces/{NS}/pods")
            pods = [p["metadata"]["name"] for p in r.json["items"] if p["metadata"]["labels"]["app"] != "ask"] if r.status == 200 else []
            if pods:
                self.deleted += self.api.call("DELETE", f"/api/v1/namespaces/{NS}/pods/{self.rng.choice(pods)}").status == 200
        except ConnectionError:
            pass
        self.stop.wait(self.rng.uniform(0, 0.6))


WATCH = r"""
import http.client, json, ssl, sys, time
host, port, ca, cert, key, path = sys.argv[1:]
context = ssl.create_default_context(cafile=ca)
context.load_cert_chain(cert, key)
def ask(p):
    c = http.client.HTTPSConnection(host, int(port), context=context, timeout=3)
    c.request("GET", p)
    return c.getresponse()
rv = json.load(ask(path))["metadata"]["resourceVersion"]
print(json.dumps({"type": "LIST", "rv": rv}), flush=True)
while True:
    try:
        r = ask(f"{path}?watch=1&allowWatchBookmarks=true&resourceVersion={rv}")
        if r.status in (429, 500, 503, 504):
            time.sleep(0.1)
            continue
        if r.status != 200:
            print(json.dumps({"type": "REFUSED", "rv": rv, "why": r.read().decode()}), flush=True)
            break
        while True:
            line = r.readline()
            if not line.endswith(b"\n"):
                break
            e = json.loads(line)
            o = e["object"]
            if e["type"] == "ERROR":
                print(json.dumps({"type": "REFUSED", "rv": rv, "why": line.decode()}), flush=True)
                sys.exit()
            rv = o["metadata"]["resourceVersion"]
            print(json.dumps({"type": e["type"], "rv": rv, "name": o["metadata"].get("name"), "n": (o.get("data") or {}).get("n")}), flush=True)
    except (OSError, http.client.HTTPException):
        time.sleep(0.05)
"""


class Watcher(threading.Thread):
    def __init__(self, cluster):
        super().__init__(daemon=True)
        m, pki = cluster.master, f"{cluster.master.data}/pki"
        self.p = subprocess.Popen(cluster.wire.enter(sys.executable, "-c", WATCH, m.ip, str(m.port), f"{pki}/ca.crt", f"{pki}/admin.crt", f"{pki}/admin.key",
                                                     CONFIG_MAPS), stdout=subprocess.PIPE, text=True)
        self.events = [json.loads(self.p.stdout.readline())]
        self.start()

    def run(self):
        for line in self.p.stdout:
            self.events.append(json.loads(line))

    def close(self):
        self.p.kill()
        self.p.wait()
        self.join()
        self.p.stdout.close()

    def changes(self):
        return [e for e in self.events if e["type"] in ("ADDED", "MODIFIED", "DELETED")]

    def check(self, first, last):
        """The counter went from first to last."""
        refused = [e for e in self.events if e["type"] == "REFUSED"]
        assert not refused, refused
        revisions = [int(e["rv"]) for e in self.changes()]
        assert all(a < b for a, b in zip(revisions, revisions[1:])), "a revision came twice or too late"
        counted = [int(e["n"]) for e in self.changes() if e["name"] == "counter"]
        assert counted == list(range(first + 1, last + 1)), "a value of the counter was not told"
        added = [e["name"] for e in self.changes() if e["type"] == "ADDED"]
        assert len(added) == len(set(added))
        return revisions


class Doubles(threading.Thread):
    """Looks at what runs on all machines at once."""

    def __init__(self, cluster):
        super().__init__(daemon=True)
        self.c, self.stop, self.found, self.looks = cluster, threading.Event(), [], 0
        self.names = {}

    def running(self):
        """(machine, namespace/name, uid, container) of every container in which a process lives."""
        out = []
        for m in self.c.machines:
            top = f"{m.group.memory_path()}/kubepods"
            for path in glob.glob(f"{top}/pod*/*/") + glob.glob(f"{top}/*/pod*/*/"):
                uid, container = path.split("/")[-3][3:], path.split("/")[-2]
                if self.lives(path):
                    out.append((m.name, self.name(m, uid), uid, container, path))
        return out

    @staticmethod
    def lives(path):
        try:
            with open(f"{path}/cgroup.procs") as f:
                return f.read() != ""
        except OSError:
            return False

    def name(self, m, uid):
        if uid not in self.names:
            found = glob.glob(f"{m.dir}/podlogs/*_{uid}")
            if not found:
                return uid
            self.names[uid] = "/".join(os.path.basename(found[0]).split("_")[:2])
        return self.names[uid]

    def run(self):
        while not self.stop.wait(0.04):
            self.looks += 1
            by_name = {}
            for one in self.running():
                by_name.setdefault(one[1], []).append(one)
            for name, several in by_name.items():
                # One may have ended before the other was looked at: both still live.
                if len(several) > 1 and all(self.lives(one[4]) for one in several) and len(self.found) < 20:
                    self.found.append((name, [one[:4] for one in several]))

    def close(self):
        self.stop.set()
        self.join()


class Workload:
    def __init__(self, cluster, writers=3, creators=1, tolerations=AWAY):
        self.c = cluster
        self.clients, self.watchers, self.doubles = [], [], None
        c = cluster
        self.api = Api(c.master, wire=c.wire, timeout=3)
        for n in c.nodes:
            c.kubectl("label", "node", n.name, "work=yes", "--overwrite")
        c.apply({"apiVersion": "v1", "kind": "List", "items": manifests(tolerations)})
        eventually(lambda: c.get("serviceaccount", "default", "-n", NS), 10, "the default account")
        ip = c.get("service", "web", "-n", NS)["spec"]["clusterIP"]
        askers = []
        for m in c.machines:
            ask = f"while :; do r=$(timeout 3 wget -qO- http://{ip}/ 2>/dev/null) && echo $r || echo -; sleep 0.1; done"
            p = template("ask", ask, 0, nodeName=m.name, tolerations=[{"operator": "Exists"}])
            askers.append({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": f"ask-{m.name}", "namespace": NS, **p["metadata"]}, "spec": p["spec"]})
        c.apply({"apiVersion": "v1", "kind": "List", "items": askers})
        self.api.post(CONFIG_MAPS, {"metadata": {"name": "counter"}, "data": {"n": "0"}})  # or it is there
        self.wait_settled()
        self.first = self.counter()
        self.watchers = [Watcher(c) for _ in range(2)]
        self.clients = [Writer(c, i) for i in range(writers)] + [Creator(c, i) for i in range(creators)]
        self.doubles = Doubles(c)
        for thread in [*self.clients, self.doubles]:
            thread.start()
        self.began = time.time()

    def counter(self):
        return int(eventually(lambda: self.api.get(f"{CONFIG_MAPS}/counter").json["data"]["n"], 20, "the counter"))

    # ---- steady state ----

    def list(self, path):
        r = self.api.get(path)
        if r.status != 200:
            raise Failure(f"{path}: {r}")
        return r.json["items"]

    def pods(self):
        return self.list(f"/api/v1/namespaces/{NS}/pods")

    @staticmethod
    def ready(o):
        return any(c["type"] == "Ready" and c["status"] == "True" for c in o.get("status", {}).get("conditions", []))

    def complaints(self):
        """What keeps this from being the steady state."""
        out = [f"node {n['metadata']['name']} is not ready" for n in self.list("/api/v1/nodes") if not self.ready(n)]
        pods = self.pods()
        for app, n in (("web", WEB), ("ordinal", ORDINALS), ("ask", len(self.c.machines))):
            of = [p for p in pods if p["metadata"]["labels"]["app"] == app]
            if len(of) != n:
                out.append(f"{len(of)} pods of {app}: {[p['metadata']['name'] for p in of]}")
            out += [f"{p['metadata']['name']} is not ready" for p in of if not self.ready(p) or "deletionTimestamp" in p["metadata"]]
        wanted = {(p["spec"].get("nodeName"), p["metadata"]["uid"]) for p in pods}
        runs = {(one[0], one[2]) for one in Doubles(self.c).running()}
        if wanted != runs:
            out.append(f"containers run for {runs - wanted} and not for {wanted - runs}")
        return out

    def wait_settled(self, seconds=60):
        """Returns the seconds that it took, answers of the service included."""
        begin = time.monotonic()
        last = []

        def settled():
            last[:] = self.complaints()
            return not last

        try:
            eventually(settled, seconds, "the steady state")
            names = {p["metadata"]["name"] for p in self.pods() if p["metadata"]["labels"]["app"] == "web"}
            since = time.time()
            for m in self.c.machines:
                eventually(lambda m=m: self.answered(m, since, names), 10, f"answers of living pods to {m.name}")
        except Failure as e:
            raise Failure(f"{e}\n{last}\n{self.c.logs()}") from None
        return time.monotonic() - begin

    def containers(self, *apps):
        return sorted((p["metadata"]["uid"], p["status"]["containerStatuses"][0]["containerID"], p["status"]["containerStatuses"][0]["restartCount"])
                      for p in self.pods() if p["metadata"]["labels"]["app"] in (apps or ("web", "ordinal", "ask")))

    # ---- the service ----

    def answers(self, machine):
        """(seconds since 1970, who answered; "-": nobody) as the pod on that machine saw them."""
        out = []
        for path in glob.glob(f"{machine.dir}/podlogs/{NS}_ask-{machine.name}_*/c/*.log"):
            with open(path, errors="replace") as f:
                for line in f:
                    part = line.split()
                    if len(part) == 4:
                        day, fraction = part[0].rstrip("Z").split(".") if "+" not in part[0] else part[0].split("+")[0].split(".")
                        out.append((time.mktime(time.strptime(day, "%Y-%m-%dT%H:%M:%S")) - time.timezone + float(f"0.{fraction}"), part[3]))
        return sorted(out)

    def answered(self, machine, since, names):
        """Have the last three answers since then come from these pods?"""
        last = [who for at, who in self.answers(machine) if at >= since][-3:]
        return len(last) == 3 and set(last) <= names

    def silence(self, machine, since):
        """(answers, when there was none, the longest time without one), in seconds since then."""
        seen = [(at, who) for at, who in self.answers(machine) if at >= since]
        good = [at for at, who in seen if who != "-"]
        return len(good), [round(at - since, 1) for at, who in seen if who == "-"], max((b - a for a, b in zip(good, good[1:])), default=float("inf"))

    # ---- the end ----

    def finish(self):
        """Stops everything, checks it, and returns figures as text. Whatever happened, the counter goes on first."""
        writers = [x for x in self.clients if isinstance(x, Writer)]
        before = sum(w.acknowledged for w in writers)
        eventually(lambda: sum(w.acknowledged for w in writers) > before, 20, "another update")
        for x in self.clients:
            x.close()
        creators = [x for x in self.clients if isinstance(x, Creator)]
        n = self.counter()
        acknowledged, unknown = sum(w.acknowledged for w in writers), sum(w.unknown for w in writers)
        assert self.first + acknowledged <= n <= self.first + acknowledged + unknown, (self.first, acknowledged, n, unknown)
        there = {o["metadata"]["name"] for o in self.list(CONFIG_MAPS)}
        lost = set().union(*(x.names for x in creators)) - there
        assert not lost, f"acknowledged and lost: {lost}"
        for w in self.watchers:
            eventually(lambda w=w: w.changes() and w.changes()[-1]["rv"] == self.watchers[0].changes()[-1]["rv"] and
                       any(e["n"] == str(n) for e in w.changes()[-20:]), 20, "the watchers' last event")
        seen = [w.check(self.first, n) for w in self.watchers]
        assert seen[0] == seen[1], "two watchers saw different things"
        told = {e["name"] for e in self.watchers[0].changes() if e["type"] == "ADDED"}
        assert set().union(*(x.names for x in creators)) <= told
        self.doubles.close()
        assert not self.doubles.found, self.doubles.found
        asked = [self.silence(m, self.began) for m in self.c.machines]
        answers, misses = sum(a[0] for a in asked), sum(len(a[1]) for a in asked)
        return (f"{acknowledged} updates and {sum(len(x.names) for x in creators)} creates acknowledged, {unknown} and "
                f"{sum(len(x.doubtful) for x in creators)} unanswered or refused; {len(seen[0])} events to each of 2 watchers; {self.doubles.looks} looks for "
                f"doubles; the service answered {answers} times, {misses} not")

    def close(self):
        for x in self.clients:
            x.stop.set()
        for w in self.watchers:
            w.close()
        if self.doubles:
            self.doubles.close()
        self.api.close()
