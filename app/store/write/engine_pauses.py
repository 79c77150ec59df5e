"""Engines that are paused because their answers fail, and what a claim passes over for them.

Few rows, mostly none: whoever claims reads them first, and asks nothing of the tasks where there are none.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.engine_pauses import EnginePause
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.task import RunState
from app.store.part import StorePart, reads, writes
from app.store.tables import (
    IS_OPEN,
    IS_OPEN_RUN,
    IS_PENDING,
    REASON_CODE,
    engine_pauses,
    has_come,
    is_due,
    runs,
    tasks,
)
from app.store.write.claims import is_free

PROBE_WAIT_MAX_MS = 5_400_000
"""The longest setting, and its jitter: later, and a wrong clock wrote it."""
_PAUSED = (
    sa.select(engine_pauses.c.task_type)
    .where(engine_pauses.c.account == sa.bindparam("account"), engine_pauses.c.paused_at_ms.is_not(None))
    .order_by(engine_pauses.c.task_type)
)
"""Asked by every claim, so made once."""
_IS_RUNNING = IS_OPEN_RUN, runs.c.state == RunState.RUNNING


class EnginePauseWrites(StorePart):
    """Part of the store."""

    @reads
    async def pausing_accounts(self, connection: AsyncConnection) -> set[str]:
        """Accounts with a run under way that wants failing engines paused."""
        query = sa.select(runs.c.account).where(IS_OPEN_RUN, runs.c.pause_failing_engines).distinct()
        return set(await connection.scalars(query))

    @reads
    async def list_pauses(self, connection: AsyncConnection) -> list[EnginePause]:
        """All that are known, also of engines that go on."""
        query = sa.select(engine_pauses).order_by(engine_pauses.c.account, engine_pauses.c.task_type)
        return [EnginePause(**row._mapping) for row in await connection.execute(query)]

    @writes
    async def begin_pause(self, connection: AsyncConnection, pause: EnginePause) -> None:
        """Pause an engine that goes on."""
        await connection.execute(sa.delete(engine_pauses).where(*_is(pause)))
        await self.db.insert(connection, engine_pauses, [asdict(pause)])

    @writes
    async def note_judged(self, connection: AsyncConnection, pause: EnginePause) -> None:
        """Keep what its newest results say of a pause. When it is probed is the claims' to say."""
        await connection.execute(
            sa.update(engine_pauses)
            .where(*_is(pause))
            .values(
                paused_at_ms=pause.paused_at_ms,
                judged_seq=pause.judged_seq,
                usable_in_row=pause.usable_in_row,
            )
        )

    @reads
    async def runs_waiting(
        self, connection: AsyncConnection, pauses: Sequence[EnginePause]
    ) -> dict[str, list[EnginePause]]:
        """Running runs that have tasks of paused engines to send -> those engines."""
        found: dict[str, list[EnginePause]] = defaultdict(list)
        for pause in pauses:
            has_some = sa.exists().where(tasks.c.run_id == runs.c.id, *_is_passed_over([pause.task_type]))
            query = sa.select(runs.c.id).where(
                *_IS_RUNNING, runs.c.account == pause.account, runs.c.pause_failing_engines, has_some
            )
            for run_id in await connection.scalars(query):
                found[run_id].append(pause)
        return found

    @writes
    async def note_reasons(self, connection: AsyncConnection, reasons: Mapping[str, RunReason]) -> None:
        """Say on these running runs that they wait for engines, and on no others. A reason for which nothing
        of an account is sent stands before it."""
        is_ours = runs.c.reason_code == ReasonCode.ENGINES_FAIL
        for run_id, reason in reasons.items():
            is_free_to_say = sa.or_(REASON_CODE.is_(None), is_ours)
            is_new = sa.func.coalesce(runs.c.reason, "") != reason.text
            await connection.execute(
                sa.update(runs)
                .where(runs.c.id == run_id, *_IS_RUNNING, is_free_to_say, is_new)
                .values(reason=reason.text, reason_code=reason.code)
            )
        await connection.execute(
            sa.update(runs)
            .where(*_IS_RUNNING, is_ours, runs.c.id.not_in(sorted(reasons)))
            .values(reason=None, reason_code=None)
        )


def _is(pause: EnginePause) -> tuple[sa.ColumnElement[bool], ...]:
    c = engine_pauses.c
    return c.account == pause.account, c.task_type == pause.task_type


def _is_passed_over(engines: Sequence[str]) -> tuple[sa.ColumnElement[bool], ...]:
    """Tasks of a run that wait for these engines. An attempt that was sent before goes on: the provider may
    have it, and it may be sent for a day only."""
    return IS_OPEN, IS_PENDING, tasks.c.sends == 0, tasks.c.task_type.in_(engines)


def is_held_back(engines: Sequence[str], pauses: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    """Of a pending task: whether it waits for one of these engines; `pauses`: whether its run wants that."""
    return sa.and_(pauses, tasks.c.sends == 0, tasks.c.task_type.in_(engines))


async def paused_engines(
    connection: AsyncConnection, account: str, *which: sa.ColumnElement[bool]
) -> list[str]:
    """Engines that are paused at an account."""
    query = _PAUSED.where(*which) if which else _PAUSED
    return list(await connection.scalars(query, {"account": account}))


async def held_back(connection: AsyncConnection, now_ms: int) -> sa.ColumnElement[bool] | None:
    """Of a pending task and its run: whether it waits for its engine, and that is not to be probed now.
    None: no task does."""
    c = engine_pauses.c
    waits = sa.not_(has_come(c.probe_at_ms, now_ms, PROBE_WAIT_MAX_MS))
    query = sa.select(c.account, c.task_type).where(c.paused_at_ms.is_not(None), waits)
    engines: dict[str, list[str]] = defaultdict(list)
    for account, task_type in await connection.execute(query):
        engines[account].append(task_type)
    if not engines:
        return None
    of_account = [sa.and_(runs.c.account == a, is_held_back(e, sa.true())) for a, e in engines.items()]
    return sa.and_(runs.c.pause_failing_engines, sa.or_(*of_account))


async def take_probes(
    connection: AsyncConnection, account: str, now_ms: int, next_probe_at_ms: int
) -> list[sa.Row[Any]]:
    """One pending task of each paused engine that is to be probed now; whoever claims it next has to wait
    until `next_probe_at_ms`."""
    c = engine_pauses.c
    found: list[sa.Row[Any]] = []
    is_time = has_come(c.probe_at_ms, now_ms, PROBE_WAIT_MAX_MS)
    for engine in await paused_engines(connection, account, is_time):
        t = tasks.c
        probe: sa.Select[Any] = (
            sa.select(t.id, t.priority, t.run_id, t.ordinal)
            .join(runs, runs.c.id == t.run_id)
            .where(*_IS_RUNNING, runs.c.account == account, runs.c.pause_failing_engines)
            .where(*_is_passed_over([engine]), is_due(now_ms), is_free())
            .limit(1)
        )
        row = (await connection.execute(probe)).first()
        if row is None:
            continue
        # Of claims that look at once, one moves it.
        is_engine = c.account == account, c.task_type == engine, c.paused_at_ms.is_not(None)
        taken = sa.update(engine_pauses).where(*is_engine, is_time).values(probe_at_ms=next_probe_at_ms)
        if (await connection.execute(taken)).rowcount:
            found.append(row)
    return found
