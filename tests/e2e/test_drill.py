"""The short form of `make drill`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.servers.machines import missing_tools

TOP = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")
def test_two_machines_lose_and_double_nothing() -> None:
    """One is cut off, processes are killed, Redis and the database fail over: a process of its own, as it
    lives in namespaces of its own."""
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    command = [sys.executable, "-m", "benchmarks.drill", "--short"]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=TOP)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert "database fails over" in done.stdout
