"""Follows a run until there is nothing left to wait for."""

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.domain.task import RunState, TaskState
from app.store.read.runs import RunProgress, RunRow
from app.views.runs import is_finished

if TYPE_CHECKING:
    from app.store import Store

POLL_S = 0.5
POLL_SHARE = 10
"""Reading progress may take a tenth of the time: on a long run it counts every row."""


async def watch_run(
    store: "Store", run: RunRow, on_change: Callable[[RunRow, RunProgress], None]
) -> tuple[RunRow, RunProgress]:
    """Call `on_change` about twice a second until the run is finished, or halted with nothing under way; its
    last state."""
    clock = asyncio.get_running_loop().time
    while True:
        started = clock()
        run = next((row for row in await store.queries.find_runs(run.id) if row.id == run.id), run)
        progress = await store.queries.progress(run.id)
        on_change(run, progress)
        if is_finished(run, progress) or is_halted(run, progress):
            return run, progress
        await asyncio.sleep(max(POLL_S, POLL_SHARE * (clock() - started)))


def is_halted(run: RunRow, progress: RunProgress) -> bool:
    """Paused or stopped, and what was sent before has come back: only a person can make it go on."""
    out = progress.states.get(TaskState.SUBMITTING, 0) + progress.states.get(TaskState.SUBMITTED, 0)
    return run.state in (RunState.PAUSED, RunState.STOPPED) and out == 0


def submitted_count(progress: RunProgress) -> int:
    """Tasks that the provider has accepted, whatever has become of them."""
    return sum(
        progress.states.get(state, 0)
        for state in (TaskState.SUBMITTED, TaskState.COMPLETED, TaskState.FAILED, TaskState.EXPIRED)
    )
