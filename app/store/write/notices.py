"""Writes and reads of notices. Each is stored once under its dedupe key; who claims it sends it."""

from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.notices.notice import DueNotice, Notice, NoticeState, Outcome
from app.domain.task import new_id
from app.domain.text import storable, storable_message
from app.store.database import Database
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_NEW_NOTICE, Id, Millis, notices


@dataclass(frozen=True, slots=True)
class NoticeRow:
    """A notice as its row says."""

    id: str
    at_ms: int
    kind: str
    account: str
    run_id: str | None
    occasion: str
    body: str
    state: str
    tries: int
    due_at_ms: int
    sent_at_ms: int | None
    error: str | None


class NoticeWrites(StorePart):
    """Part of the store."""

    async def add_notices(
        self, found: Sequence[Notice], now_ms: int, *, state: NoticeState = NoticeState.NEW
    ) -> int:
        """Store what is not stored yet under its dedupe key; how many were new. In state LOGGED they are kept
        and sent to nobody: old news."""
        return await self._insert(found, now_ms, state) if found else 0

    @writes
    async def _insert(
        self, connection: AsyncConnection, found: Sequence[Notice], now_ms: int, state: NoticeState
    ) -> int:
        return await insert_notices(self.db, connection, found, now_ms, state=state)

    @writes
    async def claim_due_notices(
        self, connection: AsyncConnection, *, limit: int, now_ms: int, lease_until_ms: int
    ) -> list[DueNotice]:
        """Notices to try now, oldest first; each belongs to the caller until `lease_until_ms`."""
        is_due = IS_NEW_NOTICE, notices.c.due_at_ms <= now_ms
        due = (
            sa.select(notices.c.id)
            .where(*is_due)
            .order_by(notices.c.due_at_ms, notices.c.id)
            .limit(limit)
            .with_for_update(skip_locked=True)
            .cte("due")
        )
        claimed = await connection.execute(
            sa.update(notices)
            .where(notices.c.id.in_(sa.select(due.c.id)), *is_due)
            .values(tries=notices.c.tries + 1, due_at_ms=lease_until_ms)
            .returning(
                notices.c.id,
                notices.c.kind,
                notices.c.account,
                notices.c.run_id,
                notices.c.body,
                notices.c.tries,
            )
        )
        return sorted((DueNotice(*row) for row in claimed), key=lambda notice: notice.id)

    @writes
    async def record_tries(
        self, connection: AsyncConnection, ended: Sequence[tuple[DueNotice, Outcome]], now_ms: int
    ) -> None:
        """Keep how tries ended. Only the latest claim of a notice counts; what is settled stays so."""
        types = {
            "id": Id,
            "tries": sa.Integer(),
            "state": sa.Text(),
            "due_at_ms": Millis(),
            "sent_at_ms": Millis(),
            "error": sa.Text(),
        }
        rows = [
            {
                "id": notice.id,
                "tries": notice.tries,
                "state": outcome.state,
                "due_at_ms": now_ms + outcome.wait_ms,
                "sent_at_ms": now_ms if outcome.state is NoticeState.SENT else None,
                "error": storable_message(outcome.error),
            }
            for notice, outcome in ended
        ]
        batch = self.db.batch("v", types, rows)
        await connection.execute(
            sa.update(notices)
            .where(
                notices.c.id == batch.c.id,
                notices.c.tries == batch.c.tries,
                notices.c.state == NoticeState.NEW,
            )
            .values({name: batch.c[name] for name in ("state", "due_at_ms", "sent_at_ms", "error")})
        )

    @reads
    async def list_notices(self, connection: AsyncConnection, limit: int = 50) -> list[NoticeRow]:
        """The newest first."""
        query = sa.select(notices).order_by(notices.c.at_ms.desc(), notices.c.id.desc()).limit(limit)
        return [NoticeRow(**row._mapping) for row in await connection.execute(query)]


async def insert_notices(
    db: Database,
    connection: AsyncConnection,
    found: Sequence[Notice],
    now_ms: int,
    *,
    state: NoticeState = NoticeState.NEW,
) -> int:
    """The same within a transaction of the caller's, the one that finds a thing out."""
    rows = [
        {
            "id": new_id(now_ms),
            "at_ms": notice.at_ms,
            "kind": notice.kind,
            "account": notice.account,
            "run_id": notice.run_id,
            "occasion": storable(notice.dedupe_key),
            "body": notice.body(),
            "state": state,
            "tries": 0,
            "due_at_ms": now_ms,
        }
        for notice in found
    ]
    await db.insert(connection, notices, rows, ignore=True)
    stored = sa.select(sa.func.count()).where(notices.c.id.in_([row["id"] for row in rows]))
    return await connection.scalar(stored) or 0
