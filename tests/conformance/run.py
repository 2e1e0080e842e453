"""Starts machines, gives them the images, runs e2e.test inside the first one, and sums up what it said. See run.sh."""

import argparse
import glob
import os
import re
import shutil
import signal
import subprocess
import sys
import xml.etree.ElementTree as xml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
sys.path.insert(0, os.path.join(ROOT, "tests", "lib"))
from cluster import Cluster  # noqa: E402
from machine import SKIFF, Machine  # noqa: E402

UPSTREAM = os.path.join(ROOT, "build", "upstream")

def arguments():
    p = argparse.ArgumentParser(prog="run.sh")
    p.add_argument("focus", nargs="?", default="", help="a regular expression that names of cases must have")
    p.add_argument("-n", "--nodes", type=int, default=1, help="1: one machine; more: that many in a cluster, the first with the API server")
    p.add_argument("-p", "--procs", type=int, default=4, help="cases at a time; those marked [Serial] run one at a time behind the others")
    p.add_argument("-t", "--minutes", type=int, default=60)
    p.add_argument("-s", "--skip", default="", help="a regular expression of names to leave out")
    p.add_argument("-o", "--output", default=os.path.join(ROOT, "build", "conformance", "last"))
    p.add_argument("-l", "--labels", default="Conformance", help="a ginkgo label filter")
    return p.parse_args()


def start(nodes):
    """Returns what to close, the machine with the API server, and all machines."""
    if nodes == 1:
        m = Machine("node1")
        try:
            m.start()
            m.wait_node()
        except BaseException:
            m.close()
            raise
        return m, m, [m]
    cluster = Cluster(nodes - 1)
    try:
        cluster.start(images=False)
    except BaseException:
        cluster.close()
        raise
    return cluster, cluster.master, cluster.machines


def import_images(machines):
    for m in machines:
        m.sh("mount --make-rshared /")  # as systemd leaves it; volumes that propagate both ways want it
    for archive in sorted(glob.glob(f"{UPSTREAM}/images/*.tar")):
        for m in machines:
            m.run(SKIFF, "image", "import", "--data-dir", m.data, archive, timeout=300)


def run_suite(master, args):
    chosen = [f"--label-filter={args.labels}"] + [f"--focus={args.focus}"] * bool(args.focus) + [f"--skip={args.skip}"] * bool(args.skip)
    argv = [f"{UPSTREAM}/ginkgo", "run", f"--procs={args.procs}", f"--timeout={args.minutes}m", "--no-color", "--silence-skips", *chosen,
            f"{UPSTREAM}/e2e.test", "--", f"--kubeconfig={master.kubeconfig}", f"--kubectl-path={UPSTREAM}/kubectl", "--provider=skeleton",
            f"--report-dir={args.output}", f"--num-nodes={args.nodes}", f"--kubelet-root-dir={master.data}/kubelet"]
    env = {"HOME": master.dir, "KUBE_TEST_REPO_LIST": f"{ROOT}/tests/conformance/repos.yaml", "KUBECACHEDIR": f"{master.dir}/kubecache"}
    with open(f"{args.output}/e2e.log", "ab") as log:
        p = subprocess.Popen(master.enter(*argv), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=master.dir, env={**os.environ, **env})
        try:
            p.wait(timeout=args.minutes * 60 + 120)
        except subprocess.TimeoutExpired:
            p.kill()


def results(output):
    """name -> (passed | failed, first line of the message); what was skipped by its own judgement counts as skipped."""
    out = {}
    for path in glob.glob(f"{output}/junit*.xml"):
        for case in xml.parse(path).iter("testcase"):
            name = re.sub(r"^\[It\] ", "", case.get("name"))
            if not name.startswith("[sig-"):
                continue
            failure = case.find("failure") if case.find("failure") is not None else case.find("error")
            skipped = case.find("skipped")
            if failure is not None:
                out[name] = ("failed", (failure.get("message") or failure.text or "").strip().split("\n")[0][:300])
            elif skipped is None:
                out[name] = ("passed", case.get("time") or "")
            elif "skipped" in (skipped.get("message") or ""):
                if skipped.get("message").strip() != "skipped":
                    out.setdefault(name, ("skipped", skipped.get("message").split("\n")[0][:300]))
    return out


def summarize(output):
    found = results(output)
    lines, areas = [], {}
    for name, (what, text) in sorted(found.items(), key=lambda i: (i[1][0], i[0])):
        area = re.search(r"\[(sig-[a-z-]+)\]", name).group(1)
        areas.setdefault(area, dict.fromkeys(("passed", "failed", "skipped"), 0))[what] += 1
        lines.append(f"{what} {name}" + (f"\n\t{text}" if what != "passed" else ""))
    lines.append("")
    for area, n in sorted(areas.items()):
        lines.append(f"{area}: {n['passed']} passed, {n['failed']} failed, {n['skipped']} skipped")
    total = [sum(n[w] for n in areas.values()) for w in ("passed", "failed", "skipped")]
    lines.append("{} passed, {} failed, {} skipped".format(*total))
    with open(f"{output}/summary.txt", "w") as f:
        f.write("\n".join(lines) + "\n")
    print("\n".join(l for l in lines if not l.startswith("passed")))
    return total


def main():
    args = arguments()
    shutil.rmtree(args.output, ignore_errors=True)
    os.makedirs(args.output)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    closing, master, machines = start(args.nodes)
    try:
        import_images(machines)
        run_suite(master, args)
    finally:
        for m in machines:
            if os.path.exists(f"{m.dir}/skiff.log"):
                shutil.copy(f"{m.dir}/skiff.log", f"{args.output}/skiff-{m.name}.log")
        closing.close()
    passed, failed, _ = summarize(args.output)
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
