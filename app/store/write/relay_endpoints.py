"""Writes about endpoints of the relay: who gets a run's results, and who posts to an endpoint now."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.ladder import LONGEST_MS, Released
from app.domain.relay.message import Endpoint, EndpointState, NewEndpoint, Scheme
from app.store.database import Database
from app.store.part import StorePart, reads, writes
from app.store.tables import (
    IS_ACTIVE_ENDPOINT,
    has_come,
    relay_endpoints,
    relay_messages,
    relay_position,
    relay_runs,
    runs,
    settle_sequence,
)

OLD_SECRET_MS = 24 * 3_600_000
"""Both secrets sign for so long after a change."""
_E = relay_endpoints.c
_Conditions = tuple[sa.ColumnElement[bool], ...]


class RelayEndpointWrites(StorePart):
    """Part of the store."""

    async def claim_endpoints(self, owner: str, *, limit: int, now_ms: int, lease_ms: int) -> list[Endpoint]:
        """Endpoints for which something is due and to which nobody posts; they are the owner's until the
        lease is over."""
        # Read first: as a rule there is none, and each worker looks every second.
        is_due = _is_due(now_ms, lease_ms)
        if not await self._is_any(is_due):
            return []
        return await self._claim(owner, is_due, limit=limit, now_ms=now_ms, until_ms=now_ms + lease_ms)

    @reads
    async def _is_any(self, connection: AsyncConnection, which: _Conditions) -> bool:
        return await connection.scalar(sa.select(_E.id).where(*which).limit(1)) is not None

    @writes
    async def _claim(
        self,
        connection: AsyncConnection,
        owner: str,
        is_due: _Conditions,
        *,
        limit: int,
        now_ms: int,
        until_ms: int,
    ) -> list[Endpoint]:
        due = sa.select(_E.id).where(*is_due).order_by(_E.due_at_ms).limit(limit)
        due = due.with_for_update(skip_locked=True)
        claimed = await connection.execute(
            sa.update(relay_endpoints)
            .where(_E.id.in_(due.cte("due").select()), *is_due)
            .values(owner=owner, lease_until_ms=until_ms)
            .returning(relay_endpoints)
        )
        return [_endpoint(row, now_ms) for row in claimed]

    @writes
    async def keep_endpoints(
        self, connection: AsyncConnection, owner: str, ids: Sequence[str], *, until_ms: int
    ) -> set[str]:
        """Prolong leases; the ids of those that are still the owner's."""
        kept = await connection.execute(
            sa.update(relay_endpoints)
            .where(_E.id.in_(ids), _E.owner == owner)
            .values(lease_until_ms=until_ms)
            .returning(_E.id)
        )
        return set(kept.scalars())

    @writes
    async def release_endpoint(
        self, connection: AsyncConnection, owner: str, endpoint_id: str, left: Released
    ) -> bool:
        """Give an endpoint back, with how it did; False when it is not the owner's any more."""
        is_own = _E.id == endpoint_id, _E.owner == owner
        # The row first: who adds messages changes it after that, so none is overlooked.
        held = sa.select(_E.id).where(*is_own).with_for_update()
        if await connection.scalar(held) is None:
            return False
        due_ms = await connection.scalar(
            sa.select(sa.func.min(relay_messages.c.due_at_ms)).where(
                relay_messages.c.endpoint_id == endpoint_id
            )
        )
        if due_ms is not None and left.rest_until_ms is not None:
            due_ms = max(due_ms, left.rest_until_ms)
        values: dict[str, Any] = {"last_error": left.error} if left.error else {}
        await connection.execute(
            sa.update(relay_endpoints)
            .where(*is_own)
            .values(
                # A person may have put it back, or taken it out, meanwhile.
                state=sa.case((IS_ACTIVE_ENDPOINT, left.state), else_=_E.state),
                due_at_ms=due_ms,
                rests=left.health.rests,
                failing_since_ms=left.health.failing_since_ms,
                owner=None,
                lease_until_ms=None,
                **values,
            )
        )
        return True

    @writes
    async def put_back(self, connection: AsyncConnection, endpoint_ids: Sequence[str], now_ms: int) -> int:
        """Let endpoints go on that were set aside, and try again at once what was given up or waits; how
        many messages there are."""
        await connection.execute(
            sa.update(relay_endpoints)
            .where(_E.id.in_(endpoint_ids), _E.state != EndpointState.CLOSED)
            .values(
                state=EndpointState.ACTIVE, rests=0, failing_since_ms=None, due_at_ms=now_ms, last_error=None
            )
        )
        m = relay_messages.c
        done = await connection.execute(
            sa.update(relay_messages).where(m.endpoint_id.in_(endpoint_ids)).values(due_at_ms=now_ms, tries=0)
        )
        return done.rowcount

    @writes
    async def change_secret(
        self, connection: AsyncConnection, endpoint_id: str, secret: str, now_ms: int
    ) -> bool:
        """Sign with another secret from now on, and for a day with the present one too."""
        return await _change_secret(connection, endpoint_id, secret, now_ms)


