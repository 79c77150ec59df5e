"""Commands as processes of their own, without the second that each would take to import everything: one
process has imported it, and forks for each command. It stays free of threads, so that it may.

Run as a module it is that process: a line of JSON in for each command, its exit code out.
"""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: bytes
    err: str


class Forks:
    """Runs commands; see `Forks.run`."""

    def __init__(self, process: "subprocess.Popen[str]", here: Path) -> None:
        self._process = process
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
            "arguments": arguments,
            "out": out,
            "err": err,
            "stdin": stdin,
            "env": dict(env or {}),
            "file_bytes_max": file_bytes_max,
            "here": str(self.here),
        }
        written = [self.here / name for name in ("fork.out", "fork.err")]
        for path in written:
            path.unlink(missing_ok=True)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        code = int(self._process.stdout.readline())
        texts = [path.read_bytes() if path.exists() else b"" for path in written]
        return Ran(code, texts[0], texts[1].decode(errors="surrogateescape"))


@contextlib.contextmanager
def forks(here: Path) -> Iterator[Forks]:
    """Commands with `here` as their working directory, and nothing set that Tallyhook reads."""
    ours = ("TALLYHOOK_", "CLORO_", "DATABASE_", "REDIS_URL", "PORT", "PUBLIC_URL", "PYTHONIOENCODING")
    env = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=env | {"PYTHONPATH": os.getcwd()},
    ) as process:
        yield Forks(process, here)
        assert process.stdin is not None
        process.stdin.close()


def serve() -> None:
    """Fork for each line."""
    import app.cli.runs.choose
    import app.cli.runs.submit_file
    import app.cli.store_access
    import app.cli.terminal
    import app.files.export
    import app.provider.sync  # noqa: F401 - what the commands import late is imported once

    results = os.dup(1)
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.close(results)
            os._exit(_command(json.loads(line)))
        _, status = os.waitpid(child, 0)
        os.write(results, f"{os.waitstatus_to_exitcode(status)}\n".encode())


def _command(order: Mapping[str, Any]) -> int:
    import resource
    import runpy

    os.chdir(order["here"])
    os.environ.update(order["env"])
    for descriptor, name in ((0, "stdin"), (1, "out"), (2, "err")):
        _redirect(descriptor, order[name], f"fork.{name}")
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
        runpy.run_module("app.cli.main", run_name="__main__")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def _redirect(descriptor: int, where: str, name: str) -> None:
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
    flags = os.O_RDONLY if descriptor == 0 else os.O_WRONLY | os.O_CREAT | os.O_TRUNC
    opened = os.open(path, flags, 0o600)
    if opened != descriptor:
        os.dup2(opened, descriptor)
        os.close(opened)


if __name__ == "__main__":
    serve()
