"""What runs beside pruning, on days that have their own partitions: others that prune, and snapshots."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.domain.time_format import DAY_MS
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.days import day_of
from app.store.read.verification import open_snapshot
from tests.clock import SteppedClock
from tests.integration.prune.test_prune import KEPT_DAYS, pruner_of, receipts, verify
from tests.integration.verify.scene import Scene, make_scene, verified
from tests.servers.postgres import PostgresServer


@pytest.fixture
async def scene(postgres: PostgresServer, postgres_template: str) -> AsyncIterator[Scene]:
    """Old books of a day that has its own partition."""
    url = postgres.create_database(postgres_template)
    store = Store(Database(url), read_answer)
    try:
        clock = SteppedClock(day_of(await store.health.database_ms()) + 20 * DAY_MS + 3_600_000)
        await store.partitions.add_partitions(clock())
        yield await make_scene(store, clock)
    finally:
        await store.close()
        postgres.drop_database(url)


async def test_what_several_prune_at_once_goes_once(scene: Scene) -> None:
    """A command by hand beside the workers' duty: of a partition that somebody else drops nothing is left."""
    scene.clock.advance((KEPT_DAYS + 2) * DAY_MS)
    turns = await asyncio.gather(*(pruner_of(scene).turn() for _ in range(4)))
    (receipt,) = await receipts(scene.store)
    assert sum(dropped.rows for turn in turns for dropped in turn) == receipt.row_count > 10
    assert (await verify(scene.store)).differences == []
    scene.clock.advance((KEPT_DAYS + 22) * DAY_MS)
    assert await asyncio.gather(*(pruner_of(scene).turn() for _ in range(4))) == [[]] * 4, "empty ones"


async def test_a_snapshot_of_before_sees_what_is_pruned_meanwhile(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its day is not dropped under it, though it has read nothing of it yet."""
    monkeypatch.setattr("app.store.write.partitions.LOCK_TRIES", 1)
    scene.clock.advance((KEPT_DAYS + 2) * DAY_MS)
    async with open_snapshot(scene.store.db) as snapshot:
        await snapshot.runs(None, ())
        (dropped,) = await pruner_of(scene).turn()
        assert dropped.rows > 10
        found = await verified(snapshot)
    assert (found.differences, found.counts["pruned"]) == ([], 0)
    assert (await verify(scene.store)).counts["pruned"] > 10
