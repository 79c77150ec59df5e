"""Reads of a run's rows, one after another, in memory that stays flat however many there are and however long
their answers. Nothing here writes.
"""

import hashlib
import json
from collections.abc import AsyncIterator, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.own_columns import own_names
from app.domain.retention import Receipt, Receipts
from app.domain.task import TaskState
from app.domain.time_format import iso_day
from app.ports import ArchivedDeliveries, ReadAnswer
from app.store.by_index import read_by_index
from app.store.database import Database
from app.store.part import reads
from app.store.read.archived import archived_rows
from app.store.read.bodies import AnswerReads, read_answers
from app.store.read.own_columns import own_columns
from app.store.read.repeats import answered_samples
from app.store.tables import (
    Credits,
    account_entries,
    attempts,
    ledger,
    results,
    runs,
    task_metadata,
    task_repeats,
    tasks,
)
from app.store.write.receipts import receipts_of

Row = dict[str, Any]

GONE, PRUNED = "its body is not stored any more, or cannot be read", "pruned on"
"""Said of a response that is null; one that the provider gave as null is the text `null`. The second with the
day (UTC) on which its body was dropped."""
EXPORT_CHUNK = 500
"""Rows of one read transaction: a slow reader of the export must not hold one open, or SQLite's log grows."""
CHUNK_BYTES = 8 << 20
"""Answers of one read transaction, together: 450 of 18 KB. One row more may stand above it."""
UNKNOWN_BYTES = 1 << 20
"""Taken for the size of an answer that no sweep has measured yet."""
ROWS_FETCHED = 20
"""Asked of the database at a time, within a chunk."""
LEDGER_CHUNK = 2_000
"""Entries are 300 bytes, and their own columns up to 16 KB: 32 MB at most. Larger than above, since
each chunk may sort the run's entries anew."""


class ExportReads(AnswerReads):
    """Part of the store."""

    async def export(self, run_id: str) -> AsyncIterator[Row]:
        """Every task of a run with its answer, in the order of its source. `payload` is parsed; `metadata` is
        the JSON text of own columns, null without any; `response` the JSON text as it came, null without an
        answer, or when its body is neither stored nor archived any more: then `answer_sha256`, the hash of
        that text in hex, is all that is left, and
        `response_note` says why."""
        after = 0
        while True:
            rows, is_last = await self._export_chunk(run_id, after)
            for row in rows:
                yield row
            if is_last:
                return
            after = rows[-1]["ordinal"]

    @reads(long=True)
    async def _export_chunk(
        self, connection: AsyncConnection, run_id: str, after: int
    ) -> tuple[list[Row], bool]:
        t = tasks.c
        query = (
            sa.select(
                t.ordinal,
                t.id.label("task_id"),
                *own_columns(),
                t.attempt,
                t.task_type,
                t.payload,
                t.priority,
                t.state,
                t.verdict,
                t.credits_estimate,
                t.credits_to_charge,
                _charged(),
                t.provider_task_id,
                t.error_code,
                t.error_message,
                t.submitted_at_ms,
                t.settled_at_ms,
                t.settled_by,
                t.reused_from,
                results.c.delivery_id,
                results.c.answer_bytes,
                results.c.answer_sha256,
            )
            .outerjoin(results, sa.and_(results.c.task_id == t.id, results.c.attempt == t.attempt))
            .where(t.run_id == run_id, t.ordinal > after)
            .order_by(t.ordinal)
            .limit(EXPORT_CHUNK)
        )
        await read_by_index(connection)
        rows, is_cut = await read_results(self.db, connection, self._read_answer, query, self._archive)
        await _count_answered(connection, run_id, rows)
        return rows, not is_cut and len(rows) < EXPORT_CHUNK

    async def remaining(self, run_id: str) -> AsyncIterator[Row]:
        """Tasks of a run that have no answer, in the order of its source: what makes their records, and
        `state`. `payload` is parsed."""
        after = 0
        while rows := await self._remaining_page(run_id, after):
            for row in rows:
                yield dict(row._mapping) | {"payload": json.loads(row.payload)}
            after = rows[-1].ordinal

    @reads(long=True)
    async def _remaining_page(
        self, connection: AsyncConnection, run_id: str, after: int
    ) -> Sequence[sa.Row[Any]]:
        t = tasks.c
        query = (
            sa.select(t.ordinal, t.task_type, t.payload, t.priority, t.state, *own_columns())
            .where(t.run_id == run_id, t.ordinal > after, t.state != TaskState.COMPLETED)
            .order_by(t.ordinal)
            .limit(EXPORT_CHUNK)
        )
        return (await connection.execute(query)).all()

    async def own_column_names(self, run_id: str) -> list[str]:
        """The own columns of a run's tasks, in the order in which they first stand in its source. Reads the
        own columns of all its tasks, a page at a time; where there are none, nothing."""
        names: dict[str, None] = {}
        after = 0
        while rows := await self._metadata_page(run_id, after):
            for row in rows:
                names.update(dict.fromkeys(own_names(row.metadata)))
            after = rows[-1].ordinal
        return list(names)

    @reads
    async def _metadata_page(self, connection: AsyncConnection, run_id: str, after: int) -> list[sa.Row[Any]]:
        m = task_metadata.c
        query = (
            sa.select(m.ordinal, m.metadata)
            .where(m.run_id == run_id, m.ordinal > after, m.metadata.is_not(None))
            .order_by(m.ordinal)
            .limit(EXPORT_CHUNK)
        )
        return list(await connection.execute(query))

    async def export_ledger(self, run_id: str) -> AsyncIterator[Row]:
        """Every ledger entry of a run in the order of writing, then what the account's books say about it:
        corrections. `book` tells the two apart; (book, entry_id) is unique."""
        for query in (_ledger_query(run_id), _account_query(run_id)):
            entry_id = query.selected_columns.entry_id
            after = 0
            while True:
                page = query.where(entry_id > after).order_by(entry_id).limit(LEDGER_CHUNK)
                rows = await self._entries(page)
                for row in rows:
                    yield row
                if len(rows) < LEDGER_CHUNK:
                    break
                after = rows[-1]["entry_id"]

    @reads(long=True)
    async def _entries(self, connection: AsyncConnection, query: sa.Select[Any]) -> list[Row]:
        return [dict(row._mapping) for row in await connection.execute(query)]


