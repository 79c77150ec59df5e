"""Follows a run until there is nothing left to wait for."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from app.bootstrap import now_ms
from app.cli.runs.choose import SHORT_ID_CHARS, choose_run
from app.cli.runs.progress import Seen, shown_progress
from app.cli.terminal import error_console
from app.domain.text import agreeing, counted
from app.errors import interrupted
from app.store.read.progress import RunProgress
from app.store.read.runs import RunRow
from app.views.runs import Document, is_finished, is_halted, state_of
from app.views.waiting import waiting_lines
from app.views.workers import workers_document

if TYPE_CHECKING:
    from app.store import Store

POLL_S = 0.5
POLL_SHARE = 10
"""Reading progress may take a tenth of the time: on a long run it counts every row."""


async def watch_run(
    store: "Store", run: RunRow, on_change: Callable[[RunRow, RunProgress], Awaitable[None]]
) -> tuple[RunRow, RunProgress]:
    """Call `on_change` about twice a second until the run is finished, or halted with nothing under way; its
    last state."""
    clock = asyncio.get_running_loop().time
    while True:
        started = clock()
        run = next((row for row in await store.queries.find_runs(run.id) if row.id == run.id), run)
        progress = await store.queries.progress(run.id)
        await on_change(run, progress)
        if is_finished(run, progress) or is_halted(run, progress):
            return run, progress
        await asyncio.sleep(max(POLL_S, POLL_SHARE * (clock() - started)))


async def follow(store: "Store", wanted: str) -> tuple[RunRow, RunProgress]:
    """Watch a run, its progress on standard error; how it stood at the end. Raises UserError when a signal
    ends it."""
    row, last = await choose_run(store, wanted), None
    clock, began_s = asyncio.get_running_loop().time, asyncio.get_running_loop().time()
    with shown_progress(error_console(), row.name) as show_progress:

        async def look(run: RunRow, progress: RunProgress) -> None:
            nonlocal last
            waits = await waits_of(store, run, progress, await workers_document(store))
            state, last = str(state_of(run, progress)), progress
            show_progress(Seen(clock() - began_s, now_ms(), state, run.reason, progress, waits))

        try:
            return await watch_run(store, row, look)
        except asyncio.CancelledError:
            stands = (
                f": {last.tasks - last.open:,} of {counted(last.tasks, 'task')} "
                f"{agreeing(last.tasks - last.open)} in"
                if last
                else ""
            )
            raise interrupted(
                f"only the watching has ended; run {row.name} goes on{stands}",
                f"tallyhook watch {row.id[-SHORT_ID_CHARS:]} shows it again, tallyhook pause "
                f"{row.id[-SHORT_ID_CHARS:]} stops it",
            ) from None


async def waits_of(store: "Store", run: RunRow, progress: RunProgress, worker: Document | None) -> list[str]:
    """Why the run is not over, in sentences."""
    waiting = await store.waiting.waiting(run.id)
    return waiting_lines(run, progress, waiting, worker, short_id=run.id[-SHORT_ID_CHARS:])
