"""Starts the runs of schedules in parallel with the sweep: reading a long file must not hold the sweep up."""

import uuid
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from app.config import Settings
from app.errors import UserError
from app.prompts.reader import read_prompts
from app.run_options import RunOptions, refuse_unknown_account
from app.services.isolated import Isolated
from app.services.schedule import Opened, OpenSource, SlotOutcome, start_due
from workers.context import Context
from workers.periodic import run_every

if TYPE_CHECKING:
    from app.store.write.schedules import ScheduleRow

log = structlog.get_logger(__name__)


READ_S = 3_600.0
"""For all files that are due at once: a million prompts are read in some minutes."""


async def run_schedules(context: Context) -> None:
    """Look for slots that have come, every few seconds, until the process stops."""
    owner, open_source = uuid.uuid4().hex, source_opener(context.settings)

    async def look() -> int:
        isolated = Isolated()
        outcomes = await start_due(
            context.store, open_source, clock=context.clock, owner=owner, isolated=isolated
        )
        for outcome in outcomes:
            tell(outcome)
        if any(outcome.tasks for outcome in outcomes):
            await context.queue.wake_submit()
        isolated.finish()
        return sum(outcome.tasks for outcome in outcomes)

    await run_every(
        look,
        name="schedules",
        every_s=context.settings.sweep_every_s,
        stopping=context.stopping,
        within_s=READ_S,
        watch=context.signals,
    )


def tell(outcome: SlotOutcome) -> None:
    """One line for each slot: started, skipped or failed."""
    if outcome.error is not None:
        log.error(
            "slot_failed",
            schedule=outcome.schedule,
            run=outcome.run_id,
            error=outcome.error,
            exc_info=outcome.bug,
        )
    elif outcome.skipped:
        log.warning("slots_skipped", schedule=outcome.schedule, run=outcome.run_id, slots=outcome.skipped)
    else:
        log.info("slot_started", schedule=outcome.schedule, run=outcome.run_id, tasks=outcome.tasks)


def source_opener(settings: Settings) -> OpenSource:
    """Opens a schedule's file with the schedule's options."""

    def open_source(schedule: "ScheduleRow") -> Opened:
        path = Path(schedule.source)
        if not path.is_file():
            raise ValueError(
                f"{path} {'is not a file' if path.exists() else 'does not exist'} on this worker"
            )
        try:
            options = RunOptions.from_json(schedule.options)
            refuse_unknown_account(settings, options.account)
            new = options.new_run(schedule.name, schedule.source)
        except UserError as error:
            raise ValueError(error.message) from error
        reader = read_prompts(path, options.defaults(), options.reading())
        return Opened(reader, lambda: reader.sha256, new)

    return open_source
