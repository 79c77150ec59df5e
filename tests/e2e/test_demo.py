"""The demo in real processes: the books agree, and however it ends nothing is left running."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from app.cli.demo.demo import PROMPTS, Demo, run_demo
from app.cli.demo.expected import COUNTS

ROWS = 120
SEED = 81
"""With this seed all kinds of misbehaviour occur within ROWS tasks."""
WAIT_S = 60.0
DEMO = [sys.executable, "-m", "app.cli.main", "demo", "--json"]

has_proc = pytest.mark.skipif(not Path("/proc/self/cwd").exists(), reason="needs /proc")


def running_below(directory: Path) -> list[str]:
    """Command lines of the processes that work in a directory: all that a demo starts do."""
    found = []
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if directory in (process / "cwd").readlink().parents:
                found.append((process / "cmdline").read_text().replace("\0", " "))
        except OSError:  # it has ended meanwhile, or is not ours to look at
            continue
    return found


def wait_until(condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, f"waited {WAIT_S} s for {what}"
        time.sleep(0.05)


@pytest.fixture
def prompts(tmp_path: Path) -> Path:
    """The first rows of the examples."""
    path = tmp_path / "prompts.csv"
    path.write_text("\n".join(PROMPTS.read_text().split("\n")[: ROWS + 1]) + "\n")
    return path


def test_the_books_agree(prompts: Path, tmp_path: Path) -> None:
    keep = tmp_path / "demo"
    ended = subprocess.run(
        [*DEMO, "--prompts", str(prompts), "--seed", str(SEED), str(keep)],
        capture_output=True,
        text=True,
        check=False,
        timeout=WAIT_S + 60,
        # Nothing of the surroundings may reach the demo.
        env=os.environ | {"DATABASE_URL": "nonsense", "CLORO_API_KEY": "sk_live_x", "TALLYHOOK_HOST": "::1"},
    )
    assert ended.stdout, ended.stderr
    document = json.loads(ended.stdout.splitlines()[-1])
    assert document["agree"] is True, f"seed {SEED}: {ended.stdout}"
    assert ended.returncode == 0
    assert document["tasks"] == ROWS
    assert document["drift"] == 0
    assert document["ledger"]["held"] == 0
    assert document["ledger"]["posted"] == document["credits_charged"] > 0
    assert {name: document[name] for name in (*COUNTS, "verdicts")} == document["emulator"]
    for kind in ("failed", "duplicates", "swept", "recovered_submits"):
        assert document[kind] > 0, kind
    if Path("/proc/self/cwd").exists():
        assert running_below(keep) == []


@has_proc
@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow), signal.SIGKILL]
)
def test_nothing_is_left_when_it_is_ended(prompts: Path, tmp_path: Path, number: signal.Signals) -> None:
    keep = tmp_path / "demo"
    with subprocess.Popen(
        [*DEMO, "--prompts", str(prompts), str(keep)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell starts what it runs in the background with SIGINT ignored, and that is inherited.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as demo:
        wait_until(
            lambda: any("workers" in line for line in running_below(keep)) or demo.poll() is not None,
            "the worker",
        )
        demo.send_signal(number)
        output, _ = demo.communicate(timeout=WAIT_S)
    assert demo.returncode == {signal.SIGINT: 130, signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    if number is signal.SIGINT:
        assert json.loads(output)["error"]["code"] == "interrupted"
    if number is signal.SIGKILL:
        wait_until(lambda: not running_below(keep), "the end of all processes")
    assert running_below(keep) == []


def test_a_process_that_cannot_start_is_shown_with_its_log(
    prompts: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from app.errors import UserError

    monkeypatch.setattr("app.cli.demo.stack.EMULATOR_OPTIONS", ("--plan", "nosuchplan"))
    with pytest.raises(UserError, match="emulator does not start") as caught:
        asyncio.run(run_demo(Demo(prompts, SEED, None)))
    assert "nosuchplan" in str(caught.value.details)


@has_proc
def test_it_is_left_up_to_look_at_until_somebody_ends_it(prompts: Path, tmp_path: Path) -> None:
    keep = tmp_path / "demo"
    with subprocess.Popen(
        [*DEMO, "--prompts", str(prompts), "--keep", str(keep)], stdout=subprocess.PIPE, text=True
    ) as demo:
        assert demo.stdout is not None
        document = json.loads(demo.stdout.readline())
        form = urllib.parse.urlencode({"token": document["token"], "next": "/account"}).encode()
        request = urllib.request.Request(document["page"] + "/sign-in", form)
        opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
        with opener.open(request, timeout=WAIT_S) as page:
            assert "Ledger" in page.read().decode()
        demo.send_signal(signal.SIGTERM)
        demo.communicate(timeout=WAIT_S)
    assert document["agree"] is True, document["differences"]
    assert demo.returncode == 0
    assert running_below(keep) == []
