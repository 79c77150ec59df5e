"""Writes of the inbox: raw deliveries in, quarantine, and the due rows that a lost wake left behind."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import RawDelivery
from app.domain.text import storable
from app.ports import WaitingDeliveries
from app.store.database import Database
from app.store.days import RangeOfIds, within
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_WAITING, Id, Millis, deliveries
from app.zstd import zstd

COMPRESS_FROM_BYTES = 512
ZSTD_LEVEL = 1
"""18 KB of JSON in about 50 µs; higher levels cost the receiver more than the disk saves."""
BODY_BYTES_MAX = 64 * 1024 * 1024
"""No stored body is larger when unpacked; a larger one is corruption."""
_RECEIVED = (
    "id",
    "source",
    "received_at_ms",
    "webhook_id",
    "signed_at",
    "signature",
    "account",
    "encoding",
    "body",
    "state",
    "tries",
    "due_at_ms",
    "repeats",
)
_NAMES = (
    "id",
    "source",
    "received_at_ms",
    "encoding",
    "body",
    "webhook_id",
    "signed_at",
    "signature",
    "account",
)
RAW_COLUMNS = tuple(deliveries.c[name] for name in _NAMES)
"""What `raw_delivery` reads."""
_compressor = zstd.ZstdCompressor(
    options={
        zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
        zstd.CompressionParameter.strategy: zstd.Strategy.dfast,
    }
)
"""Kept: making one for each body costs as much as using it. Its frames are independent of each other. With
the strategy of level 3 a body is a fortieth smaller for a twentieth more time; level 3 takes a sixth more."""
ERROR_CHARS_MAX = 2_000
HELD_UP_MS_MIN, HELD_UP_MS_MAX = 10_000, 120_000
"""A release that fixes it settles what is held up within two minutes of its start."""


class InboxWrites(StorePart):
    """Part of the store."""

    def __init__(self, db: Database) -> None:
        super().__init__(db)
        self._ids = db.shape("v", {"id": Id})
        self._range = RangeOfIds(deliveries.c.id, is_sqlite=db.is_sqlite)

    @functools.cached_property
    def _select_waiting(self) -> sa.Select[Any]:
        v = self._ids.table
        return (
            sa.select(*RAW_COLUMNS)
            .join(v, deliveries.c.id == v.c.id)
            .where(self._range.condition, IS_WAITING)
        )

    async def store_deliveries(
        self, raw: Sequence[RawDelivery], *, due_at_ms: int, more: Callable[[], Sequence[RawDelivery]] = tuple
    ) -> set[str]:
        """Commit raw deliveries, all or none. Once this returns they may be acknowledged. One whose id is
        stored already, or stands here twice, is counted in that row's `repeats` and changes nothing else.
        Ids of those that were stored before: nobody needs to be woken for them. `more` is called once, when
        the database can be written to: what it gives is committed with them."""
        # Before: packing takes longer than writing, and nobody else is to wait for it.
        packed = {delivery.id: pack(delivery.body) for delivery in reversed(raw)}

        def rows() -> list[tuple[Any, ...]]:
            late = more()
            for delivery in late:
                if delivery.id not in packed:
                    packed[delivery.id] = pack(delivery.body)
            return self._rows([*raw, *late], packed, due_at_ms)

        return await self.db.append(deliveries, _RECEIVED, rows, repeats="repeats")

    def _rows(
        self, raw: Sequence[RawDelivery], packed: Mapping[str, tuple[str, bytes]], due_at_ms: int
    ) -> list[tuple[Any, ...]]:
        """As _RECEIVED; of those with one id the first."""
        times = Counter(delivery.id for delivery in raw)
        first = {delivery.id: delivery for delivery in reversed(raw)}
        return [
            (
                self.db.driver_id(d.id),
                d.source,
                d.received_at_ms,
                d.webhook_id,
                d.signed_at,
                d.signature,
                d.account,
                *packed[d.id],
                "new",
                0,
                due_at_ms,
                times[d.id] - 1,
            )
            for _, d in sorted(first.items())
        ]

    @reads
    async def is_any_overdue(self, connection: AsyncConnection, *, now_ms: int, tries_max: int) -> bool:
        """Whether there is anything for `quarantine_unended` or `claim_overdue_deliveries` to do. Of each day
        one small index is looked into, once; an update that finds nothing needs several times as long, as it
        makes ready to write to all of them."""
        c = deliveries.c
        is_overdue = sa.or_(c.due_at_ms <= now_ms, c.tries >= tries_max)
        found = sa.select(c.tries).where(IS_WAITING, is_overdue).limit(1)
        return await connection.scalar(found) is not None

    @writes
    async def claim_overdue_deliveries(
        self, connection: AsyncConnection, *, limit: int, now_ms: int, next_due_at_ms: int
    ) -> list[str]:
        """Ids of deliveries that should have been settled by now. The try is counted before the work, and
        given back by whoever comes to its end (`release_deliveries`), however that was: what stays counted
        killed its worker. So one that was begun before is claimed alone, so that it takes no others along."""
        c = deliveries.c
        for begun, size in ((c.tries == 0, limit), (c.tries > 0, 1)):
            chosen = (
                sa.select(c.id)
                .where(IS_WAITING, c.due_at_ms <= now_ms, begun)
                .order_by(c.due_at_ms)
                .limit(size)
                .with_for_update(skip_locked=True)
                .cte("chosen")
            )
            claimed = await connection.scalars(
                sa.update(deliveries)
                .where(c.id.in_(sa.select(chosen.c.id)), IS_WAITING)
                .values(tries=c.tries + 1, due_at_ms=next_due_at_ms)
                .returning(c.id)
            )
            if found := sorted(claimed):
                return found
        return []

    @writes
    async def release_deliveries(self, connection: AsyncConnection, delivery_ids: Sequence[str]) -> None:
        """Give back the tries of claimed deliveries: their work came to an end, good or bad."""
        c = deliveries.c
        v = self.db.batch("v", {"id": Id}, [{"id": i} for i in delivery_ids])
        await connection.execute(
            sa.update(deliveries)
            .where(c.id == v.c.id, within(connection, c.id, delivery_ids), IS_WAITING, c.tries > 0)
            .values(tries=0)
        )

    @writes
    async def quarantine_unended(self, connection: AsyncConnection, *, tries_max: int) -> dict[str, str]:
        """Set aside what was begun so often and never came to an end; id -> what is said of it."""
        c = deliveries.c
        error = f"begun {tries_max} times, and its worker ended each time before the work did"
        ended = await connection.scalars(
            sa.update(deliveries)
            .where(IS_WAITING, c.tries >= tries_max)
            .values(state="quarantined", error=error)
            .returning(c.id)
        )
        return dict.fromkeys(sorted(ended), error)

    async def quarantine_deliveries(self, errors: Sequence[tuple[str, str]]) -> None:
        """Set deliveries aside, each with its error; the raw bytes stay and nothing else is touched."""
        if errors:
            await self._note_errors(errors, {"state": "quarantined"})

    async def hold_up_deliveries(self, errors: Sequence[tuple[str, str]], *, now_ms: int) -> None:
        """Deliveries that wait because of something that is not their fault, each with its error. They are
        looked at again when they have waited as long again, within bounds."""
        now, least, most = (sa.literal(ms, Millis) for ms in (now_ms, HELD_UP_MS_MIN, HELD_UP_MS_MAX))
        waited = now - deliveries.c.received_at_ms
        wait = sa.case((waited < least, least), (waited > most, most), else_=waited)
        if errors:
            await self._note_errors(errors, {"tries": 0, "due_at_ms": now + wait})

    @writes
    async def _note_errors(
        self, connection: AsyncConnection, errors: Sequence[tuple[str, str]], values: Mapping[str, Any]
    ) -> None:
        data = [{"id": i, "error": storable(error, ERROR_CHARS_MAX)} for i, error in errors]
        v = self.db.batch("v", {"id": Id, "error": sa.Text()}, data)
        await connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.id == v.c.id, within(connection, deliveries.c.id, dict(errors)), IS_WAITING)
            .values(error=v.c.error, **values)
        )

    @reads
    async def waiting_deliveries(
        self, connection: AsyncConnection, delivery_ids: Sequence[str]
    ) -> WaitingDeliveries:
        """Those of `delivery_ids` that still wait to be settled, with their bytes."""
        if not delivery_ids:
            return WaitingDeliveries(iter(()), {})
        parameters = self._ids.parameters([{"id": i} for i in delivery_ids])
        found = await connection.execute(
            self._select_waiting, parameters | self._range.parameters(delivery_ids)
        )
        broken: dict[str, str] = {}
        latest_first = sorted(found, key=lambda row: str(row.id), reverse=True)
        return WaitingDeliveries(_unpacked(latest_first, broken), broken)


def _unpacked(rows: list[Any], broken: dict[str, str]) -> Iterator[RawDelivery]:
    """From the last row to the first; those that do not unpack go to `broken`."""
    while rows:
        row = rows.pop()
        try:
            delivery = raw_delivery(row)
        except zstd.ZstdError as error:
            broken[row.id] = f"does not unpack as {row.encoding}: {error}"
            continue
        yield delivery


def raw_delivery(row: Any) -> RawDelivery:
    """A delivery as it was received, from a row of RAW_COLUMNS."""
    delivery_id, source, received_at_ms, encoding, body, *signed = row
    return RawDelivery(delivery_id, source, received_at_ms, unpack(encoding, body), *signed)


def pack(body: bytes) -> tuple[str, bytes]:
    """(encoding, bytes) as they are stored."""
    if len(body) < COMPRESS_FROM_BYTES:
        return "identity", body
    return "zstd", _compressor.compress(body, zstd.ZstdCompressor.FLUSH_FRAME)


def unpack(encoding: str, stored: bytes) -> bytes:
    """The body as it was received."""
    if encoding == "identity":
        return stored
    if encoding != "zstd":
        raise LookupError(f"encoding {encoding} is of another version")
    return bytes(zstd.ZstdDecompressor().decompress(stored, BODY_BYTES_MAX))
