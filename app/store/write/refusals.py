"""Deliveries that receivers refused, by hour and reason: what each process counted is added now and then."""

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.time_format import DAY_MS
from app.store.part import StorePart, reads, writes
from app.store.tables import intake_refusals

HOUR_MS = 3_600_000
KEPT_MS = 31 * DAY_MS


@dataclass(frozen=True, slots=True)
class Refused:
    """How many deliveries were refused for one reason, and in which hour the last of them."""

    reason: str
    count: int
    last_hour_ms: int


class RefusalWrites(StorePart):
    """Part of the store."""

    @writes(tries=1)
    async def add_refusals(self, connection: AsyncConnection, counts: Mapping[str, int], now_ms: int) -> None:
        """Add to this hour. Not repeated: after a lost connection it may have been added already, and too few
        are better than too many."""
        c, hour_ms = intake_refusals.c, now_ms - now_ms % HOUR_MS
        for reason, count in sorted(counts.items()):
            here = c.hour_ms == hour_ms, c.reason == reason
            values = {"count": c["count"] + count}
            row = {"hour_ms": hour_ms, "reason": reason, "count": 0}
            await self.db.insert(connection, intake_refusals, [row], ignore=True)
            await connection.execute(sa.update(intake_refusals).where(*here).values(values))
        await connection.execute(sa.delete(intake_refusals).where(c.hour_ms < now_ms - KEPT_MS))

    @reads
    async def refused_since(self, connection: AsyncConnection, since_ms: int) -> list[Refused]:
        """By reason, the most frequent first."""
        c = intake_refusals.c
        total = sa.cast(sa.func.sum(c["count"]), sa.BigInteger)
        query = sa.select(c.reason, total, sa.func.max(c.hour_ms)).where(c.hour_ms >= since_ms)
        rows = await connection.execute(query.group_by(c.reason).order_by(total.desc(), c.reason))
        return [Refused(*row) for row in rows]
