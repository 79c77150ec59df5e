"""The short forms of `make drill`."""

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
@pytest.mark.parametrize(
    ("form", "last"),
    [(["--short"], "database fails over"), (["--others", "--short"], "Redis fails over by two of three")],
    ids=["gone", "hindered"],
)
def test_two_machines_lose_and_double_nothing(form: list[str], last: str) -> None:
    """One is cut off, processes are killed, Redis and the database fail over; or what they need is slow,
    full, wrong, away for one of them. A process of its own, as it lives in namespaces of its own."""
    if missing := missing_tools():
        pytest.skip(f"not installed: {', '.join(missing)}")
    command = [sys.executable, "-m", "benchmarks.drill", *form]
    done = subprocess.run(command, check=False, capture_output=True, text=True, cwd=TOP)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    assert last in done.stdout
