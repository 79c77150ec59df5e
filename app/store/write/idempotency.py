"""Idempotency keys of the API: one request works under a key at a time, and its answer is kept.

What a request changes is written with its key, in one transaction (`noted`, `answered`): so whoever comes
after a process that died knows what was done, and a request that lost its key changes nothing any more.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.ports import KeyLost
from app.store.part import Beside, StorePart, writes
from app.store.tables import has_come, idempotency_keys, runs

_KEY = idempotency_keys.c


@dataclass(frozen=True, slots=True)
class KeyRow:
    """A key as its row says."""

    token_id: str
    key: str
    target: str
    content: str | None
    owner: str
    lease_until_ms: int
    run_id: str | None
    progress: str | None
    status: int | None
    headers: str | None
    body: str | None
    created_at_ms: int


@dataclass(frozen=True, slots=True)
class KeyId:
    """Whose key, which, and the request that works under it."""

    token_id: str
    key: str
    owner: str


class IdempotencyWrites(StorePart):
    """Part of the store."""

    @writes
    async def take(
        self,
        connection: AsyncConnection,
        key: KeyId,
        *,
        target: str,
        content: str | None,
        now_ms: int,
        lease_ms: int,
    ) -> KeyRow:
        """Take a key that is new, or that nobody works under any more; how it stands. It is the caller's
        where `owner` is."""
        row = dict.fromkeys(KeyRow.__slots__) | {
            "token_id": key.token_id,
            "key": key.key,
            "target": target,
            "content": content,
            "owner": key.owner,
            "lease_until_ms": now_ms + lease_ms,
            "created_at_ms": now_ms,
        }
        await self.db.insert(connection, idempotency_keys, [row], ignore=True)
        is_left = _KEY.status.is_(None), has_come(_KEY.lease_until_ms, now_ms, lease_ms)
        await connection.execute(
            sa.update(idempotency_keys)
            .where(_is(key), _KEY.target == target, *is_left)
            .values(owner=key.owner, content=content, lease_until_ms=now_ms + lease_ms)
        )
        found = (await connection.execute(sa.select(*_columns()).where(_is(key)))).one()
        return KeyRow(*found)

    @writes
    async def prolong(self, connection: AsyncConnection, key: KeyId, *, until_ms: int) -> bool:
        """Go on working under it; False: another request does."""
        return await _change(connection, key, lease_until_ms=until_ms)

    @writes
    async def release(self, connection: AsyncConnection, key: KeyId) -> None:
        """It is as if it had never been used, where nothing came of it: no answer, no change, no run. Else
        whoever comes next goes on at once."""
        ours = _is(key), _KEY.owner == key.owner, _KEY.status.is_(None), _KEY.progress.is_(None)
        run = sa.exists().where(runs.c.id == _KEY.run_id)
        await connection.execute(sa.delete(idempotency_keys).where(*ours, ~run))
        left = sa.update(idempotency_keys).where(_is(key), _KEY.owner == key.owner, _KEY.status.is_(None))
        await connection.execute(left.values(lease_until_ms=0))

    @writes
    async def answer(
        self, connection: AsyncConnection, key: KeyId, status: int, headers: Mapping[str, str], body: str
    ) -> bool:
        """Keep what is answered, where nothing is changed with it; False: another request works under it."""
        return await _change(connection, key, **_answer(status, headers, body))

    @writes
    async def forget(self, connection: AsyncConnection, *, before_ms: int, limit: int) -> int:
        """Forget the oldest answers from before a time; how many."""
        is_old = _KEY.created_at_ms < before_ms, _KEY.status.is_not(None)
        oldest = sa.select(_KEY.token_id, _KEY.key).where(*is_old).order_by(_KEY.created_at_ms).limit(limit)
        which = sa.tuple_(_KEY.token_id, _KEY.key).in_(oldest)
        return (await connection.execute(sa.delete(idempotency_keys).where(which))).rowcount

    @writes
    async def forget_left(self, connection: AsyncConnection, token_id: str, key: str, owner: str) -> None:
        """Forget a key that nobody answered, and that `owner` took to clean up after."""
        ours = _is(KeyId(token_id, key, owner)), _KEY.owner == owner, _KEY.status.is_(None)
        await connection.execute(sa.delete(idempotency_keys).where(*ours))

    @writes
    async def take_left(
        self, connection: AsyncConnection, owner: str, *, left_ms: int, now_ms: int, lease_ms: int, limit: int
    ) -> Sequence[KeyRow]:
        """Take keys that nobody has worked under for `left_ms`, so that nobody goes on while they are
        cleaned up."""
        left = (
            sa.select(*_columns())
            .where(_KEY.status.is_(None), _KEY.lease_until_ms < now_ms - left_ms)
            .order_by(_KEY.created_at_ms)
            .limit(limit)
            .with_for_update(skip_locked=True)
        )
        rows = [KeyRow(*row) for row in await connection.execute(left)]
        for row in rows:
            mine = sa.update(idempotency_keys).where(_KEY.token_id == row.token_id, _KEY.key == row.key)
            await connection.execute(mine.values(owner=owner, lease_until_ms=now_ms + lease_ms))
        return rows


def noted(key: KeyId, of: Callable[[Any], Mapping[str, object] | None]) -> Beside:
    """For `in_its_transaction`: what of the row changes with what was written; None: nothing. Raises KeyLost,
    and then nothing is written."""

    async def write(connection: AsyncConnection, result: Any) -> None:
        values = of(result)
        if values is not None and not await _change(connection, key, **values):
            raise KeyLost

    return write


def answered(
    status: int, headers: Mapping[str, str], body: str, content: str | None = None
) -> dict[str, object]:
    """Of a row: its answer, and of a streamed body what it was."""
    return _answer(status, headers, body) | ({} if content is None else {"content": content})


def _answer(status: int, headers: Mapping[str, str], body: str) -> dict[str, object]:
    return {"status": status, "headers": json.dumps(dict(headers)), "body": body}


async def _change(connection: AsyncConnection, key: KeyId, **values: object) -> bool:
    ours = _is(key), _KEY.owner == key.owner
    done = await connection.execute(sa.update(idempotency_keys).where(*ours).values(**values))
    return bool(done.rowcount)


def _is(key: KeyId) -> sa.ColumnElement[bool]:
    return sa.and_(_KEY.token_id == key.token_id, _KEY.key == key.key)


def _columns() -> list[sa.Column[Any]]:
    return [_KEY[name] for name in KeyRow.__slots__]
