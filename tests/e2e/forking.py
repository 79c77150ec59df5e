"""Commands as processes of their own, without the second that each would take to import everything: one
process has imported it, and forks for each command. It stays free of threads, so that it may.

Run as a module it is that process: a line of JSON in for each order, one out.
"""

import atexit
import contextlib
import functools
import gc
import importlib
import itertools
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: bytes
    err: str


class Forked:
    """A command that goes on, with what `subprocess.Popen` has for ending it."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Its exit code, once it has ended."""
        if self.returncode is None:
            self.returncode = _ask({"poll": self.pid})
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its end; raises `subprocess.TimeoutExpired`."""
        begun = time.monotonic()
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() > begun + timeout:
                raise subprocess.TimeoutExpired(str(self.pid), timeout)
            time.sleep(0.01)
        return code

    def send_signal(self, sig: int, /) -> None:
        """Unless it has ended."""
        if self.poll() is None:
            os.kill(self.pid, sig)


def start(module: str, arguments: Sequence[str], *, log: Path, env: Mapping[str, str], here: Path) -> Forked:
    """`python -m module arguments…` in a session of its own, with no other environment than `env`."""
    order = {
        "name": "",
        "module": module,
        "arguments": arguments,
        "goes_on": True,
        "stdin": os.devnull,
        "out": str(log),
        "err": str(log),
        "file_bytes_max": 0,
        "here": str(here),
        "env": dict(env),
    }
    return Forked(_ask(order))


class Forks:
    """Runs commands with `here` as their working directory, and nothing set that Tallyhook reads; see
    `Forks.run`."""

    def __init__(self, here: Path) -> None:
        self.here = here

    def run(
        self,
        *arguments: str,
        out: str = "file",
        err: str = "file",
        stdin: str = os.devnull,
        env: Mapping[str, str] | None = None,
        file_bytes_max: int = 0,
    ) -> Ran:
        """`out` and `err`: file, closed, broken (a pipe that nobody reads), or a path. `stdin`: closed, or a
        path."""
        order = {
            "name": f"fork-{next(_numbers)}",
            "module": "app.cli.main",
            "arguments": arguments,
            "out": out,
            "err": err,
            "stdin": stdin,
            "env": dict(env or {}),
            "file_bytes_max": file_bytes_max,
            "here": str(self.here),
        }
        written = [self.here / f"{order['name']}.{kind}" for kind in ("out", "err")]
        code = Forked(_ask(order)).wait()
        texts = [path.read_bytes() if path.exists() else b"" for path in written]
        return Ran(code, texts[0], texts[1].decode(errors="surrogateescape"))


OURS = ("TALLYHOOK_", "CLORO_", "DATABASE_", "REDIS_URL", "PORT", "PUBLIC_URL", "PYTHONIOENCODING")
IMPORTED = (
    "aiosqlite",
    "app.api.server",
    "app.api.table",
    "app.cli.api",
    "app.cli.main",
    "app.cli.runs.choose",
    "app.cli.runs.submit_file",
    "app.cli.store_access",
    "app.cli.terminal",
    "app.emulator.cli.command",
    "app.files.export",
    "app.provider.ratelimit.shared",
    "app.provider.sync",
    "app.store.write.settlement",
    "app.store.write.submission",
    "app.web.server",
    "asyncpg",
    "workers.__main__",
)
"""What most commands and processes import, many of them late."""
_asking = threading.Lock()
_numbers = itertools.count(1)


@functools.cache
def _forking() -> "subprocess.Popen[str]":
    """The process that forks, until this one ends; nothing is set in it that Tallyhook reads."""
    env = {name: value for name, value in os.environ.items() if not name.startswith(OURS)}
    process = subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    atexit.register(process.communicate)
    return process


def _ask(order: Mapping[str, Any]) -> Any:
    with _asking:
        process = _forking()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        return json.loads(process.stdout.readline())


def serve() -> None:
    """Fork for each line."""
    for name in IMPORTED:
        importlib.import_module(name)
    # These two are run anew.
    del sys.modules["app.cli.main"], sys.modules["workers.__main__"]
    gc.freeze()
    answers = os.dup(1)
    for line in sys.stdin:
        order = json.loads(line)
        if "poll" in order:
            ended, status = os.waitpid(order["poll"], os.WNOHANG)
            answer = os.waitstatus_to_exitcode(status) if ended else None
        elif not (answer := os.fork()):
            os.close(answers)
            if "goes_on" in order:
                os.setsid()
                os.environ.clear()
                sys.exit(_command(order))
            os._exit(_command(order))
        os.write(answers, f"{json.dumps(answer)}\n".encode())


def _command(order: Mapping[str, Any]) -> int:
    import resource
    import runpy

    os.chdir(order["here"])
    os.environ.update(order["env"])
    for descriptor, name in ((0, "stdin"), (1, "out"), (2, "err")):
        _redirect(
            descriptor,
            order[name],
            f"{order['name']}.{name}",
            os.O_APPEND if "goes_on" in order else os.O_TRUNC,
        )
    if order["file_bytes_max"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["file_bytes_max"],) * 2)
    # As Python itself begins.
    encoding = order["env"].get("PYTHONIOENCODING", "utf-8")
    for descriptor, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        mode = "r" if descriptor == 0 else "w"
        stream = None
        with contextlib.suppress(OSError):
            stream = os.fdopen(descriptor, mode, encoding=encoding, closefd=False)
        setattr(sys, name, stream)
    sys.argv = ["tallyhook", *order["arguments"]]
    try:
        runpy.run_module(order["module"], run_name="__main__", alter_sys=True)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _redirect(descriptor: int, where: str, name: str, how: int) -> None:
    os.close(descriptor)
    if where == "closed":
        return
    if where == "broken":
        reader, writer = os.pipe()
        moved = os.dup2(writer, 60)
        for each in {reader, writer} - {descriptor}:
            os.close(each)
        os.dup2(moved, descriptor)
        os.close(moved)
        return
    path = name if where == "file" else where
    flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | how
    opened = os.open(path, flags, 0o600)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


if __name__ == "__main__":
    serve()
