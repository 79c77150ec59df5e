"""The parts of `tallyhook up`: real processes that die, hang and say nothing; ports in use; who runs where.

The whole of it is tried from an installed wheel, in tests/e2e/test_wheel.py.
"""

import asyncio
import fcntl
import io
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from app.cli.migrate import is_under_runner
from app.cli.up.lines import LINE_BYTES_MAX, Lines, Reader, readable
from app.cli.up.part import WAITS_S, Part, Parts
from app.cli.up.ports import port_for
from app.cli.up.up import already_running, emulator_part
from app.config import EMULATOR_URL
from app.errors import UserError
from app.local import supervisor
from app.local.processes import Processes
from app.local.running import AlreadyRunning, Running, record, sole_runner, who_runs
from tests.servers.processes import free_port

WAIT_S = 30.0
READY = """echo '{"event": "ready", "url": "http://127.0.0.1:1"}'"""


class Scene:
    """Parts of a test's own, a clock that is set, and what was said."""

    def __init__(self, processes: Processes, folder: Path) -> None:
        self.now_s = 1000.0
        self.screen = io.StringIO()
        self.parts = Parts(processes, Lines(self.screen, as_json=False), folder, lambda: self.now_s)

    def part(self, script: str) -> Part:
        return Part("web", ["/bin/sh", "-c", script], os.environ, "its memory is gone")

    async def looks_until(self, text: str) -> None:
        async with asyncio.timeout(WAIT_S):
            while text not in self.screen.getvalue():
                await self.parts.look()
                await asyncio.sleep(0.01)


@pytest.fixture
async def scene(tmp_path: Path) -> AsyncIterator[Scene]:
    with Processes(tmp_path / "up") as processes:
        made = Scene(processes, tmp_path)
        yield made
        made.parts.kill_all()
        async with asyncio.timeout(WAIT_S):
            await asyncio.gather(*(part.ended.wait() for part in made.parts.all))


async def test_whoever_takes_a_port_first_leaves_the_next_one(scene: Scene) -> None:
    """Two that are started at once, each in its directory, both see the same port free."""
    with socket.create_server(("127.0.0.1", 0)) as first:
        taken = scene.part("echo in use; exit 1")
        taken.listens = ("127.0.0.1", first.getsockname()[1])
        await scene.parts.start(taken)
        found = await scene.parts.on_its_port(taken, lambda: scene.part(READY + "; exec sleep 60"))
    assert found.is_ready and scene.parts.all == [found]
    assert f"somebody else took 127.0.0.1:{taken.listens[1]}" in scene.screen.getvalue()


async def test_what_ends_on_a_port_that_is_free_is_not_tried_on_another(scene: Scene) -> None:
    part = scene.part("echo no key; exit 1")
    part.listens = ("127.0.0.1", free_port())
    await scene.parts.start(part)
    with pytest.raises(UserError, match="does not start"):
        await scene.parts.on_its_port(part, lambda: scene.part(READY))


async def test_what_dies_is_started_again_each_time_later_and_at_last_ends_all(scene: Scene) -> None:
    part = scene.part(READY + "; pwd; exit 7")
    await scene.parts.start(part)
    for wait_s in WAITS_S:
        await scene.parts.until_ready(part)
        assert part.url == "http://127.0.0.1:1"
        await scene.looks_until(f"web ended by itself with 7; it is started again in {wait_s:g} s")
        assert "its memory is gone" in scene.screen.getvalue()
        scene.now_s += wait_s - 0.1
        await scene.parts.look()
        assert part.process is not None and not part.process.running, "not yet"
        scene.now_s += 0.2
        await scene.parts.look()
    await scene.parts.until_ready(part)
    with pytest.raises(UserError, match="6 times in a row") as caught:
        await scene.looks_until("never said")
    assert str(scene.parts._cwd) in caught.value.details, "its last lines"


async def test_one_that_ran_for_long_has_all_its_tries_again(scene: Scene) -> None:
    part = scene.part(READY + "; read x")  # there is no standard input: it ends at once
    part.deaths = len(WAITS_S)
    await scene.parts.start(part)
    await scene.parts.until_ready(part)
    scene.now_s += 3_600
    await scene.looks_until("it is started again in 1 s")


