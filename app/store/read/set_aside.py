"""Deliveries that are set aside, or held up: what they are, whose they are, and another look at them."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.notices.triggers import SetAsideGroup
from app.domain.task import parse_idempotency_key
from app.domain.time_format import DAY_MS
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_SET_ASIDE, IS_WAITING, Id, deliveries, runs, tasks
from app.store.write.inbox import unpack

DEFAULT_ACCOUNT = "default"
"""Whose deliveries are that name none."""
NAMED_MAX = 200
"""Set-aside deliveries, newest first, that are looked through for the task they name; the others count as
naming none. There are hardly ever more than a few."""
NAMED_BYTES_MAX = 1 << 20
IS_HELD_UP = sa.and_(IS_WAITING, deliveries.c.error.is_not(None))
_KEY = re.compile(rb'"idempotencyKey"\s*:\s*"([0-9a-f-]{36}\.[0-9]{1,6})"')


@dataclass(frozen=True, slots=True)
class InboxRow:
    """A delivery that waits for a person, or that trouble holds up."""

    id: str
    source: str
    account: str | None
    received_at_ms: int
    state: str
    tries: int
    due_at_ms: int
    error: str | None
    webhook_id: str | None
    encoding: str
    stored_bytes: int


@dataclass(frozen=True, slots=True)
class SetAside:
    """How many deliveries of those set aside may be about one run."""

    named: int = 0
    """They name a task of it."""
    unnamed: int = 0
    """They came to its account since it began, and name no task that can be made out."""


class SetAsideReads(StorePart):
    """Part of the store."""

    async def list_inbox(self, limit: int) -> list[InboxRow]:
        """Set aside or held up, newest first."""
        query = _ROWS.where(sa.or_(IS_SET_ASIDE, IS_HELD_UP)).order_by(deliveries.c.id.desc()).limit(limit)
        return await self._rows(query)

    async def set_aside_page(
        self, before: tuple[int, str] | None, limit: int, account: str | None
    ) -> list[InboxRow]:
        """Set aside, newest first, behind (time of receipt, id); by an index of their own."""
        c = deliveries.c
        query = _ROWS.where(IS_SET_ASIDE, *_of(account)).order_by(c.received_at_ms.desc(), c.id.desc())
        if before is not None:
            at_ms, delivery_id = before
            same = sa.and_(c.received_at_ms == at_ms, c.id < delivery_id)
            query = query.where(c.received_at_ms <= at_ms, sa.or_(c.received_at_ms < at_ms, same))
        return await self._rows(query.limit(limit))

    async def held_up_page(
        self, after: tuple[int, str] | None, limit: int, account: str | None
    ) -> list[InboxRow]:
        """Held up by trouble, those that are tried first, behind (time of the next try, id); by an index of
        what waits. One that is tried meanwhile stands further behind, and may be met again."""
        c = deliveries.c
        query = _ROWS.where(IS_HELD_UP, *_of(account)).order_by(c.due_at_ms, c.id)
        if after is not None:
            due_ms, delivery_id = after
            same = sa.and_(c.due_at_ms == due_ms, c.id > delivery_id)
            query = query.where(c.due_at_ms >= due_ms, sa.or_(c.due_at_ms > due_ms, same))
        return await self._rows(query.limit(limit))

    async def find_inbox(self, part: str) -> list[InboxRow]:
        """The deliveries, in whatever state, whose id is, begins or ends with the given text."""
        wanted = part.lower().replace("-", "")
        if not re.fullmatch(r"[0-9a-f]{4,32}", wanted):
            return []
        as_text = sa.func.lower(sa.func.replace(sa.cast(deliveries.c.id, sa.Text), "-", ""))
        if len(wanted) == 32:
            same: Any = deliveries.c.id == _as_id(wanted)
        else:
            near = sa.or_(as_text.startswith(wanted), as_text.endswith(wanted))
            same = sa.and_(sa.or_(IS_SET_ASIDE, IS_HELD_UP), near)
        return await self._rows(_ROWS.where(same).order_by(deliveries.c.id))

    @reads
    async def _rows(self, connection: AsyncConnection, query: sa.Select[Any]) -> list[InboxRow]:
        return [InboxRow(*row) for row in await connection.execute(query)]

    @reads
    async def inbox_body(self, connection: AsyncConnection, delivery_id: str) -> bytes | None:
        """The bytes as they were received; None when they do not unpack."""
        query = sa.select(deliveries.c.encoding, deliveries.c.body).where(deliveries.c.id == delivery_id)
        row = (await connection.execute(query)).one()
        try:
            return unpack(row.encoding, row.body)
        except Exception:  # whatever an altered frame makes of its reader
            return None

    @writes
    async def retry_inbox(
        self, connection: AsyncConnection, delivery_ids: Sequence[str] | None, now_ms: int
    ) -> list[str]:
        """Let deliveries that are set aside or held up be looked at again now; None: all. Their ids."""
        c = deliveries.c
        again = sa.update(deliveries).where(sa.or_(IS_SET_ASIDE, IS_HELD_UP))
        if delivery_ids is not None:
            batch = self.db.batch("v", {"id": Id}, [{"id": i} for i in delivery_ids])
            again = again.where(c.id.in_(sa.select(batch.c.id)))
        values = {"state": "new", "tries": 0, "due_at_ms": now_ms, "error": None}
        return sorted(await connection.scalars(again.values(**values).returning(c.id)))

    @reads
    async def set_aside_count(self, connection: AsyncConnection) -> int:
        """Deliveries that wait for a person."""
        query = sa.select(sa.func.count()).select_from(deliveries).where(IS_SET_ASIDE)
        return await connection.scalar(query) or 0

    @reads
    async def set_aside_groups(self, connection: AsyncConnection, since_ms: int) -> list[SetAsideGroup]:
        """By account and day of receipt."""
        c = deliveries.c
        account, day = sa.func.coalesce(c.account, DEFAULT_ACCOUNT), c.received_at_ms / DAY_MS
        if not self.db.is_sqlite:
            day = sa.func.floor(day)
        day = sa.cast(day, sa.BigInteger)
        query = (
            sa.select(account, day, sa.func.count(), sa.func.max(sa.cast(c.id, sa.Text)))
            .where(IS_SET_ASIDE, c.received_at_ms >= since_ms)
            .group_by(account, day)
        )
        rows = await connection.execute(query)
        return [SetAsideGroup(row[0], row[1] * DAY_MS, row[2]) for row in rows]

    @reads
    async def set_aside_about(self, connection: AsyncConnection, run_id: str) -> SetAside:
        """Of one run."""
        return await set_aside_about(connection, run_id)


def _of(account: str | None) -> list[sa.ColumnElement[bool]]:
    return [] if account is None else [sa.func.coalesce(deliveries.c.account, DEFAULT_ACCOUNT) == account]


async def set_aside_about(connection: AsyncConnection, run_id: str) -> SetAside:
    """What is set aside and may be about a run, read inside a transaction of the caller's."""
    c = deliveries.c
    run = (
        await connection.execute(sa.select(runs.c.account, runs.c.created_at_ms).where(runs.c.id == run_id))
    ).one()
    is_set_aside = (
        IS_SET_ASIDE,
        c.received_at_ms >= run.created_at_ms,
        sa.or_(c.account.is_(None), c.account == run.account),
    )
    total = (
        await connection.scalar(sa.select(sa.func.count()).select_from(deliveries).where(*is_set_aside)) or 0
    )
    if not total:
        return SetAside()
    query = (
        sa.select(c.encoding, c.body)
        .where(*is_set_aside, sa.func.length(c.body) <= NAMED_BYTES_MAX)
        .order_by(c.received_at_ms.desc())
        .limit(NAMED_MAX)
    )
    names = [task_named(row.encoding, row.body) for row in await connection.execute(query)]
    named = [task_id for task_id in names if task_id is not None]
    whose = sa.select(tasks.c.id, tasks.c.run_id).where(tasks.c.id.in_(set(named)))
    run_of = {row.id: row.run_id for row in await connection.execute(whose)}
    of_ours = [run_of[task_id] for task_id in named if task_id in run_of]
    return SetAside(of_ours.count(run_id), total - len(of_ours))


def task_named(encoding: str, body: bytes) -> str | None:
    """The task whose key stands in a body that cannot be read otherwise."""
    try:
        found = _KEY.search(unpack(encoding, body))
    except Exception:  # whatever an altered frame makes of its reader
        return None
    key = None if found is None else parse_idempotency_key(found[1].decode())
    return None if key is None else key[0]


def _as_id(digits: str) -> str:
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


_ROWS = sa.select(
    deliveries.c.id,
    deliveries.c.source,
    deliveries.c.account,
    deliveries.c.received_at_ms,
    deliveries.c.state,
    deliveries.c.tries,
    deliveries.c.due_at_ms,
    deliveries.c.error,
    deliveries.c.webhook_id,
    deliveries.c.encoding,
    sa.func.length(deliveries.c.body),
)
