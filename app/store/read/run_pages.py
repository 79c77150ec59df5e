"""Runs a page at a time, each page from an index in the order that it is given in. Nothing here writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.part import StorePart, reads
from app.store.read.runs import RUN_COLUMNS, RunRow
from app.store.tables import IS_OPEN_RUN, runs


@dataclass(frozen=True, slots=True)
class RunTimes:
    """When a run last came into each state that its row does not tell otherwise; None: never, or unknown."""

    started_at_ms: int | None
    paused_at_ms: int | None
    stopped_at_ms: int | None
    cancelled_at_ms: int | None


@dataclass(frozen=True, slots=True)
class TimedRun:
    """A run with its times."""

    run: RunRow
    times: RunTimes


class RunPageReads(StorePart):
    """Part of the store."""

    @reads
    async def runs_before(
        self, connection: AsyncConnection, before_id: str | None, limit: int, account: str | None = None
    ) -> list[TimedRun]:
        """The newest runs, or the newest that are older than `before_id`; of one account, where one is given.
        Ids are in the order of creation."""
        query = _query().order_by(runs.c.id.desc()).limit(limit)
        if before_id is not None:
            query = query.where(runs.c.id < before_id)
        return await self._runs(connection, query, account)

    @reads
    async def live_runs(
        self, connection: AsyncConnection, limit: int, newest: int, also: Collection[str]
    ) -> list[TimedRun]:
        """Up to `limit` runs that are not over, those of `also`, and so many of the newest. Newest first,
        each once."""
        newest_first = _query().order_by(runs.c.id.desc())
        queries = [
            (newest_first.where(IS_OPEN_RUN), limit),
            (newest_first, newest),
            (newest_first.where(runs.c.id.in_(sorted(also))), len(also)),
        ]
        found = {}
        for query in [query.limit(count) for query, count in queries if count]:
            found.update({run.run.id: run for run in await self._runs(connection, query, None)})
        return [found[run_id] for run_id in sorted(found, reverse=True)]

    @reads
    async def run_with_id(
        self, connection: AsyncConnection, run_id: str, account: str | None = None
    ) -> TimedRun | None:
        """One run; None: there is none, or it is another account's."""
        found = await self._runs(connection, _query().where(runs.c.id == run_id), account)
        return found[0] if found else None

    @reads
    async def newest_of_schedules(
        self, connection: AsyncConnection, schedule_ids: Sequence[str], limit: int
    ) -> dict[str, list[TimedRun]]:
        """Schedule -> its newest runs, the oldest of them first. One look into the index for each."""
        found = {}
        for schedule_id in schedule_ids:
            query = _query().where(runs.c.schedule_id == schedule_id).order_by(runs.c.slot_ms.desc())
            found[schedule_id] = (await self._runs(connection, query.limit(limit), None))[::-1]
        return found

    async def _runs(
        self, connection: AsyncConnection, query: "sa.Select[tuple[object, ...]]", account: str | None
    ) -> list[TimedRun]:
        if account is not None:
            query = query.where(runs.c.account == account)
        return [_timed(tuple(row)) for row in await connection.execute(query)]


_TIMES = [runs.c[name] for name in RunTimes.__slots__]


def _query() -> "sa.Select[tuple[object, ...]]":
    return sa.select(*RUN_COLUMNS, *_TIMES)


def _timed(row: Sequence[object]) -> TimedRun:
    count = len(RUN_COLUMNS)
    return TimedRun(RunRow(*row[:count]), RunTimes(*row[count:]))  # type: ignore[arg-type]
