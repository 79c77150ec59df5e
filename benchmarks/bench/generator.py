"""This side of the load process: starts it, gives it commands, ends it."""

import json
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks.bench.rig import ROOT, STOP, module
from tests.servers.processes import end

CONNECTIONS = 64
"""As many deliveries at once as the provider's workers may send; enough to fill a group commit."""


class Generator:
    """A running load process."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen

    def prepare(self, count: int, *, seed: int, keys_file: str | None = None) -> None:
        """Have so many requests ready and signed."""
        self._ask(do="prepare", seed=seed, count=count, keys_file=keys_file)

    def prepare_posts(
        self, path: str, bodies: Sequence[str], headers: Mapping[str, str], method: str = "POST"
    ) -> None:
        """Have a request ready for each body."""
        with tempfile.NamedTemporaryFile("w", suffix=".jsonl") as file:
            file.write("\n".join(bodies))
            file.flush()
            self._ask(
                do="prepare_posts", path=path, bodies_file=file.name, headers=dict(headers), method=method
            )

    def run(
        self,
        port: int,
        *,
        seconds: float,
        first: int = 0,
        count: int | None = None,
        connections: int = CONNECTIONS,
    ) -> dict[str, Any]:
        """Post to a port; the figures. Raises AssertionError when any answer is not a 200."""
        figures = self._ask(
            do="run", port=port, seconds=seconds, connections=connections, first=first, count=count
        )
        assert set(figures["statuses"]) == {"200"}, figures
        return figures

    def _ask(self, **command: Any) -> dict[str, Any]:
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(json.dumps(command) + "\n")
        self._popen.stdin.flush()
        line = self._popen.stdout.readline()
        assert line, "the load process has ended; its error is above"
        answer: dict[str, Any] = json.loads(line)
        return answer


@contextmanager
def generator() -> Iterator[Generator]:
    """A load process for the time of the block."""
    popen = subprocess.Popen(
        module("benchmarks.bench.load"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )
    try:
        yield Generator(popen)
    finally:
        assert popen.stdin is not None
        assert popen.stdout is not None
        popen.stdin.close()
        end(popen, STOP)  # type: ignore[arg-type]
        popen.stdout.close()
