"""Who runs in a data directory: one `tallyhook up` at a time, and where its parts are reached.

The record is believed as long as its writer holds the lock beside it: the kernel lets go for a process that
ends, however it ends.
"""

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = "up"
"""Below the data directory."""
TRIES_S = (0.02, 0.05, 0.1, 0.0)
"""Whoever only looks holds the lock for a moment."""


@dataclass(frozen=True, slots=True)
class Running:
    """One `tallyhook up`."""

    pid: int
    since: str
    """ISO 8601."""
    web: str
    """Its URL; empty until it listens."""
    emulator: str
    """Its URL; empty where none is needed."""


class AlreadyRunning(Exception):  # noqa: N818 - no error of ours: somebody was first
    """Another one runs in this directory; `running` is None when it did not say anything yet."""

    def __init__(self, running: Running | None) -> None:
        super().__init__("another one runs here")
        self.running = running


@contextlib.contextmanager
def sole_runner(data_dir: Path) -> Iterator[Path]:
    """The folder of whoever is the only one to run here, for as long as it does. Raises AlreadyRunning."""
    folder = data_dir / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = os.open(folder / "up.lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        if not _taken(lock):
            raise AlreadyRunning(_record(folder))
        (folder / "up.json").unlink(missing_ok=True)  # of one that was killed
        yield folder
        (folder / "up.json").unlink(missing_ok=True)
    finally:
        os.close(lock)


def _taken(lock: int) -> bool:
    for wait_s in TRIES_S:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(wait_s)
        else:
            return True
    return False


def record(folder: Path, running: Running) -> None:
    """Say where everything is; for the holder of the lock."""
    new = folder / "up.json.new"
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w") as file:
        json.dump(asdict(running), file)
    new.replace(folder / "up.json")


def who_runs(data_dir: Path) -> Running | None:
    """Who runs here now, if anybody; changes nothing."""
    folder = data_dir / FOLDER
    try:
        lock = os.open(folder / "up.lock", os.O_RDWR)
    except OSError:
        return None
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _record(folder)
    finally:
        os.close(lock)
    return None


def _record(folder: Path) -> Running | None:
    try:
        return Running(**json.loads((folder / "up.json").read_text()))
    except (OSError, ValueError, TypeError):
        return None
