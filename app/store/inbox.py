"""Writes of the inbox: raw deliveries in, quarantine, and the due rows that a lost wake left behind."""

import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import RawDelivery
from app.store.engine import Database
from app.store.tables import IS_WAITING, Id, deliveries

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

COMPRESS_FROM_BYTES = 512
ZSTD_LEVEL = 1
"""18 KB of JSON in about 50 µs; higher levels cost the receiver more than the disk saves."""
BODY_BYTES_MAX = 64 * 1024 * 1024
"""No stored body is larger when unpacked; a larger one is corruption."""
_RECEIVED = (
    "id", "source", "received_at_ms", "webhook_id", "signed_at", "signature", "account", "encoding", "body",
    "state", "tries", "due_at_ms", "repeats",
)  # fmt: skip
_compressor = zstd.ZstdCompressor(ZSTD_LEVEL)
"""Kept: making one for each body costs as much as using it. Its frames are independent of each other."""
ERROR_CHARS_MAX = 2_000
MESSAGE_CHARS_MAX = 1_000


class InboxWrites:
    """Part of Store."""

    db: Database

    async def store_deliveries(self, raw: Sequence[RawDelivery], *, due_at_ms: int) -> set[str]:
        """Commit raw deliveries, all or none. Once this returns they may be acknowledged. One whose id is
        stored already, or stands here twice, is counted in that row's `repeats` and changes nothing else.
        Ids of those that were stored before: nobody needs to be woken for them."""
        times = Counter(delivery.id for delivery in raw)
        first = {delivery.id: delivery for delivery in reversed(raw)}
        rows = [
            (
                self.db.driver_id(d.id), d.source, d.received_at_ms, d.webhook_id, d.signed_at, d.signature,
                d.account, *pack(d.body), "new", 0, due_at_ms, times[d.id] - 1,
            )
            for _, d in sorted(first.items())
        ]  # fmt: skip
        return await self.db.append(deliveries, _RECEIVED, rows, repeats="repeats")

    async def claim_overdue_deliveries(
        self, *, limit: int, now_ms: int, next_due_at_ms: int, tries_max: int
    ) -> list[str]:
        """Ids of deliveries that should have been settled by now. The try is counted before the work, so
        that one which kills its worker is quarantined in the end instead of killing the next."""

        async def work(connection: AsyncConnection) -> list[str]:
            due = IS_WAITING, deliveries.c.due_at_ms <= now_ms
            await connection.execute(
                sa.update(deliveries)
                .where(*due, deliveries.c.state == "new", deliveries.c.tries >= tries_max)
                .values(state="quarantined", error=f"not settled after {tries_max} tries")
            )
            chosen = (
                sa.select(deliveries.c.id)
                .where(*due)
                .order_by(deliveries.c.due_at_ms)
                .limit(limit)
                .with_for_update(skip_locked=True)
                .cte("chosen")
            )
            claimed = await connection.execute(
                sa.update(deliveries)
                .where(deliveries.c.id.in_(sa.select(chosen.c.id)), IS_WAITING)
                .values(tries=deliveries.c.tries + 1, due_at_ms=next_due_at_ms)
                .returning(deliveries.c.id)
            )
            return sorted(claimed.scalars().all())

        return await self.db.write(work)

    async def quarantine_deliveries(self, errors: Sequence[tuple[str, str]]) -> None:
        """Set deliveries aside, each with its error; the raw bytes stay and nothing else is touched."""
        if not errors:
            return
        data = [{"id": i, "error": clean(error)[:ERROR_CHARS_MAX]} for i, error in errors]

        async def work(connection: AsyncConnection) -> None:
            v = self.db.batch("v", {"id": Id, "error": sa.Text()}, data)
            await connection.execute(
                sa.update(deliveries)
                .where(deliveries.c.id == v.c.id, IS_WAITING)
                .values(state="quarantined", error=v.c.error, tries=deliveries.c.tries + 1)
            )

        await self.db.write(work)

    async def waiting_deliveries(self, delivery_ids: Sequence[str]) -> list[RawDelivery]:
        """Those of `delivery_ids` that still wait to be settled, with their bytes, oldest first."""
        c = deliveries.c

        async def work(connection: AsyncConnection) -> list[RawDelivery]:
            v = self.db.batch("v", {"id": Id}, [{"id": i} for i in delivery_ids])
            found = await connection.execute(
                sa.select(
                    c.id, c.source, c.received_at_ms, c.encoding, c.body, c.webhook_id, c.signed_at,
                    c.signature, c.account,
                )
                .join(v, c.id == v.c.id)
                .where(IS_WAITING)
            )  # fmt: skip
            return sorted((raw_delivery(row) for row in found), key=lambda d: d.id)

        return await self.db.read(work)


def raw_delivery(row: Any) -> RawDelivery:
    """A delivery as it was received, from its row."""
    return RawDelivery(
        row.id, row.source, row.received_at_ms, unpack(row.encoding, row.body), row.webhook_id, row.signed_at,
        row.signature, row.account,
    )  # fmt: skip


def pack(body: bytes) -> tuple[str, bytes]:
    """(encoding, bytes) as they are stored."""
    if len(body) < COMPRESS_FROM_BYTES:
        return "identity", body
    return "zstd", _compressor.compress(body, zstd.ZstdCompressor.FLUSH_FRAME)


def unpack(encoding: str, stored: bytes) -> bytes:
    """The body as it was received."""
    if encoding == "identity":
        return stored
    return bytes(zstd.ZstdDecompressor().decompress(stored, BODY_BYTES_MAX))


def short(text: str | None) -> str | None:
    """Foreign text as it is kept beside a task: clean and bounded."""
    return None if text is None else clean(text)[:MESSAGE_CHARS_MAX]


def clean(text: str) -> str:
    """Text that PostgreSQL takes: without NUL and lone surrogates."""
    return text.replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()
