"""The figures that a change must not lose, with room for a busy machine; bench/figures.py measures them properly."""

import os
import subprocess
import sys
import time

import pytest

from api import Api
from machine import ROOT, SKIFF, Machine, eventually

sys.path.insert(0, os.path.join(ROOT, "bench"))
from figures import memory_kb, start_once, ticks_s  # noqa: E402


def fresh_start():
    m = Machine()
    try:
        return start_once(m, "--no-agent")[1]
    finally:
        m.close()


def test_start_to_ready_within_200_ms():
    assert min(fresh_start() for _ in range(3)) <= 200


@pytest.fixture(scope="module")
def quiet():
    """A cluster on which nothing has happened but its start."""
    m = Machine()
    try:
        m.start()
        m.wait_node()
        m.import_busybox("quickstart/busybox:1")
        yield m
    finally:
        m.close()


def test_idle_memory_within_40_mb(quiet):
    def measured():
        return {name: memory_kb(pid, "Rss") / 1000 for name, pid in quiet.skiff_pids().items()}

    assert set(measured()) == {"server", "control-plane", "agent"}
    # Start-up's garbage goes a few seconds after the start.
    eventually(lambda: sum(measured().values()) <= 40, 15, f"40 MB in all, of {measured()}")


def test_idle_cpu_within_1_percent(quiet):
    pids = quiet.skiff_pids()

    def used():
        return sum(ticks_s(pid) for pid in pids.values())

    time.sleep(2)                  # the start's own work
    before, begin = used(), time.monotonic()
    time.sleep(10)                 # a lease's period
    assert (used() - before) / (time.monotonic() - begin) <= 0.01


def test_three_pods_run_within_1_s(quiet):
    api, took = Api(quiet), []
    pods = "/api/v1/namespaces/default/pods"
    for _ in range(3):
        begin = time.monotonic()
        quiet.kubectl("apply", "-f", f"{ROOT}/examples/quickstart.yaml")
        eventually(lambda: [p["status"].get("phase") for p in api.get(pods).json["items"]].count("Running") == 3, 20, "3 pods Running")
        took.append(time.monotonic() - begin)
        quiet.kubectl("delete", "-f", f"{ROOT}/examples/quickstart.yaml")
        eventually(lambda: not api.get(pods).json["items"], 30, "the pods are gone")
    api.close()
    assert min(took) <= 1, took


def test_stripped_binary_within_6_mb(tmp_path):
    subprocess.run(["strip", "-o", tmp_path / "skiff", SKIFF], check=True)
    assert (tmp_path / "skiff").stat().st_size <= 6_000_000
