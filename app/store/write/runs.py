"""Writes about runs: creating one, filling it with tasks, changing what it may do."""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.message import NewEndpoint
from app.domain.run_reason import RunReason
from app.domain.task import RunState, TaskSpec, TaskState, new_id
from app.domain.text import storable
from app.ports import NameTaken
from app.store.batch import Rows
from app.store.part import StorePart, writes
from app.store.tables import (
    has_come,
    leases,
    results,
    rollup_changes,
    run_rollup,
    run_spending,
    runs,
    spending_changes,
    task_metadata,
    task_repeats,
    tasks,
)
from app.store.write.claims import is_free
from app.store.write.load import insert_of_records, task_row
from app.store.write.open_sends import perhaps_accepted
from app.store.write.relay_endpoints import link_run, unlink_run
from app.store.write.relay_messages import add_closed
from app.store.write.run_times import entering

_NAMES = 0x7461_6C6C_796E
"""Of the lock under which a name is looked for and taken."""
_HALTED = (RunState.PAUSED, RunState.STOPPED)
_KEPT_OF_RUNS = (run_spending, spending_changes, run_rollup, rollup_changes)
"""What triggers keep; they note also that a run's tasks are deleted."""


class RunWrites(StorePart):
    """Part of the store."""

    async def create_run(
        self,
        *,
        name: str,
        source: str,
        budget: Decimal | None,
        now_ms: int,
        account: str = "default",
        batch_size: int | None = None,
        reuse_within_ms: int | None = None,
        pause_failing_engines: bool = False,
        schedule_id: str | None = None,
        slot_ms: int | None = None,
        is_name_new: bool = False,
        push_to: NewEndpoint | None = None,
        run_id: str | None = None,
    ) -> str:
        """A new run in state loading; its id. Its results are pushed to `push_to`. With `is_name_new` raises
        NameTaken if any has it."""
        run_id = run_id or new_id(now_ms)
        row: dict[str, object] = {
            "id": run_id,
            "name": storable(name),
            "source": storable(source),
            "state": RunState.LOADING,
            "budget": budget,
            "bad_lines": 0,
            "created_at_ms": now_ms,
            "account": account,
            "batch_size": batch_size,
            "reuse_within_ms": reuse_within_ms,
            "pause_failing_engines": pause_failing_engines,
            "has_rollup": True,
            "schedule_id": schedule_id,
            "slot_ms": slot_ms,
        }
        await self._insert_run(row, is_name_new, None if push_to is None else (new_id(now_ms), push_to))
        return run_id

    @writes
    async def _insert_run(
        self,
        connection: AsyncConnection,
        row: dict[str, Any],
        is_name_new: bool,
        push_to: tuple[str, NewEndpoint] | None,
    ) -> None:
        if is_name_new:
            if not self.db.is_sqlite:  # there is one writer at a time
                await connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_NAMES)))
            taken = sa.select(runs.c.id).where(runs.c.name == row["name"], runs.c.id != row["id"]).limit(1)
            if await connection.scalar(taken) is not None:
                raise NameTaken(str(row["name"]))
        await self.db.insert(connection, runs, [row], known="id")
        if push_to is not None:
            await link_run(self.db, connection, row["id"], row["account"], push_to, row["created_at_ms"])

    @writes(long=True)
    async def discard_run(self, connection: AsyncConnection, run_id: str) -> bool:
        """Delete a run whose source was refused, with its tasks: none was ever sent. False: another producer
        has let it begin."""
        return await discard_loading(connection, run_id)

    async def add_tasks(
        self, run_id: str, specs: Sequence[tuple[TaskSpec, Decimal]], now_ms: int
    ) -> list[str]:
        """Store tasks with their idempotency keys, each with our own estimate; nothing was sent before.
        Their ids, in order."""
        ids = [new_id(now_ms) for _ in specs]
        rows = [
            task_row(run_id, task_id, spec, estimated)
            for task_id, (spec, estimated) in zip(ids, specs, strict=True)
        ]
        await self._insert_tasks(run_id, rows, [spec for spec, _ in specs])
        return ids

    @writes
    async def _insert_tasks(
        self, connection: AsyncConnection, run_id: str, rows: Rows, specs: Sequence[TaskSpec]
    ) -> None:
        await self.db.insert(connection, tasks, rows, known="id")
        await insert_of_records(self.db, connection, run_id, specs)

    @writes
    async def _insert(self, connection: AsyncConnection, table: sa.Table, rows: Rows) -> None:
        await self.db.insert(connection, table, rows, known="id")

    async def start_run_if_loading(self, run_id: str, *, sha256: str, bad_lines: int) -> bool:
        """Let a run whose source is read to its end begin to send."""
        begun = entering(self.db, RunState.RUNNING)
        return await self._change_run(
            run_id, (RunState.LOADING,), source_sha256=sha256, bad_lines=bad_lines, **begun
        )

    async def halt_run_if_running(self, run_id: str, state: RunState, reason: RunReason) -> bool:
        """Pause or stop a run that is running; False when somebody was faster."""
        why = {"reason": storable(reason.text), "reason_code": reason.code}
        return await self._change_run(run_id, (RunState.RUNNING,), **why, **entering(self.db, state))

    async def resume_run_if_halted(self, run_id: str) -> bool:
        """Let a paused or stopped run go on."""
        return await self._change_run(run_id, _HALTED, state=RunState.RUNNING, reason=None, reason_code=None)

    async def resume_restored_run(self, run_id: str) -> bool:
        """Let a run go on from a backup, whether it was halted since or not; False if it is over."""
        allowed = (*_HALTED, RunState.RUNNING, RunState.FINISHED)
        # One that is finished goes on when its tasks are retried.
        state = sa.case((runs.c.state == RunState.FINISHED, runs.c.state), else_=RunState.RUNNING)
        return await self._change_run(
            run_id, allowed, state=state, reason=None, reason_code=None, restored=True
        )

    @writes(long=True)
    async def cancel_run(self, connection: AsyncConnection, run_id: str, reason: str) -> int:
        """Cancel what was never sent; what is with the provider goes on and is settled. Tasks cancelled."""
        open_states = (RunState.LOADING, RunState.RUNNING, RunState.PAUSED, RunState.STOPPED)
        await connection.execute(
            sa.update(runs)
            .where(runs.c.id == run_id, runs.c.state.in_(open_states))
            .values(reason=reason, reason_code=None, **entering(self.db, RunState.CANCELLED))
        )
        # A task that was sent before, its response lost, may exist at the provider: it stays pending
        # under its key until its report or its age decides.
        done = await connection.execute(
            sa.update(tasks)
            .where(
                tasks.c.run_id == run_id, tasks.c.state == TaskState.PENDING, ~perhaps_accepted(), is_free()
            )
            .values(state=TaskState.CANCELLED)
        )
        if done.rowcount:
            await add_closed(self.db, connection, TaskState.CANCELLED, tasks.c.run_id == run_id)
        return done.rowcount

    @writes
    async def _change_run(
        self, connection: AsyncConnection, /, run_id: str, allowed: Sequence[RunState], **values: object
    ) -> bool:
        done = await connection.execute(
            sa.update(runs).where(runs.c.id == run_id, runs.c.state.in_(allowed)).values(**values)
        )
        return done.rowcount == 1

    @writes
    async def acquire_lease(
        self, connection: AsyncConnection, name: str, owner: str, *, until_ms: int, now_ms: int
    ) -> bool:
        """Take or prolong a named lease: only its owner may, until it is over. One that lies further ahead
        than this one would was written by a wrong clock, and holds nobody up."""
        take = (
            sa.update(leases)
            .where(
                leases.c.name == name,
                sa.or_(leases.c.owner == owner, has_come(leases.c.until_ms, now_ms, until_ms - now_ms)),
            )
            .values(owner=owner, until_ms=until_ms)
        )
        if (await connection.execute(take)).rowcount:
            return True
        row = {"name": name, "owner": owner, "until_ms": 0}
        await self.db.insert(connection, leases, [row], ignore=True)
        return (await connection.execute(take)).rowcount == 1

    @writes
    async def release_lease(self, connection: AsyncConnection, name: str, owner: str) -> None:
        """Give a lease back early."""
        own_lease = leases.c.name == name, leases.c.owner == owner
        await connection.execute(sa.update(leases).where(*own_lease).values(until_ms=0))


async def discard_loading(connection: AsyncConnection, run_id: str) -> bool:
    """The same, within a transaction of the caller's."""
    held = sa.select(runs.c.id).where(runs.c.id == run_id, runs.c.state == RunState.LOADING)
    if await connection.scalar(held.with_for_update()) is None:
        return False
    own_tasks = sa.select(tasks.c.id).where(tasks.c.run_id == run_id)
    await connection.execute(sa.delete(results).where(results.c.task_id.in_(own_tasks)))
    for table in (task_metadata, task_repeats, tasks, *_KEPT_OF_RUNS):
        await connection.execute(sa.delete(table).where(table.c.run_id == run_id))
    await unlink_run(connection, run_id)
    await connection.execute(sa.delete(runs).where(runs.c.id == run_id))
    return True
