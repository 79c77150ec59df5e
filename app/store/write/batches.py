"""Batches of the batch dialect: each is made with its run, and ends by its run, its file or its time."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.message import NewEndpoint
from app.domain.task import RunState, new_id
from app.domain.text import storable
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_OPEN_RUN, batches, runs
from app.store.write.relay_endpoints import link_run
from app.store.write.runs import discard_loading

_B = batches.c


@dataclass(frozen=True, slots=True)
class NewBatch:
    """A batch that is asked for."""

    token_id: str
    account: str
    idempotency_key: str | None
    request_sha256: str
    input_file_id: str
    endpoint: str
    completion_window: str
    metadata: str | None
    created_at_ms: int
    expires_at_ms: int


class BatchWrites(StorePart):
    """Part of the store."""

    async def create_batch(
        self,
        new: NewBatch,
        *,
        name: str,
        source: str,
        repeats_since_ms: int | None,
        push_to: NewEndpoint | None = None,
    ) -> tuple[str, str]:
        """(id, hash of the request) of a new batch with its run, which is loading; or of the batch that has
        the key already. `repeats_since_ms`: this is a repetition, so that a batch of the token that was asked
        for alike since then is the one meant."""
        run_id = new_id(new.created_at_ms)
        run = {
            "id": run_id,
            "name": storable(name),
            "source": storable(source),
            "state": RunState.LOADING,
            "bad_lines": 0,
            "account": new.account,
            "created_at_ms": new.created_at_ms,
            "has_rollup": True,
        }
        return await self._create(run, new, repeats_since_ms, push_to)

    @writes
    async def _create(
        self,
        connection: AsyncConnection,
        run: dict[str, object],
        new: NewBatch,
        repeats_since_ms: int | None,
        push_to: NewEndpoint | None,
    ) -> tuple[str, str]:
        if repeats_since_ms is not None:
            alike = _B.token_id == new.token_id, _B.request_sha256 == new.request_sha256
            earlier = sa.select(_B.run_id).where(*alike, _B.created_at_ms >= repeats_since_ms)
            if found := await connection.scalar(earlier.order_by(_B.run_id.desc()).limit(1)):
                return found, new.request_sha256
        row = {"run_id": run["id"], **{name: getattr(new, name) for name in NewBatch.__slots__}}
        await self.db.insert(connection, batches, [row], ignore=True)
        if new.idempotency_key is not None:
            # By a statement of its own, which sees what another process has committed meanwhile.
            has_key = _B.token_id == new.token_id, _B.idempotency_key == new.idempotency_key
            holder = sa.select(_B.run_id, _B.request_sha256).where(*has_key)
            held = (await connection.execute(holder)).one()
            if held.run_id != run["id"]:
                return held.run_id, held.request_sha256
        await self.db.insert(connection, runs, [run], known="id")
        if push_to is not None:
            endpoint = new_id(new.created_at_ms), push_to
            await link_run(self.db, connection, str(run["id"]), new.account, endpoint, new.created_at_ms)
        return str(run["id"]), new.request_sha256

    @writes(long=True)
    async def refuse_batch(self, connection: AsyncConnection, run_id: str, errors: str, now_ms: int) -> None:
        """Its file is none that can be run, so its run goes, of which nothing was sent. Nothing happens where
        another producer has let the run begin, or it was cancelled. `errors`: a JSON list."""
        if await discard_loading(connection, run_id):
            values = {"failed_at_ms": now_ms, "errors": storable(errors)}
            await connection.execute(sa.update(batches).where(_B.run_id == run_id).values(values))

    @reads
    async def overdue(self, connection: AsyncConnection, now_ms: int) -> list[str]:
        """Batches whose time is over, and whose runs may still send."""
        # From the few runs that are open.
        query = sa.select(_B.run_id).join(runs, runs.c.id == _B.run_id)
        query = query.where(IS_OPEN_RUN, _B.expires_at_ms <= now_ms)
        return list((await connection.scalars(query)).all())

    @writes
    async def expire_batch(self, connection: AsyncConnection, run_id: str, now_ms: int) -> None:
        """Note that its time is over."""
        is_new = _B.run_id == run_id, _B.expired_at_ms.is_(None)
        await connection.execute(sa.update(batches).where(*is_new).values(expired_at_ms=now_ms))
