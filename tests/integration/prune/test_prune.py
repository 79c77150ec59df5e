"""What is pruned and what stays, with receipts that agree with the rows, and books that verify all along."""

from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import DONE, Kind, Reason, Receipt
from app.domain.time_format import DAY_MS
from app.provider.wire import read_answer
from app.services.prune import Pruner
from app.services.verify.books import VerifyTotals
from app.store import Database, Store
from app.store.days import day_of
from app.store.read.verification import open_snapshot
from app.store.tables import deliveries, runs
from app.store.write import pruning
from app.store.write.receipts import receipts_of
from tests.clock import SteppedClock
from tests.integration.verify.scene import Scene, make_scene, verified
from tests.servers.postgres import PostgresServer

KEPT_DAYS = 10
NOT_SENT_OR_OPEN = {"submitted", "never_sent", "unknown"}
IN_DISPUTE = {"undercharged", "conflict", "repriced", "double"}


async def no_pause() -> None:
    """Nobody else works."""


def pruner_of(scene: Scene, days: int = KEPT_DAYS) -> Pruner:
    return Pruner(scene.store, {Kind.BODIES: days}, clock=scene.clock, pause=no_pause)


async def verify(store: Store) -> VerifyTotals:
    async with open_snapshot(store.db) as snapshot:
        return await verified(snapshot)


async def standing(store: Store) -> dict[str, list[str]]:
    """Task id, or "" -> deliveries."""

    async def work(connection: AsyncConnection) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for row in await connection.execute(sa.select(deliveries.c.task_id, deliveries.c.id)):
            found.setdefault(row.task_id or "", []).append(row.id)
        return found

    return await store.db.read(work)


async def receipts(store: Store) -> list[Receipt]:
    return list(await store.db.read(receipts_of))


async def change(store: Store, statement: Any) -> None:
    await store.db.write(lambda connection: connection.execute(statement))


@pytest.fixture(params=["batches", "whole day", "sqlite"])
async def scene(request: pytest.FixtureRequest, postgres: PostgresServer) -> AsyncIterator[Scene]:
    """Old books, on SQLite and in both ways of PostgreSQL: a day among others in an old partition, and one
    that has its own."""
    clock = SteppedClock()
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        url = postgres.create_database(request.getfixturevalue("postgres_template"))
    store = Store(Database(url), read_answer)
    try:
        if request.param == "whole day":
            clock = SteppedClock(day_of(await store.health.database_ms()) + 20 * DAY_MS + 3_600_000)
            await store.partitions.add_partitions(clock())
        yield await make_scene(store, clock)
    finally:
        await store.close()
        if request.param != "sqlite":
            postgres.drop_database(url)


async def test_what_may_go_goes_and_the_rest_stays(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning, "BATCH", 3)
    monkeypatch.setattr(pruning, "SURVEYED", 7)
    store, before = scene.store, await standing(scene.store)
    scene.clock.advance((KEPT_DAYS - 1) * DAY_MS)
    assert await pruner_of(scene).turn() == [], "not old enough"
    scene.clock.advance(2 * DAY_MS)
    (planned,) = await pruner_of(scene).plan()
    assert await standing(store) == before, "a plan drops nothing"

    (dropped,) = await pruner_of(scene).turn()
    after = await standing(store)
    stays = {scene.ids[name] for name in NOT_SENT_OR_OPEN | IN_DISPUTE}
    assert set(after) == stays & set(before)
    assert all(after[task] == before[task] for task in after), "a task's reports go together, or stay"
    assert dropped.rows_of == [], "of years they would be gigabytes"
    assert dropped.kept == planned.kept == Counter({Reason.OPEN: 1, Reason.DISPUTED: 6})
    count = {name: sum(map(len, found.values())) for name, found in (("b", before), ("a", after))}
    (receipt,) = await receipts(store)
    assert receipt.row_count == dropped.rows == planned.rows == count["b"] - count["a"]
    assert (receipt.state, receipt.kept) == (DONE, count["a"])
    assert receipt.body_bytes == dropped.body_bytes == planned.body_bytes
    assert receipt.from_ms == day_of(scene.clock() - 11 * DAY_MS)
    assert receipt.credits_charged == 7 * 5 + 9 + 7 + 7, "seven at 5, overcharged, clusters, asked"

    totals = await verify(store)
    assert [str(d) for d in totals.differences] == []
    assert totals.counts["pruned"] == len(before) - len(after), "without the stranger's, with the reuse"
    assert await pruner_of(scene).turn() == [], "nothing to do is quiet"
    assert await receipts(store) == [receipt]


