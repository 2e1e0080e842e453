"""Client libraries, each by a small program in its own language under tests/interop."""

import os
import subprocess
import sys

import pytest

from machine import ROOT


@pytest.fixture(scope="session")
def python_client():
    """A virtual environment with the official client, made once under build/."""
    venv = os.path.join(ROOT, "build", "venv")
    python = os.path.join(venv, "bin", "python")
    if subprocess.run([python, "-c", "import kubernetes"], capture_output=True).returncode != 0 if os.path.exists(python) else True:
        subprocess.run([sys.executable, "-m", "venv", venv], check=True)
        subprocess.run([python, "-m", "pip", "install", "-q", "kubernetes"], check=True)
    return python


def test_python(cluster, ns, python_client):
    p = cluster.run(python_client, os.path.join(ROOT, "tests", "interop", "python_client.py"), cluster.kubeconfig, ns, timeout=120)
    assert p.stdout.strip().endswith("ok")
