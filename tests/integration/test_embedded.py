"""The embedded Valkey and our processes: one server for all, and none left when its users are gone."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import redis
from structlog.testing import capture_logs

from app.cli.doctor.redis import check_redis
from app.cli.runs.submit_file import next_steps
from app.config import Settings, load_settings
from app.local import embedded
from app.local.embedded import EmbeddedError, embedded_valkey, is_valkey_used, running_valkey
from app.local.processes import Processes, supervisor_command
from tests.servers.processes import free_port

WAIT_S = 60.0
USER = """
import sys, time
from app.config import load_settings
from app.local.embedded import embedded_valkey
with embedded_valkey(load_settings()) as url:
    print(url, flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REDIS_URL", raising=False)
    monkeypatch.setenv("TALLYHOOK_DATA_DIR", str(tmp_path / "da ta"))
    # One that stays free while its server is away.
    monkeypatch.setattr(embedded, "free_port", lambda _host: free_port())
    return load_settings()


def wait_until(condition: Callable[[], Any], what: str) -> None:
    until = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < until, f"waited {WAIT_S} s for {what}"
        time.sleep(0.02)


def start_user() -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", USER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_it_keeps_what_it_is_given_and_drops_nothing(settings: Settings) -> None:
    assert running_valkey(settings) is None
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        assert client.config_get("appendonly")["appendonly"] == "yes"
        assert client.config_get("maxmemory-policy")["maxmemory-policy"] == "noeviction"
        assert url.startswith("redis://127.0.0.1:")
        client.set("kept", "yes")
    assert running_valkey(settings) is None
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"yes"


def test_redis_url_goes_before_it(settings: Settings) -> None:
    own = settings.model_copy(update={"redis_url": "redis://elsewhere/1"})
    with embedded_valkey(own) as url:
        assert url == running_valkey(own) == "redis://elsewhere/1"
    assert not (settings.data_dir / "valkey").exists()


def test_all_users_share_one_server_and_the_last_one_ends_it(settings: Settings) -> None:
    with start_user() as first, start_user() as second:
        assert first.stdout is not None
        assert second.stdout is not None
        assert first.stdin is not None
        url = first.stdout.readline().strip()
        assert second.stdout.readline().strip() == url
        first.stdin.close()
        first.wait(WAIT_S)
        # Whoever started it is perhaps gone; the other still has it.
        assert running_valkey(settings) == url
        # Killed, with no chance to tidy up.
        second.kill()
    wait_until(lambda: running_valkey(settings) is None, "the end of the server")


def test_a_dead_record_is_recognised(settings: Settings) -> None:
    with embedded_valkey(settings):
        pass
    record = settings.data_dir / "valkey" / "server.json"
    with socket.create_server(("127.0.0.1", 0)) as stranger:
        # Another program has the port now, and answers nothing.
        record.write_text(json.dumps({"port": stranger.getsockname()[1]}))
        assert running_valkey(settings) is None
        for broken in ("", "[]", '{"port": "x"}', '{"port": 1}'):
            record.write_text(broken)
            assert running_valkey(settings) is None
        with embedded_valkey(settings) as url:
            assert running_valkey(settings) == url


def test_a_server_that_was_killed_is_replaced(settings: Settings) -> None:
    with embedded_valkey(settings) as url:
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: running_valkey(settings) is None, "its end")
        with embedded_valkey(settings) as again:
            assert running_valkey(settings) == again


def kill_server(url: str) -> None:
    with redis.Redis.from_url(url) as client:
        os.kill(int(client.info("server")["process_id"]), signal.SIGKILL)


def test_f20_a_server_that_dies_comes_back_where_its_users_look_for_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WATCH_EVERY_S", 0.05)
    with start_user() as first:
        assert first.stdout is not None
        url = first.stdout.readline().strip()
        with embedded_valkey(settings) as ours, redis.Redis.from_url(url) as client:
            assert ours == url
            client.set("kept", "yes")
            client.execute_command("WAITAOF", 1, 0, 2_000)
            # By whoever is there: both, and then, when its first starter is gone, the one that is left.
            for _ in range(2):
                kill_server(url)
                wait_until(lambda: running_valkey(settings) == url, "its return")
                assert client.get("kept") == b"yes"
                first.kill()
                first.wait(WAIT_S)
    wait_until(lambda: running_valkey(settings) is None, "its end with its last user")
    assert not is_valkey_used(settings)


