"""The code of an earlier commit beside ours, run by the same interpreter with the same packages."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.bench.rig import ROOT


class NoHistoryError(Exception):
    """The clone does not have the commit; the text says how to get it."""


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two that are compared."""

    name: str
    code: Path
    """Where its app and workers are."""

    @property
    def env(self) -> dict[str, str]:
        """By which a Python process imports this code and no other: before the packages, ours among them."""
        return {"PYTHONPATH": str(self.code)}


OURS = Side("ours", ROOT)


@contextmanager
def checked_out(commit: str, folder: Path) -> Iterator[Side]:
    """The code of a commit for the time of the block. Raises NoHistoryError where the clone lacks it."""
    code = folder / "against"
    try:
        _git("worktree", "add", "--detach", "--quiet", str(code), commit)
    except (OSError, subprocess.CalledProcessError) as error:
        said = (getattr(error, "stderr", None) or str(error)).strip()
        raise NoHistoryError(
            f"no commit {commit} to compare with ({said}): fetch the whole history"
            " (git fetch --unshallow), or name another one with --against"
        ) from error
    try:
        side = Side(commit, code)
        _check(side)
        yield side
    finally:
        _git("worktree", "remove", "--force", str(code))


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=ROOT, check=True, capture_output=True, text=True)


def _check(side: Side) -> None:
    """A process really runs the side's code."""
    command = [sys.executable, "-c", "import app, workers; print(app.__file__, workers.__file__)"]
    env = os.environ | side.env
    done = subprocess.run(command, cwd=side.code.parent, env=env, check=True, capture_output=True, text=True)
    expected = [str(side.code / name / "__init__.py") for name in ("app", "workers")]
    if done.stdout.split() != expected:
        raise RuntimeError(f"{side.name} would run {done.stdout.strip()} instead of {expected}")
