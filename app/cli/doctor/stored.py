"""What the doctor says of what is stored: upgrades, partitions, deliveries that wait, workers that look after
them. That the database cannot tell is said by the check of the database (database.py)."""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeVar

from app.cli.doctor.check import Check
from app.cli.store_access import DATABASE_NAME, answered, reachable_store
from app.config import Settings
from app.domain.text import counted
from app.domain.time_format import DAY_MS
from app.errors import UserError
from app.store import Store
from app.store.finish import steps_due
from app.store.migrate import is_migrated
from app.store.write.partitions import PartitionState
from app.views.runs import Document
from app.views.workers import START_WORKER, workers_document

T = TypeVar("T")
SQLITE_BUSY_MS = 3_000
"""For the lock of another process; a transaction of ours takes a tenth of that."""
INBOX_SHOWN = 100


def has_database(settings: Settings) -> bool:
    """Whether there is one to ask; the embedded one is made by the first command."""
    return bool(settings.database_url) or (settings.data_dir / DATABASE_NAME).exists()


async def reach(settings: Settings) -> Store:
    """As reachable_store does, and waits for nobody's lock for long."""
    return await reachable_store(settings, sqlite_busy_ms=SQLITE_BUSY_MS)


async def asked_of(settings: Settings, ask: Callable[[Store], Awaitable[T]]) -> T | None:
    """What `ask` finds. None: there is no database, it does not answer, or it is not at our schema."""
    if not has_database(settings):
        return None
    try:
        store = await reach(settings)
        try:
            if not is_migrated(await answered(store.queries.schema_revision(), settings)):
                return None
            return await answered(ask(store), settings)
        finally:
            await store.close()
    except UserError:
        return None


async def receivers_of(store: Store) -> list[str]:
    """Where each `web` that runs says that it is reached."""
    return [receiver.address for receiver in await store.health.receivers() if receiver.is_running]


async def check_upgrade(settings: Settings) -> list[Check]:
    """Whether the database waits for the second half of an upgrade, or lacks partitions; else nothing."""

    async def ask(store: Store) -> tuple[list[str], PartitionState | None, tuple[int, int]]:
        now = await store.health.database_ms()
        return (
            [step.name for step in await steps_due(store.db)],
            await store.partitions.partition_state(now),
            await store.pruning.grown_since(now - DAY_MS),
        )

    if (told := await asked_of(settings, ask)) is None:
        return []
    due, state, grown = told
    remedy = "run, when no process of the version before is left: tallyhook migrate --finish"
    found = [Check("upgrade", "warning", f"to be finished: {'; '.join(due)}", remedy)] if due else []
    return found + check_partitions(state) + [check_retention(settings.keep_days(), *grown)]


def check_retention(policy: Mapping[str, int], rows: int, body_bytes: int) -> Check:
    """What a day adds, and what takes it away again."""
    grown = f"the last day added {counted(rows, 'delivery', 'deliveries')}, {body_bytes / 1e6:,.1f} MB"
    if policy:
        kept = ", ".join(f"{kind} are kept for {counted(days, 'day')}" for kind, days in policy.items())
        return Check("retention", "ok", f"{grown}; {kept}")
    return Check("retention", "ok", f"{grown}; nothing is pruned: TALLYHOOK_KEEP_BODIES_DAYS is not set")


FIRST_DAYS = ("today", "tomorrow", "the day after tomorrow")
"""Days that should have their partition by now; a worker makes a week's."""


def check_partitions(state: PartitionState | None) -> list[Check]:
    """Nothing is lost without them: DEFAULT takes what has none, and is slow to be rid of again."""
    if state is None:
        return []
    faults = []
    if state.days_ahead + 1 < len(FIRST_DAYS):
        faults.append(f"{FIRST_DAYS[state.days_ahead + 1]} has none")
    if state.has_rows_in_default:
        faults.append("DEFAULT holds deliveries of days that have none")
    if not faults:
        return []
    remedy = "run tallyhook migrate, which makes them; a worker that runs does so days ahead"
    return [Check("partitions", "warning", "; ".join(faults), remedy)]


async def check_inbox(settings: Settings) -> list[Check]:
    """Deliveries that wait for a person, or that something holds up; no line where there are none."""

    async def ask(store: Store) -> tuple[int, list[str | None]]:
        rows = await store.set_aside.list_inbox(INBOX_SHOWN)
        return await store.set_aside.set_aside_count(), [row.error for row in rows if row.state == "new"]

    if (told := await asked_of(settings, ask)) is None:
        return []
    count, held_up = told
    parts = [f"{count} set aside"] if count else []
    parts += [f"{len(held_up)} held up: {held_up[0]}"] if held_up else []
    remedy = "tallyhook inbox list says why; tallyhook inbox retry has them looked at again"
    return [Check("inbox", "warning", "; ".join(parts), remedy)] if parts else []


async def check_worker(settings: Settings) -> list[Check]:
    """Whether one runs; that none does is a fault where something waits for it."""

    async def ask(store: Store) -> tuple[Document, int, Sequence[str]]:
        now = await store.health.database_ms()
        return (
            await workers_document(store),
            await store.queries.waiting_count(),
            await store.queries.accounts_with_due(now),
        )

    if (told := await asked_of(settings, ask)) is None:
        return []
    worker, waiting, due = told
    if worker["running"]:
        return [Check("worker", "ok", worker["message"])]
    detail, remedy = (worker["message"], f"{START_WORKER}; until then nothing is sent")
    if not (due or waiting):
        return [Check("worker", "warning", detail, remedy)]
    waits = [f"prompts of {len(due)} accounts" if len(due) > 1 else "prompts"] if due else []
    waits += [counted(waiting, "delivery", "deliveries")] if waiting else []
    return [Check("worker", "fault", f"{detail}, and {' and '.join(waits)} wait for one", remedy)]
