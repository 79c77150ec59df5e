"""Some tasks of a run, evenly spread over its source: what the page draws of a run, in the same time however
long it is. Nothing here writes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.by_index import read_by_index
from app.store.part import StorePart, reads
from app.store.read.repeats import Repeated, repeated_of
from app.store.tables import asked_from, credits_sum, ledger, results, tasks

SAMPLED = 2_000
"""Looked up one by one in a long run, by the index of run and ordinal: 20 ms."""
STRETCH = 10
"""Of them stand side by side, mostly on the same pages: one by one they took half a second with nothing in
memory. And every third task of a source that goes round three engines is of the same one."""


@dataclass(frozen=True, slots=True)
class SampledTask:
    """What a chart needs of one task."""

    task_type: str
    country: str | None
    state: str
    verdict: str | None
    submitted_at_ms: int | None
    settled_at_ms: int | None
    charged: Decimal | None
    error_code: str | None
    is_reused: bool
    chars: int | None
    """Of its answer's text; None: it has no answer."""


@dataclass(frozen=True, slots=True)
class RunSample:
    """Of a run of up to SAMPLED tasks: all of it."""

    tasks: Sequence[SampledTask]
    is_whole: bool
    voided: Decimal | None
    """Credits that the ledger gave back; None: only the whole ledger would tell."""
    repeated: Sequence[Repeated]
    """Records by samples answered, of a run that is whole here."""


class RunSampleReads(StorePart):
    """Part of the store."""

    @reads
    async def sample(self, connection: AsyncConnection, run_id: str) -> RunSample:
        """The same tasks each time, as long as none are added."""
        await read_by_index(connection)
        highest = sa.select(sa.func.max(tasks.c.ordinal)).where(tasks.c.run_id == run_id)
        last = await connection.scalar(highest) or 0
        if last <= SAMPLED:
            found = await self._tasks(connection, run_id, tasks.c.ordinal <= SAMPLED)
            voids = ledger.c.run_id == run_id, ledger.c.kind == "void"
            voided = await connection.scalar(sa.select(credits_sum(ledger.c.credits)).where(*voids))
            return RunSample(found, True, voided or Decimal(0), await repeated_of(connection, run_id))
        found = await self._tasks(connection, run_id, tasks.c.ordinal.in_(places_of(last)))
        return RunSample(found, False, None, ())

    @reads
    async def voided(self, connection: AsyncConnection, run_id: str, after: int, through: int) -> Decimal:
        """Credits that the ledger gave back of some tasks of a run, by their places in it."""
        await read_by_index(connection)
        t, e = tasks.c, ledger.c
        which = t.run_id == run_id, t.ordinal > after, t.ordinal <= through
        # Both conditions: with the first it is read by the index of closing entries.
        voids = e.kind.in_(("post", "void")), e.kind == "void"
        # Asked for each task: a join would begin with the entries of all runs where few are voids.
        of_task = sa.select(credits_sum(e.credits)).where(e.task_id == t.id, *voids).correlate(tasks)
        found = await connection.scalar(sa.select(credits_sum(of_task.scalar_subquery())).where(*which))
        return found or Decimal(0)

    async def _tasks(
        self, connection: AsyncConnection, run_id: str, which: sa.ColumnElement[bool]
    ) -> list[SampledTask]:
        t, r = tasks.c, results.c
        its_result = sa.and_(r.task_id == t.id, r.attempt == t.attempt)
        query = (
            sa.select(
                t.task_type,
                asked_from(self.db.is_sqlite),
                t.state,
                t.verdict,
                t.submitted_at_ms,
                t.settled_at_ms,
                t.credits_charged,
                t.error_code,
                t.reused_from.is_not(None),
                sa.func.coalesce(r.answer_chars, r.answer_bytes),
            )
            .select_from(tasks.outerjoin(results, its_result))
            .where(t.run_id == run_id, which)
        )
        return [SampledTask(*row) for row in await connection.execute(query)]


def places_of(last: int) -> list[int]:
    """Ordinals of a sample of a longer run: stretches, the first at its beginning and the last at its end."""
    stretches = max(2, SAMPLED // STRETCH)
    starts = (1 + n * (last - STRETCH) // (stretches - 1) for n in range(stretches))
    return [start + n for start in starts for n in range(STRETCH)]
