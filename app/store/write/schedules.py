"""Writes of schedules. A slot is claimed by moving its schedule on and creating its run in one transaction:
whoever moves it has the slot, and a run that stands there is read to its end by some worker.
"""

from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.message import NewEndpoint
from app.domain.schedule_slots import DueSlot
from app.domain.task import RunState, TaskState, new_id
from app.domain.text import storable, storable_message
from app.store.part import StorePart, reads, writes
from app.store.tables import runs, schedules, tasks
from app.store.write.relay_endpoints import ensure_endpoint, link_run
from app.store.write.run_times import entering


@dataclass(frozen=True, slots=True)
class ScheduleRow:
    """A schedule as its row says."""

    id: str
    name: str
    source: str
    options: str
    every_ms: int
    next_at_ms: int
    enabled: bool
    last_error: str | None


class ScheduleWrites(StorePart):
    """Part of the store."""

    async def add_schedule(
        self,
        *,
        name: str,
        source: str,
        options: str,
        every_ms: int,
        next_at_ms: int,
        now_ms: int,
        push_to: tuple[str, NewEndpoint] | None = None,
    ) -> str | None:
        """A new schedule; its id. None: there is one of that name. `push_to`: (account, endpoint) of its
        runs, made with it, so that its secret can be told before any of them."""
        row = {
            "id": new_id(now_ms),
            "name": storable(name),
            "source": storable(source),
            "options": options,
            "every_ms": every_ms,
            "next_at_ms": next_at_ms,
            "enabled": True,
            "created_at_ms": now_ms,
        }
        return await self._insert_schedule(row, push_to)

    @writes
    async def _insert_schedule(
        self, connection: AsyncConnection, row: dict[str, Any], push_to: tuple[str, NewEndpoint] | None
    ) -> str | None:
        await self.db.insert(connection, schedules, [row], ignore=True)
        made = await connection.scalar(sa.select(schedules.c.id).where(schedules.c.id == row["id"]))
        if made is not None and push_to is not None:
            now_ms = row["created_at_ms"]
            await ensure_endpoint(self.db, connection, new_id(now_ms), *push_to, now_ms)
        return made

    @reads
    async def list_schedules(self, connection: AsyncConnection) -> list[ScheduleRow]:
        """All of them, by name."""
        rows = await connection.execute(sa.select(*_COLUMNS).order_by(schedules.c.name))
        return [ScheduleRow(*row) for row in rows]

    @writes(long=True)
    async def remove_schedule(self, connection: AsyncConnection, schedule_id: str) -> None:
        """Forget a schedule. Its runs stay; one that is still being read is given up."""
        await connection.execute(sa.delete(schedules).where(schedules.c.id == schedule_id))
        await connection.execute(
            sa.update(runs)
            .where(runs.c.schedule_id == schedule_id, runs.c.state == RunState.LOADING)
            .values(
                reason="its schedule was removed", reason_code=None, **entering(self.db, RunState.CANCELLED)
            )
        )

    async def enable_schedule(self, schedule_id: str, *, enabled: bool, next_at_ms: int) -> None:
        """Pause a schedule, or let it go on with slot `next_at_ms`."""
        await self._change(schedule_id, enabled=enabled, next_at_ms=next_at_ms)

    async def claim_slot(
        self,
        schedule: ScheduleRow,
        due: DueSlot,
        *,
        name: str,
        budget: Decimal | None,
        account: str,
        batch_size: int | None,
        reuse_within_ms: int | None,
        pause_failing_engines: bool = False,
        push_to: NewEndpoint | None = None,
        reason: str | None,
        now_ms: int,
    ) -> str | None:
        """The id of the slot's run, in state loading; None when another worker has the slot. `reason`: what
        there is to say of slots before it, kept with the run and with the schedule."""
        row = {
            "id": new_id(now_ms),
            "name": storable(name),
            "source": schedule.source,
            "state": RunState.LOADING,
            "reason": reason,
            "budget": budget,
            "bad_lines": 0,
            "account": account,
            "batch_size": batch_size,
            "reuse_within_ms": reuse_within_ms,
            "pause_failing_engines": pause_failing_engines,
            "schedule_id": schedule.id,
            "slot_ms": due.slot_ms,
            "created_at_ms": now_ms,
        }
        endpoint = None if push_to is None else (new_id(now_ms), push_to)
        return await self._insert_slot_run(schedule, due, row, endpoint)

    @writes
    async def _insert_slot_run(
        self,
        connection: AsyncConnection,
        schedule: ScheduleRow,
        due: DueSlot,
        run: dict[str, Any],
        endpoint: tuple[str, NewEndpoint] | None,
    ) -> str | None:
        if not await _move_on(connection, schedule, due, last_error=run["reason"]):
            return None
        # The slot's unique index has the last word, should a schedule ever be moved back.
        await self.db.insert(connection, runs, [run], ignore=True)
        made = await connection.scalar(sa.select(runs.c.id).where(runs.c.id == run["id"]))
        if made is not None and endpoint is not None:
            await link_run(self.db, connection, made, run["account"], endpoint, run["created_at_ms"])
        return made

    @writes
    async def skip_slot(
        self, connection: AsyncConnection, schedule: ScheduleRow, due: DueSlot, error: str
    ) -> bool:
        """Give a slot up for its error; False when another worker has it."""
        return await _move_on(connection, schedule, due, last_error=storable_message(error))

    @writes
    async def note_schedule_error(self, connection: AsyncConnection, schedule_id: str, error: str) -> bool:
        """Keep why a schedule cannot be run, its slot left as it is; False when that is known."""
        known = sa.func.coalesce(schedules.c.last_error, "") == storable_message(error)
        is_schedule = sa.update(schedules).where(schedules.c.id == schedule_id, ~known)
        return (
            await connection.execute(is_schedule.values(last_error=storable_message(error)))
        ).rowcount == 1

    @writes(long=True)
    async def give_slot_up(
        self, connection: AsyncConnection, run_id: str, schedule_id: str, error: str
    ) -> bool:
        """Cancel the run of a slot whose source cannot be read, and keep why; False when another worker has
        read it meanwhile."""
        done = await connection.execute(
            sa.update(runs)
            .where(runs.c.id == run_id, runs.c.state == RunState.LOADING)
            .values(reason=storable_message(error), reason_code=None, **entering(self.db, RunState.CANCELLED))
        )
        if not done.rowcount:
            return False
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.run_id == run_id, tasks.c.state == TaskState.PENDING)
            .values(state=TaskState.CANCELLED)
        )
        is_schedule = schedules.c.id == schedule_id
        await connection.execute(
            sa.update(schedules).where(is_schedule).values(last_error=storable_message(error))
        )
        return True

    @reads
    async def unread_slots(self, connection: AsyncConnection) -> list[tuple[str, ScheduleRow]]:
        """Runs of slots whose source is not read to its end, with their schedules, oldest first."""
        found = await connection.execute(
            sa.select(runs.c.id.label("run_id"), *_COLUMNS)
            .join(schedules, schedules.c.id == runs.c.schedule_id)
            .where(runs.c.state == RunState.LOADING)
            .order_by(runs.c.slot_ms)
        )
        return [(row[0], ScheduleRow(*row[1:])) for row in found]

    @writes
    async def _change(self, connection: AsyncConnection, /, schedule_id: str, **values: object) -> None:
        await connection.execute(sa.update(schedules).where(schedules.c.id == schedule_id).values(**values))


async def _move_on(connection: AsyncConnection, schedule: ScheduleRow, due: DueSlot, **values: Any) -> bool:
    moved = await connection.execute(
        sa.update(schedules)
        .where(
            schedules.c.id == schedule.id, schedules.c.next_at_ms == schedule.next_at_ms, schedules.c.enabled
        )
        .values(next_at_ms=due.next_ms, **values)
    )
    return moved.rowcount == 1


_COLUMNS = (
    schedules.c.id,
    schedules.c.name,
    schedules.c.source,
    schedules.c.options,
    schedules.c.every_ms,
    schedules.c.next_at_ms,
    schedules.c.enabled,
    schedules.c.last_error,
)
