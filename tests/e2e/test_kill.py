"""kill -9 of each process in turn, while clients write through the API and read through a service. Afterwards: no acknowledged write is missing, no
container ran twice or was restarted, and everything is back to steady state by itself. SKIFF_KILL_ROUNDS and SKIFF_KILL_SEED repeat a run."""

import os
import random
import signal
import subprocess
import threading
import time

from api import Api
from machine import SKIFF, Failure, eventually, web

ROUNDS = int(os.environ.get("SKIFF_KILL_ROUNDS", "9"))
SEED = int(os.environ.get("SKIFF_KILL_SEED", "1"))
COUNTER = "/api/v1/namespaces/default/configmaps/counter"


class Writer(threading.Thread):
    """Raises the counter by conditional updates. `acknowledged` is how often the server said 200; `unknown` how often it said nothing."""

    def __init__(self, machine):
        super().__init__()
        self.api, self.stop, self.acknowledged, self.unknown, self.error = Api(machine), threading.Event(), 0, 0, None

    def run(self):
        try:
            while not self.stop.is_set():
                self.once()
        except Exception as e:  # told by the test, which would wait for ever otherwise
            self.error = e

    def once(self):
        try:
            o = self.api.get(COUNTER)
        except ConnectionError:
            time.sleep(0.02)
            return
        if o.status != 200:
            return
        body = o.json
        body["data"] = {"n": str(int(body["data"]["n"]) + 1)}
        try:
            r = self.api.call("PUT", COUNTER, body)
        except ConnectionError:
            self.unknown += 1
            return
        if r.status == 200:
            self.acknowledged += 1
        else:
            assert r.status in (409, 429, 500, 503, 504), r


def containers(machine):
    return sorted((p["metadata"]["uid"], p["status"]["containerStatuses"][0]["containerID"], p["status"]["containerStatuses"][0]["restartCount"])
                  for p in machine.pods("app=web"))


def test_kill_each_process_in_turn(machine):
    rng = random.Random(SEED)
    machine.start()
    machine.wait_node()
    machine.import_busybox()
    machine.apply(web(3))
    machine.wait_pods("app=web", 3)
    machine.kubectl("create", "configmap", "counter", "--from-literal=n=0")
    before = containers(machine)
    ip = machine.get("service", "web")["spec"]["clusterIP"]
    # The service is asked all the time, in the machine; every answer that fails is counted there.
    asker = subprocess.Popen(machine.enter("sh", "-c", f"trap 'echo $ok $bad; exit' TERM; ok=0; bad=0; while :; do "
                                           f"if curl -s -m 1 -o /dev/null http://{ip}/; then ok=$((ok+1)); else bad=$((bad+1)); fi; sleep 0.02; done"),
                             stdout=subprocess.PIPE, text=True)
    eventually(lambda: machine.sh(f"curl -s -m 1 http://{ip}/").strip(), 10, "the service's first answer")
    writers = [Writer(machine) for _ in range(4)]
    for w in writers:
        w.start()
    try:
        for i in range(ROUNDS):
            time.sleep(rng.uniform(0.05, 0.6))  # the instant of the kill is what is random here
            victim = ("control-plane", "agent", "server")[i % 3]
            os.kill(machine.skiff_pids()[victim], signal.SIGKILL)
            if victim == "server":
                machine.server.wait()
                eventually(lambda: not machine.skiff_pids(), 10, "the children's end with their supervisor")
                machine.start()
            else:
                eventually(lambda: len(machine.skiff_pids()) == 3 and machine.ready(), 20, f"the {victim} again")
    finally:
        for w in writers:
            w.stop.set()
        for w in writers:
            w.join(60)
            w.api.close()
    for w in writers:
        assert w.error is None, w.error
    machine.wait_node()
    eventually(lambda: containers(machine) == before, 30, "the same containers as before")
    n = int(machine.get("configmap", "counter")["data"]["n"])
    acknowledged, unknown = sum(w.acknowledged for w in writers), sum(w.unknown for w in writers)
    assert acknowledged <= n <= acknowledged + unknown, (acknowledged, n, unknown)
    assert acknowledged > 20 * ROUNDS
    children = machine.sh("pgrep -P 1 -x sh || true; pgrep -x curl || true")
    asker_pid = [p for p in machine.sh("pgrep -f 'trap .echo .ok'").split()][0]
    machine.sh(f"kill {asker_pid}")
    ok, bad = map(int, asker.communicate(timeout=20)[0].split())
    assert ok > 50 and bad <= ok // 50, (ok, bad, children)
    # And it goes on working.
    machine.kubectl("scale", "rc", "web", "--replicas=4")
    machine.wait_pods("app=web", 4)
    health = machine.run(SKIFF, "status", "--kubeconfig", machine.kubeconfig, "--data-dir", machine.data, check=False)
    if health.returncode != 0:
        raise Failure(health.stdout + health.stderr)
