"""A worker says whether it lives and whether it can work, by its scrape port and by a file."""

import asyncio
import contextlib
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from app.config import ConfigError
from workers import probes as module
from workers.probes import Probes, heartbeat_file


def context_of(file: Path | None = None) -> Any:
    settings = SimpleNamespace(heartbeat_file=str(file or ""))
    return cast(Any, SimpleNamespace(stopping=asyncio.Event(), work=[], beat_s=None, settings=settings))


async def ended_task() -> "asyncio.Task[None]":
    task = asyncio.create_task(asyncio.sleep(0))
    await task
    return task


async def test_it_is_ready_once_the_database_took_its_word() -> None:
    context = context_of()
    probes = Probes(context)
    assert probes.unready_reasons(100.0) == ["starting: the database has not answered yet"]
    context.beat_s = 99.0
    assert probes.unready_reasons(100.0) == []
    assert probes.unready_reasons(140.0) == ["database: it took nothing for 41 s"]
    context.stopping.set()
    assert probes.unready_reasons(100.0) == ["draining: the process is ending"]


async def test_it_lives_whatever_the_database_does_and_not_without_its_tasks() -> None:
    context = context_of()
    probes = Probes(context)
    request: Any = None
    assert (await probes.health(request)).status == 200
    context.work = [await ended_task()]
    assert (await probes.health(request)).status == 503
    assert (await probes.ready(request)).status == 503
    context.stopping.set()
    assert (await probes.health(request)).status == 200, "it ends in order"


async def test_its_file_is_touched_while_it_lives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "TOUCH_EVERY_S", 0.01)
    file = tmp_path / "beat"
    context = context_of(file)
    probes = Probes(context)

    async def is_newer_than(at_ns: int, within_s: float) -> bool:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within_s):
                while file.stat().st_mtime_ns <= at_ns:  # noqa: ASYNC110 - a file has no event
                    await asyncio.sleep(0.01)
                return True
        return False

    async with heartbeat_file(context, probes):
        assert await is_newer_than(file.stat().st_mtime_ns, 30)
        context.work = [await ended_task()]
        async with asyncio.timeout(30):  # one may be about to touch it
            while await is_newer_than(file.stat().st_mtime_ns, 0.2):
                pass
    assert not file.exists()


async def test_a_file_that_cannot_be_written_is_said_at_the_start(tmp_path: Path) -> None:
    context = context_of(tmp_path / "no" / "beat")
    with pytest.raises(ConfigError, match=r"TALLYHOOK_HEARTBEAT_FILE: .*cannot be written"):
        async with heartbeat_file(context, Probes(context)):
            pass