async def test_a_retained_run_is_kept_whole_with_what_it_reuses(scene: Scene) -> None:
    store, before = scene.store, await standing(scene.store)
    found = await store.db.read(lambda c: c.scalar(sa.select(runs.c.id).where(runs.c.name == "second")))
    second = str(found)
    since = scene.clock()
    assert await store.pruning.retain_run(second, since) == since
    assert await store.pruning.retain_run(second, since + 5) == since, "asking twice changes nothing"
    scene.clock.advance((KEPT_DAYS + 2) * DAY_MS)
    await pruner_of(scene).turn()
    assert scene.ids["matched"] in await standing(store), "its answer was reused for the retained run"
    assert (await verify(store)).differences == []

    await store.pruning.retain_run(scene.run_id, scene.clock())
    assert await store.pruning.retain_run(second, None) is None
    (receipt,) = await receipts(store)
    assert await pruner_of(scene).turn() == [], "matched is of a run that is retained now"
    await store.pruning.retain_run(scene.run_id, None)
    (dropped,) = await pruner_of(scene).turn()
    assert (dropped.rows, dropped.credits_charged) == (1, Decimal(5))
    (now,) = await receipts(store)
    assert (now.id, now.row_count, now.kept) == (receipt.id, receipt.row_count + 1, (receipt.kept or 0) - 1)
    assert (now.begun_at_ms, now.sha256 != receipt.sha256) == (receipt.begun_at_ms, True)
    assert (await verify(store)).differences == []
    assert len(before) > 5


async def test_what_went_beside_the_receipt_is_found(scene: Scene) -> None:
    store = scene.store
    scene.clock.advance((KEPT_DAYS + 2) * DAY_MS)
    # Not pruned yet: no receipt covers it.
    lost = scene.delivered["matched"][0]
    row = await store.db.read(lambda c: c.execute(sa.select(deliveries).where(deliveries.c.id == lost)))
    (kept,) = [dict(one._mapping) for one in row]
    await change(store, sa.delete(deliveries).where(deliveries.c.id == lost))
    assert {d.column for d in (await verify(store)).differences} >= {"delivery_id"}
    await change(store, sa.insert(deliveries).values(kept))

    await pruner_of(scene).turn()
    (receipt,) = await receipts(store)
    # One that was open, one that was in dispute.
    await change(store, sa.delete(deliveries).where(deliveries.c.id == scene.delivered["unknown"][0]))
    found = (await verify(store)).differences
    assert {(d.table, d.column) for d in found} == {
        ("results", "delivery_id"),
        ("receipts", "kept"),
        ("findings", "delivery_id"),
    }
    await change(store, sa.delete(deliveries).where(deliveries.c.task_id == scene.ids["undercharged"]))
    found = (await verify(store)).differences
    assert ("kept", str(receipt.kept), str((receipt.kept or 0) - 2)) in {
        (d.column, d.stands, d.should_be) for d in found
    }


@pytest.mark.parametrize(
    ("column", "value", "found"),
    [
        (
            "credits_charged",
            4_000_000,
            {("ledger", "row"), ("receipts", "credits_charged"), ("tasks", "verdict")},
        ),
        ("verdict", "overcharged", {("tasks", "verdict")}),
        ("reported", "failed", {("results", "status"), ("tasks", "verdict")}),
        ("money", "voided", {("ledger", "row")}),
    ],
)
async def test_rows_of_pruned_tasks_are_held_against_each_other(
    sqlite_store: Store, column: str, value: object, found: set[tuple[str, str]]
) -> None:
    scene = await make_scene(sqlite_store)
    scene.clock.advance((KEPT_DAYS + 2) * DAY_MS)
    await pruner_of(scene).turn()
    statement = f"UPDATE tasks SET {column} = :value WHERE id = :id"
    task_id = scene.ids["matched"].replace("-", "")
    await change(sqlite_store, sa.text(statement).bindparams(value=value, id=task_id))
    differences = {(d.table, d.column) for d in (await verify(sqlite_store)).differences}
    assert differences - {("ledger", "sum of post")} - {("run_spending", "credits")} == found


async def test_an_adjustment_answers_a_dispute(sqlite_store: Store) -> None:
    scene = await make_scene(sqlite_store)
    scene.clock.advance((KEPT_DAYS + 2) * DAY_MS)
    await pruner_of(scene).turn()
    await sqlite_store.adjustments.add_adjustment(
        Decimal(-3),
        "as agreed",
        now_ms=scene.clock(),
        account="default",
        run_id=scene.run_id,
        task_id=scene.ids["undercharged"],
        attempt=1,
    )
    (dropped,) = await pruner_of(scene).turn()
    assert (dropped.rows, dropped.credits_charged) == (1, Decimal(2))
    assert (await verify(sqlite_store)).differences == []
