"""Reads of batches, and of their tasks that have no answer. Nothing here writes."""

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import OPEN_STATES, TaskState
from app.store.part import StorePart, reads
from app.store.read.exports import EXPORT_CHUNK
from app.store.read.own_columns import own_columns
from app.store.read.progress import RunProgress, progress_of_many
from app.store.tables import batches, runs, tasks

_B = batches.c
_OF_RUN = ("state", "started_at_ms", "cancelled_at_ms", "finished_at_ms")


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch and where its run stands."""

    run_id: str
    account: str
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: str | None
    created_at_ms: int
    expires_at_ms: int
    expired_at_ms: int | None
    failed_at_ms: int | None
    errors: str | None
    state: str | None
    """Of its run; None: there is none, since the file was refused."""
    started_at_ms: int | None
    cancelled_at_ms: int | None
    finished_at_ms: int | None


class BatchReads(StorePart):
    """Part of the store."""

    @reads
    async def batch(self, connection: AsyncConnection, run_id: str) -> tuple[BatchRow, RunProgress] | None:
        """One with its counts; None: there is none."""
        found = await _page(connection, [run_id])
        return found[0] if found else None

    @reads
    async def batches(
        self, connection: AsyncConnection, account: str | None, before: str | None, limit: int
    ) -> list[tuple[BatchRow, RunProgress]]:
        """The newest, or the newest that are older than one; of one account, or of all."""
        query = sa.select(_B.run_id).order_by(_B.run_id.desc()).limit(limit)
        if account is not None:
            query = query.where(_B.account == account)
        if before is not None:
            query = query.where(_B.run_id < before)
        return await _page(connection, (await connection.scalars(query)).all())

    @reads
    async def is_input(self, connection: AsyncConnection, file_id: str) -> bool:
        """Whether a file is still being read for a batch."""
        is_loading = sa.select(_B.run_id).join(runs, runs.c.id == _B.run_id)
        is_loading = is_loading.where(runs.c.state == sa.literal_column("'loading'"))
        return await connection.scalar(is_loading.where(_B.input_file_id == file_id).limit(1)) is not None

    async def unanswered(self, run_id: str) -> AsyncIterator[Sequence[sa.Row[Any]]]:
        """Tasks that ended without an answer, in the order of their source: a page at a time."""
        after = 0
        while rows := await self._unanswered_page(run_id, after):
            yield rows
            after = rows[-1].ordinal

    @reads(long=True)
    async def _unanswered_page(
        self, connection: AsyncConnection, run_id: str, after: int
    ) -> Sequence[sa.Row[Any]]:
        t = tasks.c
        columns = (t.ordinal, t.id, t.state, t.error_code, t.error_message, *own_columns())
        query = sa.select(*columns).where(t.run_id == run_id, t.ordinal > after)
        query = query.where(t.state.not_in([TaskState.COMPLETED, *OPEN_STATES]))
        return (await connection.execute(query.order_by(t.ordinal).limit(EXPORT_CHUNK))).all()


async def _page(connection: AsyncConnection, run_ids: Sequence[str]) -> list[tuple[BatchRow, RunProgress]]:
    """The newest first, with their runs, which are looked up by their keys: a join might read all runs for
    one page. Runs first: one that is gone by then is of a batch that says that it failed."""
    if not run_ids:
        return []
    of_runs = sa.select(runs.c.id, *(runs.c[name] for name in _OF_RUN)).where(runs.c.id.in_(run_ids))
    known = {row.id: row[1:] for row in await connection.execute(of_runs)}
    own = sa.select(*(_B[name] for name in BatchRow.__slots__ if name not in _OF_RUN))
    own = own.where(_B.run_id.in_(run_ids)).order_by(_B.run_id.desc())
    rows = (await connection.execute(own)).all()
    nothing = (None,) * len(_OF_RUN)
    progress = await progress_of_many(connection, run_ids)
    return [(BatchRow(*row, *known.get(row.run_id, nothing)), progress[row.run_id]) for row in rows]
