"""One machine with a running cluster, shared by the tests of a file; each test has a namespace of its own."""

import os
import sys
import uuid

import pytest

sys.path.insert(0, os.path.join(os.path.dirname(__file__), "..", "lib"))
from cluster import Wire  # noqa: E402
from machine import Machine  # noqa: E402


def pytest_collection_modifyitems(items):
    if os.geteuid() != 0:
        for item in items:
            item.add_marker(pytest.mark.skip(reason="needs root: machines are namespaces"))


@pytest.fixture(scope="session")
def cluster():
    m = Machine()
    try:
        m.start()
        m.wait_node()
        m.import_busybox()
        yield m
    finally:
        m.close()


@pytest.fixture
def machine():
    """A machine of the test's own, nothing started on it."""
    m = Machine(name="own" + uuid.uuid4().hex[:6])
    try:
        yield m
    finally:
        m.close()


@pytest.fixture
def wire():
    w = Wire()
    yield w
    w.close()


@pytest.fixture
def things(wire):
    """What a test makes, on the wire or not, and must be closed: a list, closed from its end."""
    made = []
    yield made
    for t in reversed(made):
        t.close()


@pytest.fixture
def ns(cluster):
    name = "t-" + uuid.uuid4().hex[:8]
    cluster.kubectl("create", "namespace", name)
    yield name
    cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item, call):
    """The server's last lines beside a failure."""
    outcome = yield
    report = outcome.get_result()
    m = next((item.funcargs[f] for f in ("cluster", "machine", "three", "apart") if f in getattr(item, "funcargs", {})), None)
    if report.when == "call" and report.failed and m is not None and hasattr(m, "log"):
        report.sections.append(("skiff.log", m.logs() if hasattr(m, "logs") else m.log_text(40)))
