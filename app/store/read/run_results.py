"""Reads of one run's results in the order of settlement, however long the history is beside them.

No index has the results of a run in that order. So their numbers are found first, many at once: by the
sequence where it is short, else by the run's tasks. Nothing here writes.
"""

from bisect import bisect_right
from collections.abc import AsyncIterator, Sequence

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import TaskState
from app.store.part import reads
from app.store.read.bodies import AnswerReads
from app.store.read.exports import EXPORT_CHUNK, Row, read_results
from app.store.read.settled import settled_rows
from app.store.tables import Id, results, tasks

WALKED_MAX = 20_000
"""Numbers of the sequence that are gone through for those of one run: some 0.2 s."""
FOUND_MAX = 200_000
"""Numbers that are found at once by going through the tasks of a run: 8 MB, and a tenth of the time that it
takes to read their answers."""


class RunResultReads(AnswerReads):
    """Part of the store."""

    async def results_of_run(self, run_id: str, after_seq: int) -> AsyncIterator[Sequence[Row]]:
        """The results of a run behind a number, in pages, up to the last one that was settled when the
        reading came there. None is left out: numbers are committed in their order. A response whose body is
        neither stored nor archived is null, and `response_note` says why."""
        async for rows in self._results(run_id, after_seq, is_answer=False):
            yield rows

    async def answers_of_run(self, run_id: str) -> AsyncIterator[Sequence[Row]]:
        """The same from the beginning, of what tasks have come to: one result for each that is answered."""
        async for rows in self._results(run_id, 0, is_answer=True):
            yield rows

    async def _results(self, run_id: str, after_seq: int, *, is_answer: bool) -> AsyncIterator[Sequence[Row]]:
        seq = after_seq
        while numbers := await self._numbers(run_id, seq):
            done = 0
            while done < len(numbers):
                rows, is_cut = await self._page(numbers[done : done + EXPORT_CHUNK], is_answer)
                yield rows
                # Where answers are long.
                done = bisect_right(numbers, rows[-1]["seq"]) if is_cut else done + EXPORT_CHUNK
            seq = numbers[-1]

    @reads(long=True)
    async def _numbers(self, connection: AsyncConnection, run_id: str, after_seq: int) -> list[int]:
        # First, since what commits between the two statements has higher numbers.
        top = await connection.scalar(sa.select(sa.func.max(results.c.seq))) or 0
        if top <= after_seq:
            return []
        query = sa.select(results.c.seq).join(tasks, tasks.c.id == results.c.task_id)
        # In each the other way is hidden from the planner, which would guess.
        if top - after_seq <= WALKED_MAX:
            its_run = sa.func.coalesce(tasks.c.run_id, sa.literal(run_id, Id))
            query = query.where(results.c.seq.between(after_seq + 1, top), its_run == run_id)
        else:
            number = sa.func.coalesce(results.c.seq, 0)
            query = query.where(tasks.c.run_id == run_id, number.between(after_seq + 1, top))
        found = await connection.scalars(query.order_by(results.c.seq).limit(FOUND_MAX))
        return list(found.all())

    @reads(long=True)
    async def _page(
        self, connection: AsyncConnection, numbers: Sequence[int], is_answer: bool
    ) -> tuple[Sequence[Row], bool]:
        batch = self.db.batch("v", {"seq": sa.BigInteger()}, [{"seq": n} for n in numbers])
        query = settled_rows().join(batch, results.c.seq == batch.c.seq)
        if is_answer:
            query = query.where(results.c.attempt == tasks.c.attempt, tasks.c.state == TaskState.COMPLETED)
        return await read_results(self.db, connection, self._read_answer, query, self._archive)