async def test_a_control_token_is_kept_and_a_new_one_is_said(scene: Scene) -> None:
    ready = """echo '{"event": "ready", "url": "http://0.0.0.0:8090", "control_token": "'"$$"'"}'"""
    part = scene.part(f"{ready}; read -r _ < /dev/null; exit 1")
    await scene.parts.start(part)
    await scene.parts.until_ready(part)
    first = part.control_token
    assert first.isdecimal()
    assert part.url == "http://127.0.0.1:8090", "as this machine reaches it"
    await scene.looks_until("ended by itself")
    scene.now_s += WAITS_S[0]
    await scene.looks_until("web has a new control token: ")
    assert first not in scene.screen.getvalue()


async def test_what_never_gets_ready_ends_all_with_its_last_words(scene: Scene) -> None:
    part = scene.part("echo no >&2; exit 2")
    await scene.parts.start(part)
    with pytest.raises(UserError, match="web does not start") as caught:
        await scene.parts.until_ready(part)
    assert caught.value.details == ["no"]
    part = scene.part("""echo '{"error": {"message": "no key", "remedy": "set it"}}'; exit 2""")
    await scene.parts.start(part)
    with pytest.raises(UserError, match="web does not start: no key") as caught:
        await scene.parts.until_ready(part)
    assert caught.value.remedy == "set it"
    assert "web      | Error: no key" in scene.screen.getvalue()
    part = scene.part("exec sleep 60")
    await scene.parts.start(part)
    scene.now_s += 3_600
    with pytest.raises(UserError, match="web is not ready after 60 s"):
        await scene.parts.until_ready(part)


async def test_one_that_hears_nothing_is_ended_at_once_when_that_is_asked(scene: Scene) -> None:
    part = scene.part("trap '' TERM INT; " + READY + "; while :; do sleep 60; done")
    await scene.parts.start(part)
    await scene.parts.until_ready(part)
    stopping = asyncio.create_task(scene.parts.stop(part))
    await asyncio.sleep(0.1)  # for it to be asked
    assert not stopping.done()
    scene.parts.kill_all()
    async with asyncio.timeout(WAIT_S):
        await stopping


