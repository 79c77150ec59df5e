"""Whether this worker lives, and whether it can work: for an orchestrator, by the scrape port or by a file.

Judged by effect: tasks that have not ended, and a database that took our word lately.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import structlog
from aiohttp import web

from app.config import ConfigError
from app.signals.scrape import readiness
from app.store.write.health import RUNS_WITHIN_MS
from app.waiting import set_within
from workers.context import Context

log = structlog.get_logger(__name__)

TOUCH_EVERY_S = 5.0


class Probes:
    """Handlers of /healthz and /readyz."""

    def __init__(self, context: Context) -> None:
        self._context = context

    @property
    def is_alive(self) -> bool:
        """No task has ended that must run. One that hangs is cut short and logged by itself."""
        return self._context.stopping.is_set() or not any(task.done() for task in self._context.work)

    async def health(self, _request: web.Request) -> web.Response:
        """200 while every task runs; says nothing about the database. 503: the process ends by itself, and
        killing it is right too."""
        return web.Response(text="ok\n") if self.is_alive else web.Response(status=503, text="dead\n")

    async def ready(self, _request: web.Request) -> web.Response:
        """200, or 503 with every reason why it does not work."""
        return readiness(self.unready_reasons(asyncio.get_running_loop().time()))

    def unready_reasons(self, now_s: float) -> list[str]:
        """Why this worker does not work just now; empty when it does."""
        context = self._context
        reasons = ["draining: the process is ending"] if context.stopping.is_set() else []
        if not self.is_alive:
            reasons.append("dead: a task has ended that must run")
        if context.beat_s is None:
            reasons.append("starting: the database has not answered yet")
        elif now_s - context.beat_s > RUNS_WITHIN_MS / 1000:
            reasons.append(f"database: it took nothing for {now_s - context.beat_s:.0f} s")
        return reasons


@contextlib.asynccontextmanager
async def heartbeat_file(context: Context, probes: Probes) -> AsyncIterator[None]:
    """Meanwhile the file of TALLYHOOK_HEARTBEAT_FILE is touched as long as the worker lives. Raises
    ConfigError where it cannot be written."""
    if not context.settings.heartbeat_file:
        yield
        return
    file = Path(context.settings.heartbeat_file)
    try:
        await asyncio.to_thread(file.touch)
    except OSError as error:
        raise ConfigError(
            f"TALLYHOOK_HEARTBEAT_FILE: {file} cannot be written ({error.strerror}): name a file in a "
            "directory that this user may write to"
        ) from None
    touching = asyncio.create_task(_touch(file, context, probes), name="heartbeat file")
    try:
        yield
    finally:
        touching.cancel()
        await asyncio.gather(touching, return_exceptions=True)
        with contextlib.suppress(OSError):
            await asyncio.to_thread(file.unlink, missing_ok=True)


async def _touch(file: Path, context: Context, probes: Probes) -> None:
    is_written = True
    while not context.stopping.is_set():
        await set_within(context.stopping, TOUCH_EVERY_S)
        if not probes.is_alive:
            continue
        try:
            await asyncio.to_thread(file.touch)
        except OSError as error:
            if is_written:
                log.warning("heartbeat_not_written", error=error.strerror)
            is_written = False
        else:
            is_written = True
