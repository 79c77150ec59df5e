"""Keys of callers: those of tasks that are over go, with receipts; the others still keep a task from being
bought again."""

import json
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import DONE, Kind, Reason
from app.domain.standing import NewTask, Producer, Taking
from app.domain.task import TaskSpec, new_id
from app.domain.time_format import DAY_MS
from app.services.prune import Pruner
from app.store import Store
from app.store.tables import receipts, task_keys
from app.store.write import pruning_rows
from tests.clock import SteppedClock
from tests.integration.prune.test_prune import no_pause, verify

OPEN, OVER, RETAINED = (Producer(new_id(1, n), name, "default") for n, name in enumerate("abc", start=1))
KEYS = [f"order-{n}" for n in range(5)]


async def take(store: Store, producer: Producer, keys: list[str], now_ms: int) -> set[str]:
    """Ask for tasks under keys; the ids of those that were not stored."""
    payload = {"prompt": "p", "country": "DE"}
    same = "GEMINI", json.dumps(payload), 1, TaskSpec(0, "GEMINI", payload).fingerprint(), Decimal(5)
    new = [NewTask(new_id(now_ms), *same, key) for key in keys]
    return await store.standing.take_tasks([Taking(producer, new, "provider.task", "r")], now_ms)


async def _scalars(connection: AsyncConnection, query: sa.Select[Any]) -> list[Any]:
    return list(await connection.scalars(query))


async def keys_of(store: Store, producer: Producer) -> set[str]:
    query = sa.select(task_keys.c.key).where(task_keys.c.token_id == producer.token_id)
    return set(await store.db.read(lambda c: _scalars(c, query)))


async def old_keys(store: Store, clock: SteppedClock) -> None:
    """Tasks of twenty days ago that are open, over, over and retained; and one of today."""
    for producer in (OPEN, OVER, RETAINED):
        await take(store, producer, KEYS, clock.advance(1))
        run_id = (await store.run_pages.runs_before(None, 1))[0].run.id
        if producer is not OPEN:
            await store.runs.cancel_run(run_id, "cancelled")
    await store.pruning.retain_run(run_id, clock())
    clock.advance(20 * DAY_MS)
    await take(store, OVER, ["young"], clock())


async def test_keys_of_tasks_that_are_over_go(
    store: Store, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning_rows, "ROWS", 3)
    await old_keys(store, clock)
    pruner = Pruner(store, {Kind.KEYS.value: 10}, clock=clock, pause=no_pause)
    (planned,) = await pruner.plan()
    (dropped,) = await pruner.turn()
    assert dropped == planned
    assert (dropped.rows, dropped.kept) == (5, {Reason.OPEN: 5, Reason.RETAINED: 5})
    assert await keys_of(store, OPEN) == await keys_of(store, RETAINED) == set(KEYS)
    assert await keys_of(store, OVER) == {"young"}
    assert await store.db.read(lambda c: _scalars(c, sa.select(receipts.c.state))) == [DONE]
    assert (await verify(store)).differences == []
    assert len(await take(store, OPEN, KEYS, clock.advance(1))) == 5, "nothing is bought again"
    assert await take(store, OVER, KEYS, clock.advance(1)) == set()