async def link_run(
    db: Database,
    connection: AsyncConnection,
    run_id: str,
    account: str,
    endpoint: tuple[str, NewEndpoint],
    now_ms: int,
) -> None:
    """Within the transaction that makes a run: all its results go there. The endpoint with its id, should
    there be none with that URL."""
    endpoint_id = await ensure_endpoint(db, connection, endpoint[0], account, endpoint[1], now_ms)
    await db.insert(connection, relay_runs, [{"run_id": run_id, "endpoint_id": endpoint_id}], ignore=True)


async def unlink_run(connection: AsyncConnection, run_id: str) -> None:
    """Within the transaction that discards a run: and its endpoint, if it was made with it and nobody else
    has it. Its secret was never told."""
    c = relay_runs.c
    linked = (await connection.scalars(sa.select(c.endpoint_id).where(c.run_id == run_id))).all()
    if not linked:
        return
    await connection.execute(sa.delete(relay_messages).where(relay_messages.c.run_id == run_id))
    await connection.execute(sa.delete(relay_runs).where(c.run_id == run_id))
    is_used = sa.exists().where(c.endpoint_id == _E.id)
    of_run = sa.select(runs.c.created_at_ms).where(runs.c.id == run_id).scalar_subquery()
    await connection.execute(
        sa.delete(relay_endpoints).where(
            _E.id.in_(linked),
            ~is_used,
            _E.token_id == "",
            _E.taken == 0,
            _E.due_at_ms.is_(None),
            _E.created_at_ms == of_run,
        )
    )


async def ensure_endpoint(
    db: Database, connection: AsyncConnection, endpoint_id: str, account: str, new: NewEndpoint, now_ms: int
) -> str:
    """The id of the endpoint of this URL, made if there is none. Within a transaction of the caller's."""
    row = {
        "id": endpoint_id,
        "account": account,
        "token_id": new.token_id,
        "url": new.url,
        "scheme": new.scheme,
        "secret": new.secret,
        "state": EndpointState.ACTIVE,
        "created_at_ms": now_ms,
        "from_seq": await connection.scalar(sa.select(settle_sequence.c.value)) or 0,
        "rests": 0,
        "taken": 0,
    }
    await db.insert(connection, relay_endpoints, [row], ignore=True)
    await db.insert(connection, relay_position, [{"id": 1, "seq": row["from_seq"]}], ignore=True)
    found = await connection.execute(
        sa.select(_E.id, _E.secret, _E.state).where(
            _E.account == account, _E.token_id == new.token_id, _E.url == new.url, _E.scheme == new.scheme
        )
    )
    known = found.one()
    if known.state == EndpointState.CLOSED:
        await connection.execute(
            sa.update(relay_endpoints).where(_E.id == known.id).values(state=EndpointState.ACTIVE)
        )
    if new.is_secret_given and known.secret != new.secret:
        await _change_secret(connection, known.id, new.secret, now_ms)
    return str(known.id)


async def _change_secret(connection: AsyncConnection, endpoint_id: str, secret: str, now_ms: int) -> bool:
    done = await connection.execute(
        sa.update(relay_endpoints)
        .where(_E.id == endpoint_id, _E.secret != secret)
        .values(secret=secret, old_secret=_E.secret, old_secret_until_ms=now_ms + OLD_SECRET_MS)
    )
    return done.rowcount == 1


def _is_due(now_ms: int, lease_ms: int) -> _Conditions:
    is_free = sa.or_(_E.lease_until_ms.is_(None), has_come(_E.lease_until_ms, now_ms, lease_ms))
    return IS_ACTIVE_ENDPOINT, has_come(_E.due_at_ms, now_ms, LONGEST_MS), is_free


def _endpoint(row: sa.Row[Any], now_ms: int) -> Endpoint:
    old_until_ms = row.old_secret_until_ms
    secrets: tuple[str, ...] = (row.secret,)
    if row.old_secret and old_until_ms is not None and now_ms < old_until_ms:
        secrets += (row.old_secret,)
    scheme = Scheme(row.scheme)
    return Endpoint(row.id, row.account, row.url, scheme, secrets, row.rests, row.failing_since_ms)
