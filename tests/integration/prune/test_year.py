"""A year in small: days of work on a stepped clock, pruned as they grow old. Bytes level off, and the books
verify each month. The short form has twelve days of few tasks."""

import random

import pytest
import sqlalchemy as sa

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import TaskSpec, new_id
from app.domain.time_format import DAY_MS
from app.provider.signature import sign
from app.provider.wire import read_report
from app.services.settle import settle
from app.store import Store
from app.store.tables import deliveries
from tests.clock import SteppedClock
from tests.integration.prune.test_prune import pruner_of, receipts, verify
from tests.integration.verify.scene import FIVE, SECRET, Scene


async def work_a_day(scene: Scene, day: int, count: int) -> None:
    """A run of `count` prompts, each answered."""
    store, clock = scene.store, scene.clock
    run_id = await store.runs.create_run(name=f"day {day}", source="-", budget=None, now_ms=clock())
    names = [f"{day}-{n}" for n in range(count)]
    specs = [TaskSpec(n, "CHATGPT", {"prompt": name, "country": "DE"}) for n, name in enumerate(names, 1)]
    ids = await store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], clock())
    scene.ids = dict(zip(names, ids, strict=True))
    await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
    await scene.claim()
    await store.submissions.record_submissions([scene.ended(name) for name in names])
    now = clock.advance(60_000)
    arrived = [_signed(scene.body(name, response={"text": _text(name)}), now) for name in names]
    await store.inbox.store_deliveries(arrived, due_at_ms=now)
    await settle(store, read_report, [one.id for one in arrived], clock=clock, unmatched_ms=0)


def _text(name: str) -> str:
    return random.Random(name).randbytes(1_000).hex()


def _signed(body: bytes, now_ms: int) -> RawDelivery:
    at = str(now_ms // 1000)
    signature = sign(SECRET, at, body)
    return RawDelivery(
        new_id(now_ms),
        Source.DELIVERY,
        now_ms,
        body,
        account="default",
        webhook_id="w",
        signed_at=at,
        signature=signature,
    )


async def stored_bytes(store: Store) -> int:
    size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(deliveries.c.body)), 0))
    return int(await store.db.read(lambda connection: connection.scalar(size)) or 0)


@pytest.mark.parametrize(
    ("days", "kept", "a_day", "month"),
    [(12, 4, 3, 6), pytest.param(365, 30, 50, 30, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])],
)
async def test_bytes_level_off_as_the_policy_says(
    store: Store, days: int, kept: int, a_day: int, month: int
) -> None:
    scene = Scene(store, SteppedClock())
    pruner = pruner_of(scene, kept)
    sizes = []
    for day in range(days):
        start_ms = scene.clock()
        await work_a_day(scene, day, a_day)
        await pruner.turn()
        sizes.append(await stored_bytes(store))
        if day % month == month - 1:
            totals = await verify(store)
            assert totals.differences == []
            assert totals.counts["pruned"] == max(day - kept, 0) * a_day
        scene.clock.now_ms = start_ms + DAY_MS
    level = sizes[kept + 1]
    assert sizes[kept - 1] < level
    assert all(abs(size - level) < level * 0.02 for size in sizes[kept + 1 :])
    gone = await receipts(store)
    assert sum(one.row_count for one in gone) == (days - kept - 1) * a_day
