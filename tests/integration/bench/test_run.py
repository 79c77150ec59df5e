"""`make bench` in its short form: tiny sizes, one round, no figures worth keeping."""

import os
import subprocess
import sys

import pytest

from benchmarks.bench.page import LATEST
from benchmarks.bench.rig import ROOT


def run(*arguments: str, timeout_s: float) -> list[str]:
    """The lines that it prints."""
    before = LATEST.read_bytes() if LATEST.exists() else b""
    command = [sys.executable, "-m", "benchmarks.bench", "--quick", "--rounds", "1", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=timeout_s)
    assert done.returncode == 0, done.stderr[-4_000:]
    assert (LATEST.read_bytes() if LATEST.exists() else b"") == before, "a short form keeps nothing"
    return done.stdout.splitlines()


def test_one_benchmark_runs_in_real_processes() -> None:
    lines = run("--only", "start", "--store", "sqlite", timeout_s=60)
    found = next(line for line in lines if line.startswith("start "))
    assert " sqlite " in found
    assert "≤ 4" in found


@pytest.mark.slow
@pytest.mark.skipif("TALLYHOOK_TEST_LONG" not in os.environ, reason="a minute; set TALLYHOOK_TEST_LONG=1")
@pytest.mark.timeout(600)
@pytest.mark.parametrize("store", ["postgresql", "sqlite"])
def test_every_benchmark_runs(store: str) -> None:
    lines = run("--store", store, timeout_s=500)
    found = {line[:22].strip() for line in lines if f" {store} " in line} - {""}
    assert found == {
        "intake",
        "intake vs naive",
        "intake vs queue",
        "intake processor time",
        "memory web",
        "settle",
        "settle limit",
        "memory worker",
        "redis commands",
        "sql statements",
        "submit",
        "submit, idle provider",
        "submit, bare client",
        "submit vs bare client",
        "start",
        "results-stream",
        "results-stream zstd",
        "results-stream memory",
        "pipeline",
    }
