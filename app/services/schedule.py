"""Schedules: start the run of each slot that has come, exactly one however many workers there are.

A slot is claimed and its run created in one transaction. Reading the file into the run is a step of its own,
done by whichever worker holds the schedule's lease, and done again from the start when that worker dies:
reading a source twice stores it once.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from app.domain.schedule_slots import DueSlot, due_slot
from app.domain.source_change import SourceChanged
from app.domain.text import agreeing, counted
from app.domain.time_format import utc
from app.ports import Clock, RowsRefused, StoreUnavailable
from app.services.isolated import Isolated
from app.services.load import Loaded, NewRun, load_run

if TYPE_CHECKING:
    from app.store import Store
    from app.store.write.schedules import ScheduleRow

LEASE = "schedule:"
"""And the schedule's id: one worker reads its file at a time."""
LEASE_MS = 60_000
"""100,000 prompts are read in a few seconds. Should it take longer, another worker reads it too: harmless."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A schedule's file, ready to be read, and the run that its options make."""

    records: Iterable[Any]
    sha256: Callable[[], str]
    new: NewRun


OpenSource = Callable[["ScheduleRow"], Opened]
"""Raises OSError or ValueError, with the reason, for a file or options that cannot be used."""


@dataclass(frozen=True, slots=True)
class SlotOutcome:
    """What became of one slot."""

    schedule: str
    """Its name."""
    run_id: str | None = None
    tasks: int = 0
    skipped: int = 0
    """Slots before it that nobody ran."""
    error: str | None = None
    bug: Exception | None = None
    """What nobody foresaw, if the error is of that kind."""


async def start_due(
    store: "Store", open_source: OpenSource, *, clock: Clock, owner: str, isolated: Isolated | None = None
) -> list[SlotOutcome]:
    """Claim every slot that has come, then read the files of claimed slots. A schedule that cannot be run,
    for whatever reason, keeps the error, and its next slot is tried again; the others go on. `owner` names
    this worker. What the store could not do is kept in `isolated`, and raised at the end without one."""
    outcomes: list[SlotOutcome] = []
    kept = isolated or Isolated()
    for schedule in await store.schedules.list_schedules():
        with kept.alone():
            outcomes += await _claim_if_due(store, open_source, schedule, clock())
    for run_id, schedule in await store.schedules.unread_slots():
        with kept.alone():
            outcomes += await _read_under_lease(store, open_source, schedule, run_id, clock, owner)
    if isolated is None:
        kept.finish()
    return outcomes


async def _claim_if_due(
    store: "Store", open_source: OpenSource, schedule: "ScheduleRow", now_ms: int
) -> list[SlotOutcome]:
    due: DueSlot | None = None
    try:
        due = due_slot(schedule.next_at_ms, schedule.every_ms, now_ms) if schedule.enabled else None
        if due is None:
            return []
        outcome = await _claim(store, open_source, schedule, due, now_ms)
    except StoreUnavailable:
        raise
    except Exception as error:
        outcome = SlotOutcome(schedule.name, error=_reason(error), bug=_bug(error))
        if not await _give_up(store, schedule, due, _reason(error)):
            return []
    return [outcome] if outcome else []


async def _give_up(store: "Store", schedule: "ScheduleRow", due: DueSlot | None, reason: str) -> bool:
    """Go on with its next slot, where it has one; False when that, or the same reason, stands there."""
    if due is not None:
        try:
            return await store.schedules.skip_slot(schedule, due, reason)
        except StoreUnavailable:
            raise
        except Exception:  # noqa: S110 - its next slot is no time that can be stored: it stays where it is
            pass
    return await store.schedules.note_schedule_error(schedule.id, reason)


async def _read_under_lease(
    store: "Store", open_source: OpenSource, schedule: "ScheduleRow", run_id: str, clock: Clock, owner: str
) -> list[SlotOutcome]:
    lease, now = LEASE + schedule.id, clock()
    if not await store.runs.acquire_lease(lease, owner, until_ms=now + LEASE_MS, now_ms=now):
        return []
    try:
        # Its former holder may have read it to its end since we looked.
        if run_id not in {unread for unread, _ in await store.schedules.unread_slots()}:
            return []
        outcome = await _read(store, open_source, schedule, run_id, clock)
        return [outcome] if outcome else []
    finally:
        await store.runs.release_lease(lease, owner)


async def _claim(
    store: "Store", open_source: OpenSource, schedule: "ScheduleRow", due: DueSlot, now_ms: int
) -> SlotOutcome | None:
    """What there is to say at once: slots that are skipped."""
    new = open_source(schedule).new
    slot = utc(due.slot_ms)
    reason = f"{due.skipped} earlier slots were skipped: nothing ran" if due.skipped else None
    run_id = await store.schedules.claim_slot(
        schedule,
        due,
        name=f"{schedule.name}-{slot:%Y%m%d-%H%M%S}",
        budget=new.budget,
        account=new.account,
        batch_size=new.batch_size,
        reuse_within_ms=new.reuse_within_ms,
        pause_failing_engines=new.pause_failing_engines,
        push_to=new.push_to,
        reason=reason,
        now_ms=now_ms,
    )
    return SlotOutcome(schedule.name, run_id, skipped=due.skipped) if run_id and due.skipped else None


async def _read(
    store: "Store", open_source: OpenSource, schedule: "ScheduleRow", run_id: str, clock: Clock
) -> SlotOutcome | None:
    """What became of the slot; None when another worker has read it meanwhile."""
    bug: Exception | None = None
    try:
        opened = open_source(schedule)
        new = replace(opened.new, source=schedule.source)
        loaded: Loaded = await load_run(
            store, opened.records, new, sha256=opened.sha256, clock=clock, resume=run_id
        )
        error = None if loaded.started else _not_started(loaded)
        tasks = loaded.tasks
    except StoreUnavailable:
        raise
    except Exception as failure:
        error, tasks, bug = _reason(failure), 0, _bug(failure)
    if error is not None and not await store.schedules.give_slot_up(run_id, schedule.id, error):
        return None
    return SlotOutcome(schedule.name, run_id, 0 if error else tasks, error=error, bug=bug)


def _not_started(loaded: Loaded) -> str:
    if loaded.duplicates_named:
        return (
            f"{counted(loaded.duplicates, 'record')} "
            f"{agreeing(loaded.duplicates, 'repeats', 'repeat')} an earlier one, and that was to be an error"
        )
    if loaded.bad_lines:
        return f"{counted(loaded.bad_lines, 'line')} of its file {agreeing(loaded.bad_lines)} bad"
    return "cancelled" if loaded.tasks else "no prompt in its file"


def _reason(error: Exception) -> str:
    why = error.strerror if isinstance(error, OSError) else None
    if _bug(error) is not None:
        # Its text may quote what the file says.
        return f"it cannot be run ({type(error).__name__}): look at the worker's log"
    return why or str(error) or type(error).__name__


def _bug(error: Exception) -> Exception | None:
    foreseen = isinstance(error, OSError | ValueError | SourceChanged | ArithmeticError | RowsRefused)
    return None if foreseen else error