def test_f20_one_that_is_killed_as_it_starts_keeps_its_files(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        client.set("kept", "yes")
        client.execute_command("WAITAOF", 1, 0, 2_000)
    killed: list[int] = []

    def is_ours(port: int, home: Path, seen: Callable[[int, Path], bool] = embedded._is_ours) -> bool:
        if killed or not seen(port, home):
            return seen(port, home)
        killed.append(port)
        kill_server(f"redis://127.0.0.1:{port}/0")
        return False

    monkeypatch.setattr(embedded, "_is_ours", is_ours)
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        assert killed
        assert client.get("kept") == b"yes"


def test_f20_whoever_comes_while_it_is_dead_takes_no_other_port(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WATCH_EVERY_S", WAIT_S)
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 1.0)
    with embedded_valkey(settings) as url:
        kill_server(url)
        wait_until(lambda: running_valkey(settings) is None, "its end")
        port = int(url.rpartition(":")[2].removesuffix("/0"))
        # Another program has the port just now: nobody moves elsewhere, where the others would not look.
        with socket.create_server(("127.0.0.1", port)), embedded_valkey(settings) as while_taken:
            assert while_taken == url
            assert running_valkey(settings) is None
        with embedded_valkey(settings) as again:
            assert again == url == running_valkey(settings)


def test_f20_a_port_that_nobody_else_looks_at_is_given_up_for_another(settings: Settings) -> None:
    with embedded_valkey(settings) as url:
        port = int(url.rpartition(":")[2].removesuffix("/0"))
    with socket.create_server(("127.0.0.1", port)), embedded_valkey(settings) as other:
        assert other != url


def test_f20_a_server_that_hangs_gets_no_second_one(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WATCH_EVERY_S", 0.05)
    monkeypatch.setattr(embedded, "END_TIMEOUT_S", 0.1)
    monkeypatch.setattr(embedded, "PROBE_TIMEOUT_S", 0.1)
    with embedded_valkey(settings) as url:
        with redis.Redis.from_url(url) as client:
            pid = int(client.info("server")["process_id"])
        os.kill(pid, signal.SIGSTOP)
        try:
            with embedded_valkey(settings) as ours:
                assert ours == url
            assert running_valkey(settings) is None
        finally:
            os.kill(pid, signal.SIGCONT)
        wait_until(lambda: running_valkey(settings) == url, "its answer")
        with redis.Redis.from_url(url) as client:
            assert int(client.info("server")["process_id"]) == pid


def test_f20_a_server_that_cannot_write_its_file_is_there_all_the_same(settings: Settings) -> None:
    """As on a full disk: it answers PING with an error, and nobody takes it for dead."""
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        (settings.data_dir / "valkey" / "dump.rdb").mkdir()
        client.config_set("save", "3600 1")
        client.set("x", "1")
        client.bgsave()
        wait_until(lambda: client.info("persistence")["rdb_last_bgsave_status"] == "err", "the failure")
        with pytest.raises(redis.ResponseError, match="MISCONF"):
            client.ping()
        assert running_valkey(settings) == url
        with embedded_valkey(settings) as ours:
            assert ours == url
        client.config_set("save", "")


async def test_f20_doctor_and_submit_report_the_truth_about_it(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "WATCH_EVERY_S", WAIT_S)
    monkeypatch.setattr(embedded, "STOP_TIMEOUT_S", 1.0)
    with embedded_valkey(settings) as url:
        assert {check.state for check in await check_redis(settings)} == {"ok"}
        kill_server(url)
        wait_until(lambda: running_valkey(settings) is None, "its end")
        (check,) = await check_redis(settings)
        assert (check.state, "does not answer" in check.detail) == ("fault", True)
        assert "the embedded Valkey does not answer" in next_steps("0" * 32, settings, None, woken=False)[1]
    (check,) = await check_redis(settings)
    assert (check.state, "not running" in check.detail) == ("ok", True)
    assert "worker" in next_steps("0" * 32, settings, None, woken=False)[1]


def test_f20_its_files_are_nobody_else_s_to_read(settings: Settings) -> None:
    home = settings.data_dir / "valkey"
    before = os.umask(0o022)
    try:
        for _ in range(2):
            with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
                client.set("x", "1")
                client.bgrewriteaof()
            modes = {path: path.stat().st_mode & 0o777 for path in (settings.data_dir, *home.rglob("*"))}
            assert len(modes) > 6
            wrong = {path: oct(mode) for path, mode in modes.items() if mode & 0o077}
            assert not wrong
            # As a version before left them.
            (home / "server.json").chmod(0o644)
            home.chmod(0o755)
    finally:
        os.umask(before)


def _cut(files: Path) -> None:
    for path in files.glob("*.aof"):
        path.write_bytes(path.read_bytes()[:-3])


def _spoil(files: Path) -> None:
    for path in files.glob("*.incr.aof"):
        path.write_bytes(b"\x00garbage" * 20 + path.read_bytes())


def _spoil_base(files: Path) -> None:
    for path in files.glob("*.base.*"):
        path.write_bytes(b"REDIS0011 not a dump")


def _spoil_manifest(files: Path) -> None:
    for path in files.glob("*.manifest"):
        path.write_bytes(b"\xff\x00nothing of the kind\n")


def _lose_base(files: Path) -> None:
    for path in files.glob("*.base.*"):
        path.unlink()


def _replace(files: Path) -> None:
    shutil.rmtree(files)
    files.write_text("a file")


@pytest.mark.parametrize("spoil", [_cut, _spoil, _spoil_base, _spoil_manifest, _lose_base, _replace])
def test_f20_files_that_cannot_be_read_keep_it_from_nothing(
    settings: Settings, spoil: Callable[[Path], None]
) -> None:
    for _ in range(2):
        with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
            client.set("x", "1")
        spoil(settings.data_dir / "valkey" / "appendonlydir")
        with capture_logs() as logs, embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
            client.set("x", "2")
        lines = [line for line in logs if line["event"] == "embedded_valkey_files_set_aside"]
        assert len(lines) == int(spoil is not _cut)
        with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
            assert client.get("x") == b"2"


def test_f20_files_that_are_not_to_blame_stay(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        client.set("x", "1")
    with monkeypatch.context() as patched:
        # The first time its supervisor ends before there is a server.
        commands = iter([lambda *_: [sys.executable, "-c", ""], supervisor_command, supervisor_command])
        patched.setattr("app.local.embedded.supervisor_command", lambda *given: next(commands)(*given))
        with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
            assert client.get("x") == b"1"
    with monkeypatch.context() as patched:
        patched.setattr("app.local.embedded.CONFIGURATION", "no-such-setting {host}{port}{home}\n")
        with pytest.raises(EmbeddedError, match="no-such-setting"), embedded_valkey(settings):
            pass
    with embedded_valkey(settings) as url, redis.Redis.from_url(url) as client:
        assert client.get("x") == b"1"


def test_why_it_does_not_start_is_reported(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.local.embedded.CONFIGURATION", "no-such-setting {host}{port}{home}\n")
    with pytest.raises(EmbeddedError, match="no-such-setting"), embedded_valkey(settings):
        pass


def test_a_data_directory_that_cannot_be_made(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "da ta").write_text("a file")
    with pytest.raises(EmbeddedError, match="cannot use"), embedded_valkey(settings):
        pass


GRANDCHILD = "import subprocess,sys,time; p=subprocess.Popen([sys.executable,'-c','import time; time.sleep(600)']); print(p.pid, flush=True); time.sleep(600)"  # noqa: E501
STUBBORN = "import signal,time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(600)"  # noqa: E501


def test_processes_end_with_their_with_and_their_children_too(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        process = processes.spawn("parent", [sys.executable, "-c", GRANDCHILD], env=os.environ)
        wait_until(lambda: process.log_tail().strip(), "its child")
        child = int(process.log_tail())
        assert (process.running, process.exit_code, processes.dead()) == (True, None, None)
        assert is_running(child)
    assert not process.running
    wait_until(lambda: not is_running(child), "the end of its child")


def test_a_process_that_ends_by_itself_is_seen(tmp_path: Path) -> None:
    with Processes(tmp_path / "logs") as processes:
        process = processes.spawn("brief", [sys.executable, "-c", "print('why'); exit(7)"], env=os.environ)
        wait_until(lambda: not process.running, "its end")
        assert (processes.dead(), process.exit_code, process.log_tail()) == (process, 7, "why")


def test_a_process_that_does_not_listen_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    quick = tmp_path / "supervisor.py"
    source = Path(sys.modules["app.local.supervisor"].__file__ or "").read_text()
    quick.write_text(source.replace("GRACE_S = 25", "GRACE_S = 1"))
    assert "GRACE_S = 1\n" in quick.read_text()
    monkeypatch.setattr("app.local.supervisor.__file__", str(quick))
    with Processes(tmp_path / "logs") as processes:
        process = processes.spawn("stubborn", [sys.executable, "-c", STUBBORN], env=os.environ)
        wait_until(lambda: process.log_tail() == "up", "its start")
    assert process.exit_code == 128 + signal.SIGKILL
