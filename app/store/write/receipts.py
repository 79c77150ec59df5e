"""Receipts of what was pruned: one for each kind of rows and day, written by what drops them."""

from collections import Counter
from dataclasses import dataclass, field, replace
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import DONE, OPEN, Kind, Reason, Receipt, Receipts, chain
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.store.tables import findings, pruned_findings, receipts


@dataclass(slots=True)
class Dropped:
    """What went, or would go, of one kind of one day, and what stays of it."""

    kind: Kind
    day_ms: int
    rows: int = 0
    body_bytes: int = 0
    credits_charged: Decimal = Decimal(0)
    kept: Counter[Reason] = field(default_factory=Counter)
    rows_of: list[tuple[str, str]] = field(default_factory=list)
    """(id, SHA-256) of what goes, in the order of ids; empty once it is in a receipt, as years may go in one
    turn."""

    def plus(self, other: "Dropped") -> "Dropped":
        """With another part of the same day."""
        return Dropped(
            self.kind,
            self.day_ms,
            self.rows + other.rows,
            self.body_bytes + other.body_bytes,
            self.credits_charged + other.credits_charged,
            self.kept + other.kept,
            self.rows_of + other.rows_of,
        )


async def receipts_of(connection: AsyncConnection) -> Receipts:
    """All receipts, some 400 bytes each: a day makes five at most."""
    rows = await connection.execute(sa.select(receipts).order_by(receipts.c.from_ms))
    return Receipts(Receipt(**row._mapping) for row in rows)


async def count_findings(connection: AsyncConnection, run_id: str) -> dict[str, int]:
    """Verdict -> how many findings of a run there were, those that were pruned among them."""
    f = findings.c
    stand = sa.select(f.verdict, sa.func.count()).where(f.run_id == run_id).group_by(f.verdict)
    found = Counter({row[0]: row[1] for row in await connection.execute(stand)})
    for verdict, count, _ in await pruned_findings_of(connection, run_id):
        found[verdict] += count
    return dict(found)


async def pruned_findings_of(connection: AsyncConnection, run_id: str) -> list[tuple[str, int, int]]:
    """(verdict, how many findings of it were pruned, when the last of them was)."""
    p = pruned_findings.c
    query = sa.select(p.verdict, p.row_count, p.at_ms).where(p.run_id == run_id)
    return [(row[0], row[1], row[2]) for row in await connection.execute(query)]


async def add_to_receipt(
    connection: AsyncConnection, dropped: Dropped, now_ms: int, location: str | None, kept: int | None = None
) -> None:
    """What goes in this transaction, added to the receipt of its day. `kept`: rows that stay, where that is
    all of the day."""
    c = receipts.c
    known = sa.select(receipts).where(c.kind == dropped.kind, c.from_ms == dropped.day_ms)
    row = (await connection.execute(known)).first()
    stood = Receipt(**row._mapping) if row is not None else _new_receipt(dropped, now_ms)
    now = replace(
        stood,
        at_ms=now_ms,
        state=OPEN if kept is None else DONE,
        row_count=stood.row_count + dropped.rows,
        body_bytes=stood.body_bytes + dropped.body_bytes,
        credits_charged=stood.credits_charged + dropped.credits_charged,
        kept=kept,
        sha256=chain(stood.sha256, dropped.rows_of),
        location=location,
    )
    values = {column.name: getattr(now, column.name) for column in receipts.c}
    if row is None:
        await connection.execute(sa.insert(receipts).values(values))
    else:
        await connection.execute(sa.update(receipts).where(c.id == stood.id).values(values))


def _new_receipt(dropped: Dropped, now_ms: int) -> Receipt:
    span, times = (dropped.day_ms, dropped.day_ms + DAY_MS), (now_ms, now_ms)
    return Receipt(new_id(now_ms), dropped.kind, *span, *times, OPEN, 0, 0, Decimal(0), None, "")
