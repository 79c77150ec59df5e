"""Results: their place in the order of settlement, and what processes of the version before left blank."""

import hashlib

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.answer_text import answer_chars
from app.ports import ReadAnswer
from app.store.database import Database
from app.store.part import StorePart, reads, writes
from app.store.read.bodies import read_answers
from app.store.tables import IS_INCOMPLETE, Id, results, settle_sequence

COMPLETED_MAX = 200
"""Results completed by one transaction: each body is unpacked, 20 ms for 200 of 18 KB."""
Key = tuple[str, int]
_TAKE = (
    sa.update(settle_sequence)
    .values(value=settle_sequence.c.value + sa.bindparam("count", type_=sa.BigInteger()))
    .returning(settle_sequence.c.value)
)


async def take_numbers(connection: AsyncConnection, count: int) -> int:
    """The first of `count` numbers of the settle sequence. Until the transaction ends nobody else takes any,
    so they are committed in their order: take them last, right before the results are written."""
    last = await connection.scalar(_TAKE, {"count": count})
    if last is None:
        raise LookupError("settle_sequence has no row")
    return int(last) - count + 1


class ResultWrites(StorePart):
    """Part of the store."""

    def __init__(self, db: Database, read_answer: ReadAnswer) -> None:
        super().__init__(db)
        self._read_answer = read_answer

    async def complete_results(self) -> int:
        """Number results that the version before wrote, and note size and hash of their answers; how many
        were gone through. One whose body is not there, or cannot be read, stays without a hash."""
        count, after = 0, ("00000000-0000-0000-0000-000000000000", 0)
        while page := await self._incomplete(after):
            await self._complete(page)
            count, after = count + len(page), page[-1]
        return count

    @reads
    async def _incomplete(self, connection: AsyncConnection, after: Key) -> list[Key]:
        key = sa.tuple_(results.c.task_id, results.c.attempt)
        query = sa.select(results.c.task_id, results.c.attempt).where(IS_INCOMPLETE)
        query = query.where(key > sa.tuple_(sa.literal(after[0], Id), sa.literal(after[1])))
        rows = await connection.execute(query.order_by(*key.clauses).limit(COMPLETED_MAX))
        return [(row.task_id, row.attempt) for row in rows]

    @writes
    async def _complete(self, connection: AsyncConnection, keys: list[Key]) -> None:
        c = results.c
        named = {"id": Id, "attempt": sa.Integer()}
        v = self.db.batch("v", named, [{"id": i, "attempt": n} for i, n in keys])
        found = await connection.execute(
            sa.select(results)
            .join(v, sa.and_(c.task_id == v.c.id, c.attempt == v.c.attempt))
            .where(IS_INCOMPLETE)
            .order_by(c.stored_at_ms, c.task_id, c.attempt)
            .with_for_update(of=results)
        )
        rows = found.all()
        answers = await read_answers(
            self.db, connection, self._read_answer, [r.delivery_id for r in rows if r.answer_sha256 is None]
        )
        for row in rows:
            if row.answer_sha256 is None and (answer := answers.get(row.delivery_id)) is not None:
                await connection.execute(sa.update(results).where(*_is(row)).values(_facts_of(answer)))
        if unnumbered := [row for row in rows if row.seq is None]:
            first = await take_numbers(connection, len(unnumbered))
            for seq, row in enumerate(unnumbered, first):
                await connection.execute(sa.update(results).where(*_is(row)).values(seq=seq))


def _facts_of(answer: bytes) -> dict[str, object]:
    return {
        "answer_bytes": len(answer),
        "answer_sha256": hashlib.sha256(answer).digest(),
        "answer_chars": answer_chars(answer),
    }


def _is(row: sa.Row[tuple[object, ...]]) -> tuple[sa.ColumnElement[bool], ...]:
    return results.c.task_id == row.task_id, results.c.attempt == row.attempt
