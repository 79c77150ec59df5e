"""The bodies that answers are read from: the one place that knows where a body stands."""

from collections.abc import Iterable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ports import ArchivedDeliveries, ReadAnswer
from app.store.database import Database
from app.store.part import StorePart
from app.store.tables import Id, deliveries
from app.store.write.inbox import unpack

BODIES_FETCHED = 20
"""Packed bodies asked of the database at a time."""


class AnswerReads(StorePart):
    """A part of the store that reads answers from where their bodies are."""

    def __init__(
        self, db: Database, read_answer: ReadAnswer, archive: ArchivedDeliveries | None = None
    ) -> None:
        super().__init__(db)
        self._read_answer = read_answer
        self._archive = archive


async def read_answers(
    db: Database, connection: AsyncConnection, read_answer: ReadAnswer, delivery_ids: Iterable[str]
) -> dict[str, bytes]:
    """Delivery id -> the answer in its body, unwrapped, in UTF-8. Without those whose body is not stored any
    more, or cannot be read."""
    ids = sorted(set(delivery_ids))
    if not ids:
        return {}
    d, v = deliveries.c, db.batch("v", {"id": Id}, [{"id": i} for i in ids])
    query = (
        sa.select(d.id, d.encoding, d.body)
        .join(v, d.id == v.c.id)
        # By id alone a planner may expect many; the bounds let it leave out what lies outside of them.
        .where(d.id.between(ids[0], ids[-1]))
        .execution_options(yield_per=BODIES_FETCHED)
    )
    answers: dict[str, bytes] = {}
    async with connection.stream(query) as found:
        async for row in found:
            if (answer := _answer_of(row, read_answer)) is not None:
                answers[row.id] = answer
    return answers


def _answer_of(row: Any, read_answer: ReadAnswer) -> bytes | None:
    try:
        return read_answer(unpack(row.encoding, row.body))
    except Exception:  # whatever an altered body makes of its reader; verify says what it is
        return None
