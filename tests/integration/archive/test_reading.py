"""What is archived and pruned is read as if it were stored: by verify, the export and a dispute."""

from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.address import read_objects_address
from app.archive import Archive
from app.domain.delivery import RawDelivery
from app.domain.retention import Kind
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.objects import open_objects
from app.ports import ObjectsRefused
from app.provider.wire import read_answer, read_report
from app.services.archive import archive_days
from app.services.in_archive import InArchive
from app.services.prune import Pruner
from app.services.settle import settle
from app.services.verify.books import VerifyTotals
from app.store import Store
from app.store.days import day_of
from app.store.read.verification import open_snapshot
from app.store.tables import deliveries
from tests.clock import SteppedClock
from tests.integration.verify.scene import Scene, make_scene, verified


@pytest.fixture
async def scene(store: Store) -> Scene:
    return await make_scene(store)


@pytest.fixture
async def archiving(store: Store, tmp_path: Any) -> AsyncIterator[Store]:
    """The same database, opened with an archive."""
    address = read_objects_address(str(tmp_path / "archive"))
    yield Store(store.db, read_answer, Archive(address.display, lambda: open_objects(address)))


async def no_pause() -> None:
    """Nobody else works."""


def pruner_of(scene: Scene, store: Store) -> Pruner:
    assert isinstance(store.archive, Archive)
    place = InArchive(store, store.archive)
    return Pruner(store, {Kind.BODIES: 10}, clock=scene.clock, pause=no_pause, place=place)


async def archive_and_prune(scene: Scene, store: Store) -> None:
    scene.clock.advance(20 * DAY_MS)
    assert isinstance(store.archive, Archive)
    days = archive_days(store, store.archive, until_ms=scene.clock(), days_max=9, clock=scene.clock)
    assert [day.left_out async for day in days] == [0]

    (dropped,) = await pruner_of(scene, store).turn()
    assert dropped.rows > 5


async def verify(store: Store) -> VerifyTotals:
    async with open_snapshot(store.db, archive=store.archive) as snapshot:
        return await verified(snapshot)


async def exported(store: Store, run_id: str) -> list[dict[str, Any]]:
    return [row async for row in store.exports.export(run_id)]


async def disputed(store: Store, run_id: str) -> list[Any]:
    scope = await store.disputes.dispute_scope(run_id)
    return await store.disputes.discrepancies(scope, after=0, limit=100)


async def test_verify_derives_again_what_is_archived(scene: Scene, archiving: Store) -> None:
    before = await verify(archiving)
    await archive_and_prune(scene, archiving)
    after = await verify(archiving)
    assert after.differences == before.differences == []
    assert after.counts["pruned"] == 0
    assert after.counts["signatures_fit"] >= 5
    without = await verify(scene.store)
    assert without.differences == []
    assert without.counts["pruned"] > 5, "whoever has no archive goes by the receipt"


@pytest.mark.parametrize("place", ["folder", "s3"])
async def test_an_archive_that_has_not_the_block_is_not_taken_for_the_database(
    scene: Scene, archiving: Store, place: str, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    """Moved, or another one than it went to: whoever reads is told so, with the block and what to do."""
    url = str(tmp_path / "elsewhere")
    if place == "s3":
        url = f"s3://{request.getfixturevalue('s3').new_bucket()}"
    await archive_and_prune(scene, archiving)
    address = read_objects_address(url)
    moved = Store(scene.store.db, read_answer, Archive(address.display, lambda: open_objects(address)))
    reads: list[Callable[[], Awaitable[Any]]] = [
        lambda: verify(moved),
        lambda: exported(moved, scene.run_id),
        lambda: disputed(moved, scene.run_id),
    ]
    for read in reads:
        with pytest.raises(ObjectsRefused, match=r"deliveries/day=.* is not in the archive") as refused:
            await read()
        assert "TALLYHOOK_ARCHIVE_URL" in refused.value.remedy


async def test_nothing_is_pruned_that_is_not_archived(scene: Scene, archiving: Store) -> None:
    scene.clock.advance(20 * DAY_MS)

    pruner = pruner_of(scene, archiving)
    assert await pruner.turn() == []
    assert list(pruner.held.values()) == ["not all of it is in the archive yet"]


async def test_what_is_set_aside_stays_and_holds_up_no_day(store: Store, archiving: Store) -> None:
    """It is settled later, archived then, and pruned only after that."""
    clock = SteppedClock(day_of(await store.health.database_ms()) + 20 * DAY_MS + 3_600_000)
    await store.partitions.add_partitions(clock())
    scene = await make_scene(store, clock)
    name = "duplicate"
    clock.advance(1)
    late = RawDelivery(new_id(clock()), Source.POLL, clock(), scene.body(name), account="default")
    await store.inbox.store_deliveries([late], due_at_ms=clock())
    await store.inbox.quarantine_deliveries([(late.id, "no report")])
    clock.advance(20 * DAY_MS)

    async def archive() -> list[int]:
        assert isinstance(archiving.archive, Archive)
        days = archive_days(store, archiving.archive, until_ms=clock(), days_max=9, clock=clock)
        return [day.left_out async for day in days]

    async def stands() -> bool:
        query = sa.select(deliveries.c.id).where(deliveries.c.id == late.id)
        return await store.db.read(lambda c: c.scalar(query)) is not None

    async def pruned() -> list[int]:
        assert [str(d) for d in (await verify(archiving)).differences] == []
        planned = await pruner_of(scene, archiving).plan()
        rows = [dropped.rows for dropped in await pruner_of(scene, archiving).turn()]
        assert rows == [one.rows for one in planned if one.rows]
        assert [str(d) for d in (await verify(archiving)).differences] == []
        return rows

    assert await archive() == [1]
    (rows,) = await pruned()
    assert rows > 5
    assert await stands()
    assert await store.set_aside.retry_inbox([late.id], clock()) == [late.id]
    await settle(store, read_report, [late.id], clock=clock, unmatched_ms=0)
    assert await pruned() == [], "it is in no block yet"
    assert await stands()
    assert await archive() == [0]
    assert await pruned() == [1]
    assert not await stands()


async def test_export_and_dispute_say_the_same_before_and_after(scene: Scene, archiving: Store) -> None:
    run_ids = sorted({run.id for run in await archiving.queries.list_runs()})
    before = [(await exported(archiving, i), await disputed(archiving, i)) for i in run_ids]
    await archive_and_prune(scene, archiving)
    after = [(await exported(archiving, i), await disputed(archiving, i)) for i in run_ids]
    assert after == before
    assert sum(row["response"] is not None for rows, _ in after for row in rows) > 5
    page = await archiving.settled.settled_after(0)
    assert sum(row["response"] is not None for row in page.rows) > 5
    without = [row for i in run_ids for row in await exported(scene.store, i)]
    assert any(row["response"] is None and row["answer_sha256"] for row in without)
