"""Schedules: start the run of each slot that has come, exactly one however many workers there are.

A slot is claimed and its run created in one transaction. Reading the file into the run is a step of its own,
done by whichever worker holds the schedule's lease, and done again from the start when that worker dies:
reading a source twice stores it once.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from app.domain.slots import DueSlot, due_slot
from app.domain.source_change import SourceChanged
from app.ports import Clock
from app.services.load import Loaded, LoadStore, NewRun, load_run

LEASE = "schedule:"
"""And the schedule's id: one worker reads its file at a time."""
LEASE_MS = 60_000
"""100,000 prompts are read in a few seconds. Should it take longer, another worker reads beside: harmless."""


class Schedule(Protocol):
    """A schedule as it is stored."""

    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...
    @property
    def source(self) -> str: ...
    @property
    def options(self) -> str: ...
    @property
    def every_ms(self) -> int: ...
    @property
    def next_at_ms(self) -> int: ...
    @property
    def enabled(self) -> bool: ...


class ScheduleStore(LoadStore, Protocol):
    """What schedules need of the store."""

    async def list_schedules(self) -> Sequence[Any]: ...

    async def claim_slot(
        self, schedule: Any, due: DueSlot, *, name: str, budget: Decimal | None, account: str,
        batch_size: int | None, reuse_within_ms: int | None, reason: str | None, now_ms: int,
    ) -> str | None: ...  # fmt: skip

    async def skip_slot(self, schedule: Any, due: DueSlot, error: str) -> bool: ...

    async def unread_slots(self) -> Sequence[tuple[str, Any]]: ...

    async def give_slot_up(self, run_id: str, schedule_id: str, error: str) -> bool: ...

    async def acquire_lease(self, name: str, owner: str, *, until_ms: int, now_ms: int) -> bool: ...

    async def release_lease(self, name: str, owner: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Opened:
    """A schedule's file, ready to be read, and the run that its options make."""

    records: Iterable[Any]
    sha256: Callable[[], str]
    new: NewRun


OpenSource = Callable[[Schedule], Opened]
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


async def start_due(
    store: ScheduleStore, open_source: OpenSource, *, clock: Clock, owner: str
) -> list[SlotOutcome]:
    """Claim every slot that has come, then read the files of claimed slots. A schedule whose file is missing
    or bad keeps the error, and its next slot is tried again; the others go on. `owner` names this worker."""
    outcomes = []
    for schedule in await store.list_schedules():
        due = due_slot(schedule.next_at_ms, schedule.every_ms, clock()) if schedule.enabled else None
        if due is not None and (outcome := await _claim(store, open_source, schedule, due, clock())):
            outcomes.append(outcome)
    for run_id, schedule in await store.unread_slots():
        if outcome := await _read_under_lease(store, open_source, schedule, run_id, clock, owner):
            outcomes.append(outcome)
    return outcomes


async def _read_under_lease(
    store: ScheduleStore, open_source: OpenSource, schedule: Schedule, run_id: str, clock: Clock, owner: str
) -> SlotOutcome | None:
    lease, now = LEASE + schedule.id, clock()
    if not await store.acquire_lease(lease, owner, until_ms=now + LEASE_MS, now_ms=now):
        return None
    try:
        # Its former holder may have read it to its end since we looked.
        if run_id not in {unread for unread, _ in await store.unread_slots()}:
            return None
        return await _read(store, open_source, schedule, run_id, clock)
    finally:
        await store.release_lease(lease, owner)


async def _claim(
    store: ScheduleStore, open_source: OpenSource, schedule: Schedule, due: DueSlot, now_ms: int
) -> SlotOutcome | None:
    """What there is to say at once: slots that are skipped, or the error for which this one is given up."""
    try:
        new = open_source(schedule).new
    except (OSError, ValueError) as error:
        mine = await store.skip_slot(schedule, due, _reason(error))
        return SlotOutcome(schedule.name, error=_reason(error)) if mine else None
    slot = datetime.fromtimestamp(due.slot_ms / 1000, UTC)
    reason = f"{due.skipped} earlier slots were skipped: nothing ran" if due.skipped else None
    run_id = await store.claim_slot(
        schedule, due, name=f"{schedule.name}-{slot:%Y%m%d-%H%M%S}", budget=new.budget, account=new.account,
        batch_size=new.batch_size, reuse_within_ms=new.reuse_within_ms, reason=reason, now_ms=now_ms,
    )  # fmt: skip
    return SlotOutcome(schedule.name, run_id, skipped=due.skipped) if run_id and due.skipped else None


async def _read(
    store: ScheduleStore, open_source: OpenSource, schedule: Schedule, run_id: str, clock: Clock
) -> SlotOutcome | None:
    """What became of the slot; None when another worker has read it meanwhile."""
    try:
        opened = open_source(schedule)
        new = replace(opened.new, source=schedule.source)
        loaded: Loaded[Any] = await load_run(
            store, opened.records, new, sha256=opened.sha256, clock=clock, resume=run_id
        )
        error = None if loaded.started else _not_started(loaded)
        tasks = loaded.tasks
    except (OSError, ValueError, SourceChanged) as failure:
        error, tasks = _reason(failure), 0
    if error is not None and not await store.give_slot_up(run_id, schedule.id, error):
        return None
    return SlotOutcome(schedule.name, run_id, 0 if error else tasks, error=error)


def _not_started(loaded: Loaded[Any]) -> str:
    if loaded.duplicates_named:
        return f"{loaded.duplicates} records repeat an earlier one, and that was to be an error"
    if loaded.bad_lines:
        return f"{loaded.bad_lines} lines of its file are bad"
    return "cancelled" if loaded.tasks else "no prompt in its file"


def _reason(error: Exception) -> str:
    said = error.strerror if isinstance(error, OSError) else None
    return said or str(error) or type(error).__name__
