"""Bulk changes: tried out, confirmed, and done a chunk at a time. A chunk is one transaction with the row
that says how far the change has come, so that each task is changed once, whoever does it, however it ends.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import ActionRow
from app.domain.bulk_change import (
    BY_HAND,
    COSTS_MORE,
    MORE_MATCH,
    Aim,
    BulkChange,
    ChangeState,
    Figures,
    Place,
    Verb,
)
from app.domain.run_reason import BY_HAND as PAUSED_BY_HAND
from app.domain.task import Money, RunState, TaskState
from app.store.by_index import is_one_of, read_by_index
from app.store.part import StorePart, reads, writes
from app.store.read.task_matching import RANGES_MAX
from app.store.tables import IS_RUNNING_CHANGE, bulk_changes, runs, tasks
from app.store.write.access import insert_action
from app.store.write.bulk_matching import Part, figures_of, is_allowed, matching_runs, next_part, tasks_of
from app.store.write.relay_messages import add_closed
from app.store.write.retries import add_attempts
from app.store.write.run_ends import reopen_runs
from app.store.write.run_times import entering

CHUNK = 500
"""Tasks, or runs, of one transaction."""
_C = bulk_changes.c
_FIGURES = tuple(Figures.__slots__)


@dataclass(frozen=True, slots=True)
class _Step:
    """What one transaction did."""

    done: Figures
    place: Place
    is_end: bool = False
    reason: str | None = None


class BulkChangeWrites(StorePart):
    """Part of the store."""

    @reads(long=True)
    async def figures_after(
        self, connection: AsyncConnection, aim: Aim, place: Place
    ) -> tuple[Figures, Place | None]:
        """What would be done behind a place, and where more of it begins; None: that is all."""
        await read_by_index(connection)
        if aim.verb.is_of_runs:
            count = sa.select(sa.func.count()).select_from(matching_runs(aim, place).subquery())
            return Figures(await connection.scalar(count) or 0), None
        found = Figures()
        for _ in range(RANGES_MAX):
            part = await next_part(connection, aim, place)
            if part is None:
                return found, None
            found = found.plus(await figures_of(connection, aim, part, is_sqlite=self.db.is_sqlite))
            place = part.place
        return found, place

    @writes
    async def propose(self, connection: AsyncConnection, change: BulkChange) -> None:
        """Keep what was tried out, to be confirmed."""
        await self.db.insert(connection, bulk_changes, [_row(change)], known="id")

    @writes
    async def confirm_if_proposed(
        self, connection: AsyncConnection, change_id: str, now_ms: int, action: ActionRow | None
    ) -> bool:
        """Let it be done; False: it is no proposal any more."""
        begun = {"state": ChangeState.RUNNING, "confirmed_at_ms": now_ms}
        return await self._changed(connection, change_id, ChangeState.PROPOSED, begun, action)

    @writes
    async def stop_if_running(
        self, connection: AsyncConnection, change_id: str, now_ms: int, action: ActionRow | None
    ) -> bool:
        """Do no more of it; False: it is over, or was never begun."""
        ended = {"state": ChangeState.STOPPED, "finished_at_ms": now_ms, "reason": BY_HAND}
        return await self._changed(connection, change_id, ChangeState.RUNNING, ended, action)

    @writes(long=True)
    async def advance(self, connection: AsyncConnection, change_id: str, now_ms: int) -> BulkChange | None:
        """Do the next chunk of a bulk change; how it stands then. None: it does not go on."""
        found = sa.select(bulk_changes).where(_C.id == change_id, IS_RUNNING_CHANGE).with_for_update()
        row = (await connection.execute(found)).one_or_none()
        if row is None:
            return None
        await read_by_index(connection)
        change = _change(row)
        step = await (self._change_runs if change.verb.is_of_runs else self._change_tasks)(
            connection, change, now_ms
        )
        change = replace(change, done=change.done.plus(step.done), place=step.place)
        if step.is_end:
            change = replace(change, state=ChangeState.FINISHED, finished_at_ms=now_ms, reason=step.reason)
        await connection.execute(sa.update(bulk_changes).where(_C.id == change_id).values(_row(change)))
        return change

    @writes(long=True)
    async def change_task(
        self, connection: AsyncConnection, aim: Aim, run_id: str, ordinal: int, now_ms: int
    ) -> Figures:
        """The same for one task, whatever the filter; what was done to it. All 0: its state, or that of its
        run, does not allow it."""
        await read_by_index(connection)
        part = Part(run_id, ordinal - 1, ordinal, is_last=True)
        enough = Figures(1, Decimal("Infinity"))
        return (await self._change_part(connection, aim, part, 1, enough, now_ms)).done

    @reads
    async def find(
        self, connection: AsyncConnection, change_id: str, account: str | None = None
    ) -> BulkChange | None:
        """One; None: there is none, or it is another account's."""
        query = sa.select(bulk_changes).where(_C.id == change_id, *_of(account))
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else _change(row)

    @reads
    async def changes_before(
        self, connection: AsyncConnection, before_id: str | None, limit: int, account: str | None = None
    ) -> list[BulkChange]:
        """The newest, or the newest that are older than `before_id`."""
        query = sa.select(bulk_changes).where(*_of(account)).order_by(_C.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(_C.id < before_id)
        return [_change(row) for row in await connection.execute(query)]

    @reads
    async def running_changes(self, connection: AsyncConnection) -> Sequence[str]:
        """Ids of those that are to be done, the oldest first."""
        return (await connection.scalars(sa.select(_C.id).where(IS_RUNNING_CHANGE).order_by(_C.id))).all()

    @writes
    async def forget_proposals(self, connection: AsyncConnection, before_id: str) -> int:
        """Delete those that nobody has confirmed."""
        old = sa.delete(bulk_changes).where(_C.id < before_id, _C.state == ChangeState.PROPOSED)
        return (await connection.execute(old)).rowcount

    async def _changed(
        self,
        connection: AsyncConnection,
        change_id: str,
        state: ChangeState,
        values: dict[str, Any],
        action: ActionRow | None,
    ) -> bool:
        change = sa.update(bulk_changes).where(_C.id == change_id, _C.state == state)
        is_changed = (await connection.execute(change.values(**values))).rowcount == 1
        if is_changed and action is not None:
            await insert_action(self, connection, action)
        return is_changed

    async def _change_tasks(self, connection: AsyncConnection, change: BulkChange, now_ms: int) -> _Step:
        done, place = Figures(), change.place
        for _ in range(RANGES_MAX):
            part = await next_part(connection, change.aim, place)
            if part is None:
                return _Step(done, place, is_end=True)
            so_far = change.done.plus(done)
            left = Figures(change.proposed.matched - so_far.matched, change.proposed.credits - so_far.credits)
            step = await self._change_part(connection, change.aim, part, CHUNK - done.matched, left, now_ms)
            done, place = done.plus(step.done), step.place
            if step.is_end:
                return replace(step, done=done)
            if done.matched >= CHUNK:
                break
        return _Step(done, place)

    async def _change_part(
        self, connection: AsyncConnection, aim: Aim, part: Part, limit: int, left: Figures, now_ms: int
    ) -> _Step:
        # Whoever claims, cancels or ends a run holds its row.
        run = sa.select(runs.c.id).where(runs.c.id == part.run_id, is_allowed(aim))
        if await connection.scalar(run.with_for_update(key_share=True)) is None:
            return _Step(Figures(), Place(part.run_id))
        query = tasks_of(aim, part, is_sqlite=self.db.is_sqlite).order_by(tasks.c.ordinal).limit(limit)
        rows = (await connection.execute(query.with_for_update(of=tasks))).all()
        step, chosen = _chosen(aim, part, rows, limit, left)
        if chosen and aim.verb is Verb.RETRY:
            await add_attempts(self.db, connection, chosen, now_ms)
            await reopen_runs(connection, [part.run_id])
        elif chosen:
            await self._cancel(connection, [row.id for row in chosen])
        return step

    async def _cancel(self, connection: AsyncConnection, ids: Sequence[str]) -> None:
        those = is_one_of(connection, tasks.c.id, ids)
        await connection.execute(sa.update(tasks).where(those).values(state=TaskState.CANCELLED))
        await add_closed(self.db, connection, TaskState.CANCELLED, those)

    async def _change_runs(self, connection: AsyncConnection, change: BulkChange, _now_ms: int) -> _Step:
        limit = min(CHUNK, change.proposed.matched - change.done.matched)
        query = matching_runs(change.aim, change.place).limit(limit + 1)
        found = (await connection.scalars(query.with_for_update(of=runs, key_share=True))).all()
        ids = found[:limit]
        if change.verb is Verb.PAUSE:
            why = {"reason": PAUSED_BY_HAND.text, "reason_code": PAUSED_BY_HAND.code}
            values: dict[str, Any] = why | entering(self.db, RunState.PAUSED)
        else:
            values = {"state": RunState.RUNNING, "reason": None, "reason_code": None}
        await connection.execute(sa.update(runs).where(runs.c.id.in_(ids)).values(**values))
        done, place = Figures(len(ids)), Place(ids[-1]) if ids else change.place
        if len(found) <= limit:
            return _Step(done, place, is_end=True)
        is_over = change.done.matched + len(ids) >= change.proposed.matched
        return _Step(done, place, is_over, MORE_MATCH if is_over else None)


def _chosen(
    aim: Aim, part: Part, rows: Sequence[sa.Row[Any]], limit: int, left: Figures
) -> tuple[_Step, list[sa.Row[Any]]]:
    """Which of the rows are changed, so that no more is than was confirmed."""
    chosen: list[sa.Row[Any]] = []
    done, place = Figures(), Place(part.run_id, part.after)
    for row in rows:
        figures = _figures(aim, row)
        after = done.plus(figures)
        if figures.matched and after.matched > left.matched:
            return _Step(done, place, is_end=True, reason=MORE_MATCH), chosen
        if aim.verb is Verb.RETRY and after.credits > left.credits:
            return _Step(done, place, is_end=True, reason=COSTS_MORE), chosen
        chosen += [row] if figures.matched else []
        done, place = after, Place(part.run_id, row.ordinal)
    return _Step(done, part.place if len(rows) < limit else place), chosen


def _figures(aim: Aim, row: sa.Row[Any]) -> Figures:
    if row.is_answered:
        return Figures(left_answered=1)
    if row.may_be_charged and not aim.even_if_held:
        is_held = row.money == Money.HELD
        return Figures(left_held=1, held=(row.credits_held or Decimal(0)) if is_held else Decimal(0))
    return Figures(1, row.credits_estimate)


def _of(account: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if account is None else [_C.account == account]


def _change(row: sa.Row[Any]) -> BulkChange:
    names = (name for name in BulkChange.__slots__ if name in row._fields)
    values = {name: getattr(row, name) for name in names}
    return BulkChange(
        **values
        | {"verb": Verb(row.verb), "state": ChangeState(row.state)}
        | {"proposed": Figures(*(getattr(row, name) for name in _FIGURES))}
        | {"done": Figures(*(getattr(row, f"done_{name}") for name in _FIGURES))}
        | {"place": Place(row.place_run_id, row.place_ordinal)}
    )


def _row(change: BulkChange) -> dict[str, Any]:
    values = {name: getattr(change, name) for name in BulkChange.__slots__ if name in _C}
    values |= {name: getattr(change.proposed, name) for name in _FIGURES}
    values |= {f"done_{name}": getattr(change.done, name) for name in _FIGURES}
    return values | {"place_run_id": change.place.run_id, "place_ordinal": change.place.ordinal}
