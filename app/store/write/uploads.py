"""Uploads that wait for a person: a run that is read to its end and stays loading, until somebody who has
seen what it has and may cost lets it begin. Each is kept with an idempotency key of its token's, so that what
nobody lets begin is cleared away as an upload is that broke off.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import ActionRow
from app.domain.task import RunState
from app.ports import KeyLost
from app.store.part import StorePart, in_its_transaction, reads, writes
from app.store.tables import idempotency_keys, runs
from app.store.write.access import insert_action
from app.store.write.run_times import entering
from app.store.write.runs import discard_loading

_KEY = idempotency_keys.c
BEGUN = 201
TARGET = "upload"


@dataclass(frozen=True, slots=True)
class UploadRow:
    """An upload as it waits, or has begun."""

    run_id: str | None
    """None: nothing of it could be a task."""
    found: str | None
    """What was found in it, as JSON; None: it is read still, or its process died."""
    has_begun: bool
    lapses_at_ms: int


class UploadWrites(StorePart):
    """Part of the store."""

    @reads
    async def find_upload(self, connection: AsyncConnection, token_id: str, key: str) -> UploadRow | None:
        """None: there is none of this token's, or it was thrown away."""
        columns = _KEY.run_id, _KEY.progress, _KEY.status, _KEY.lease_until_ms
        row = (await connection.execute(sa.select(*columns).where(*_of(token_id, key)))).one_or_none()
        if row is None:
            return None
        return UploadRow(row.run_id, row.progress, row.status is not None, row.lease_until_ms)

    @writes
    async def take_upload(
        self, connection: AsyncConnection, token_id: str, key: str, *, now_ms: int, until_ms: int
    ) -> None:
        """Say that one is read."""
        row = dict.fromkeys(c.name for c in idempotency_keys.c) | {
            "token_id": token_id,
            "key": key,
            "target": TARGET,
            "owner": key,
            "lease_until_ms": until_ms,
            "created_at_ms": now_ms,
        }
        await self.db.insert(connection, idempotency_keys, [row], ignore=True)

    def with_run(self, token_id: str, key: str, run_id: str) -> AbstractContextManager[None]:
        """Around the transaction that makes its run: that it is of this upload is written with it."""

        async def note(connection: AsyncConnection, _made: Any) -> None:
            done = sa.update(idempotency_keys).where(*_of(token_id, key))
            if not (await connection.execute(done.values(run_id=run_id))).rowcount:
                raise KeyLost

        return in_its_transaction(note)

    @writes
    async def keep_found(
        self, connection: AsyncConnection, token_id: str, key: str, found: str, until_ms: int
    ) -> None:
        """Say what was found in an upload, which is read to its end and waits."""
        done = sa.update(idempotency_keys).where(*_of(token_id, key))
        await connection.execute(done.values(progress=found, lease_until_ms=until_ms))

    @writes
    async def begin_upload(
        self,
        connection: AsyncConnection,
        token_id: str,
        key: str,
        run_id: str,
        *,
        sha256: str,
        bad_lines: int,
        action: ActionRow,
    ) -> bool:
        """Let it begin, once; False: it has begun, or there is none any more."""
        still = sa.update(idempotency_keys).where(*_of(token_id, key), _KEY.status.is_(None))
        if not (await connection.execute(still.values(status=BEGUN, headers="{}", body=""))).rowcount:
            return False
        loading = sa.update(runs).where(runs.c.id == run_id, runs.c.state == RunState.LOADING)
        values = {"source_sha256": sha256, "bad_lines": bad_lines, **entering(self.db, RunState.RUNNING)}
        has_begun = (await connection.execute(loading.values(**values))).rowcount == 1
        if has_begun:
            await insert_action(self, connection, action)
        return has_begun

    @writes(long=True)
    async def discard_upload(self, connection: AsyncConnection, token_id: str, key: str) -> bool:
        """Throw one away that has not begun, with its run; False: it has begun, or there is none any more."""
        gone = sa.delete(idempotency_keys).where(*_of(token_id, key), _KEY.status.is_(None))
        row = (await connection.execute(gone.returning(_KEY.run_id))).one_or_none()
        if row is not None and row.run_id is not None:
            await discard_loading(connection, row.run_id)
        return row is not None


def _of(token_id: str, key: str) -> tuple[sa.ColumnElement[bool], ...]:
    return _KEY.token_id == token_id, _KEY.key == key