LATE = """
import signal, sys, time
from app.local import supervisor
set_handler = signal.signal
def late(number, handler):
    time.sleep(0.2)
    return set_handler(number, handler)
signal.signal = late
sys.exit(supervisor.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("name", "code"), [("TERM", 128 + signal.SIGTERM), ("ALRM", 128 + signal.SIGKILL)])
def test_a_signal_before_its_supervisor_is_ready_is_heard_too(tmp_path: Path, name: str, code: int) -> None:
    lock = tmp_path / "lock"
    lock.touch()
    script = f"kill -{name} $PPID; sleep 60 & wait"
    command = [sys.executable, "-c", LATE, str(lock), "/bin/sh", "-c", script]
    with lock.open() as held:
        fcntl.flock(held, fcntl.LOCK_SH)
        assert subprocess.run(command, timeout=WAIT_S).returncode == code


async def test_two_signals_at_once_are_both_heard(scene: Scene) -> None:
    """Its supervisor has a second thread, to which the kernel may give both."""
    for _ in range(4):
        part = scene.part(READY + "; exec sleep 60")
        await scene.parts.start(part)
        await scene.parts.until_ready(part)
        assert part.process is not None
        part.process.kill()
        part.process.ask_to_stop()
        async with asyncio.timeout(supervisor.GRACE_S - 5):
            await part.ended.wait()


def test_lines_are_whole_bounded_and_obeyed_by_no_terminal() -> None:
    taken: list[tuple[str, object]] = []
    reader = Reader(lambda line, event: taken.append((line, event)))
    reader.feed(b'half a line, {"event"')
    reader.feed(b': 1}\nnext\r\n{"event": "x", "level": "error", "n": 1}\n{"no": 1}\n')
    reader.feed(b"x" * (LINE_BYTES_MAX + 1))
    reader.feed("ü".encode()[:1])
    reader.end()
    assert [line for line, _ in taken] == [
        'half a line, {"event": 1}',
        "next",
        '{"event": "x", "level": "error", "n": 1}',
        '{"no": 1}',
        "x" * (LINE_BYTES_MAX + 1),
        "\ufffd",
    ]
    assert [event is not None for _, event in taken] == [False, False, True, False, False, False]
    told = {"timestamp": "2026-11-27T14:17:34.5Z", "level": "warning", "event": "e", "a": "b c", "n": [1]}
    assert readable(told) == '14:17:34 warning: e a="b c" n=[1]'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(
    ("env", "coloured"), [({}, True), ({"NO_COLOR": "1"}, False), ({"TERM": "dumb"}, False)]
)
def test_colours_are_for_terminals_that_want_them(
    monkeypatch: pytest.MonkeyPatch, env: dict[str, str], coloured: bool
) -> None:
    for name in ("NO_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in env.items():
        monkeypatch.setenv(name, value)
    screen = Terminal()
    lines = Lines(screen, as_json=False)
    lines.show("web", "\x1b[2Jprinted", None)
    lines.show("web", "", {"event": "e", "level": "error", "exception": "a\nb"})
    lines.say("ending")
    assert ("\x1b[36mweb" in screen.getvalue()) is coloured
    assert "\x1b[2J" not in screen.getvalue()
    assert screen.getvalue().count("\n") == 4, "each line of a traceback has its prefix"


def test_json_stays_json() -> None:
    screen = Terminal()
    lines = Lines(screen, as_json=True)
    lines.show("web", "printed", None)
    lines.show("worker", "", {"event": "e"})
    lines.say("ending")
    told = [json.loads(line) for line in screen.getvalue().splitlines()]
    assert [line["process"] for line in told] == ["web", "worker", "up"]


def test_a_port_in_use_is_passed_over_unless_it_was_asked_for() -> None:
    port = free_port()
    with socket.create_server(("127.0.0.1", port)):
        assert port < port_for("web", "127.0.0.1", port) < port + 20
        with pytest.raises(UserError, match=f"something listens on 127.0.0.1:{port}") as caught:
            port_for("web", "127.0.0.1", port, asked_by="PORT")
        assert "set PORT to another port" in caught.value.remedy
    assert port_for("web", "127.0.0.1", port, asked_by="PORT") == port
    assert port_for("api", "127.0.0.1", port, promised=port) > port
    assert port_for("web", "127.0.0.1", 0) > 0


def test_one_runs_in_a_directory_and_the_others_are_told_who(tmp_path: Path) -> None:
    assert who_runs(tmp_path) is None
    me = Running(os.getpid(), "2026-11-27T14:00:00+00:00", "http://127.0.0.1:8080", "http://127.0.0.1:8090")
    with sole_runner(tmp_path) as folder:
        record(folder, me)
        assert who_runs(tmp_path) == me
        with pytest.raises(AlreadyRunning) as caught, sole_runner(tmp_path):
            pass
    error = already_running(caught.value.running)
    assert f"process {os.getpid()}" in error.message
    assert "web at http://127.0.0.1:8080, the emulator at http://127.0.0.1:8090" in error.message
    assert who_runs(tmp_path) is None
    (tmp_path / "up" / "up.json").write_text("{}")  # of one that was killed
    assert who_runs(tmp_path) is None
    assert "just being started" in already_running(None).message


@pytest.mark.parametrize(
    ("environment", "waits"),
    [
        ({}, False),
        ({"HONCHO_PROCESS_NAME": "release.1"}, True),
        ({"PS": "release.1", "PORT": "5200"}, True),
        ({"PS": "release.1", "DYNO": "release.1"}, False),
        ({"DYNO": "release.4122"}, False),
        ({"PS": "some text of a shell"}, False),
    ],
)
def test_a_release_waits_only_beside_others(environment: dict[str, str], waits: bool) -> None:
    assert is_under_runner(environment) is waits


@pytest.mark.parametrize("port", ["x", "-1", "8\u00b2"])
def test_a_port_of_the_emulator_that_is_no_number_is_refused(port: str) -> None:
    with pytest.raises(UserError, match="--port in --emulator"):
        emulator_part(["--port", port])


def test_a_port_that_no_machine_has_is_for_the_listener_to_refuse() -> None:
    assert port_for("web", "127.0.0.1", 70_000) == 70_000


def test_no_emulator_is_where_commands_of_other_directories_look_for_one() -> None:
    part = emulator_part(())
    assert part.listens is not None
    assert part.listens[1] != int(EMULATOR_URL.rpartition(":")[2])