async def read_results(
    db: Database,
    connection: AsyncConnection,
    read_answer: ReadAnswer,
    query: sa.Select[Any],
    archive: ArchivedDeliveries | None = None,
) -> tuple[list[Row], bool]:
    """(the rows of a query on results, with their answers; whether it was cut short because these are long).
    `response` is null without an answer, and where its body is neither stored nor archived, or cannot be
    read. Raises what the archive raises."""
    rows: list[Row] = []
    size = 0
    async with connection.stream(query.execution_options(yield_per=ROWS_FETCHED)) as found:
        async for row in found:
            rows.append(dict(row._mapping) | {"payload": json.loads(row.payload)})
            if row.delivery_id is not None:
                size += UNKNOWN_BYTES if row.answer_bytes is None else row.answer_bytes
            if size >= CHUNK_BYTES:
                break
    await _fill_answers(db, connection, read_answer, rows, archive)
    return rows, size >= CHUNK_BYTES


async def _fill_answers(
    db: Database,
    connection: AsyncConnection,
    read_answer: ReadAnswer,
    rows: Sequence[Row],
    archive: ArchivedDeliveries | None,
) -> None:
    ids = {row["delivery_id"] for row in rows} - {None}
    answers = await read_answers(db, connection, read_answer, ids)
    archived = await archived_rows(db, connection, archive, ids - answers.keys())
    answers |= {i: read_answer(row["body"]) for i, row in archived.items()}
    texts = {i: answer.decode() for i, answer in answers.items()}
    receipts: Receipts | None = None
    for row in rows:
        delivery_id, sha256 = row.pop("delivery_id"), row.pop("answer_sha256")
        del row["answer_bytes"]
        row["response"] = texts.get(delivery_id)
        if sha256 is None and delivery_id in answers:
            sha256 = hashlib.sha256(answers[delivery_id]).digest()
        row["answer_sha256"] = sha256.hex() if sha256 else None
        row["response_note"] = None
        if delivery_id is not None and row["response"] is None:
            receipts = receipts or await receipts_of(connection)
            row["response_note"] = _note(receipts.of_body(delivery_id))


def _note(receipt: Receipt | None) -> str:
    return GONE if receipt is None else f"{PRUNED} {iso_day(receipt.at_ms)}"


async def _count_answered(connection: AsyncConnection, run_id: str, rows: Sequence[Row]) -> None:
    """Say of each sample how many of its record's are answered; null where a record asks for one only."""
    firsts = [row["ordinal"] - row["sample"] + 1 for row in rows if row["repeats"] is not None]
    answered = await _answered(connection, run_id, firsts[0], firsts[-1]) if firsts else {}
    for row in rows:
        is_one = row["repeats"] is not None
        row["samples_answered"] = answered[row["ordinal"] - row["sample"] + 1] if is_one else None


async def _answered(
    connection: AsyncConnection, run_id: str, from_ordinal: int, to_ordinal: int
) -> dict[int, int]:
    is_asked = task_repeats.c.first_ordinal.between(from_ordinal, to_ordinal)
    query = answered_samples(run_id).where(is_asked)
    return {row.first_ordinal: int(row.answered) for row in await connection.execute(query)}


def _charged() -> sa.ColumnElement[Any]:
    """What a task cost: the charges of all its attempts, those that retries replaced among them. Null: nobody
    has reported the last one's, and nothing was charged before."""
    before = sa.select(sa.func.sum(attempts.c.credits_charged)).where(attempts.c.task_id == tasks.c.id)
    # Most tasks have no other attempt, and are not looked up.
    earlier = sa.case((tasks.c.attempt > 1, sa.func.nullif(before.scalar_subquery(), 0)))
    last = tasks.c.credits_charged
    total = sa.case((earlier.is_(None), last), else_=sa.func.coalesce(last, 0) + earlier)
    return sa.type_coerce(total, Credits).label("credits_charged")


def _ledger_query(run_id: str) -> sa.Select[Any]:
    e = ledger.c
    return (
        sa.select(
            sa.literal("ledger").label("book"),
            e.id.label("entry_id"),
            e.at_ms.label("booked_at_ms"),
            e.run_id,
            runs.c.account,
            tasks.c.ordinal,
            tasks.c.task_type,
            e.task_id,
            *own_columns(),
            e.attempt,
            e.kind,
            e.credits,
            e.delivery_id,
            e.reason,
        )
        .outerjoin(runs, runs.c.id == e.run_id)
        .outerjoin(tasks, tasks.c.id == e.task_id)
        .where(e.run_id == run_id)
    )


def _account_query(run_id: str) -> sa.Select[Any]:
    e = account_entries.c
    return (
        sa.select(
            sa.literal("account").label("book"),
            e.id.label("entry_id"),
            e.at_ms.label("booked_at_ms"),
            e.run_id,
            e.account,
            tasks.c.ordinal,
            tasks.c.task_type,
            e.task_id,
            *own_columns(),
            e.attempt,
            e.kind,
            e.credits,
            sa.null().label("delivery_id"),
            e.reason,
        )
        .outerjoin(tasks, tasks.c.id == e.task_id)
        .where(e.run_id == run_id)
    )
