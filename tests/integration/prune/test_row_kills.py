"""Row pruning that is killed within a batch or between two: what went is in its receipt, once, and no figure
of a run changes."""

import asyncio
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable

import pytest

from app.domain.retention import Kind
from app.domain.time_format import DAY_MS
from app.services.prune import ROW_KINDS
from app.store import Store
from app.store.write.pruning_rows import TABLES
from app.store.write.receipts import receipts_of
from tests.integration.prune.test_prune import verify
from tests.integration.prune.test_prune_keys import KEYS, OVER, take
from tests.integration.prune.test_prune_rows import figures, ids, old_scene, prune, pruner_of
from tests.integration.verify.scene import Scene

ROWS = 2
"""Of a batch."""
WITHIN, BETWEEN = 7, 10
"""Steps of the second batch: its rows are dropped and no receipt says so; it has not begun."""
EVERY = [*range(8)] * 5
"""Of the first two batches: what they do is done when the next one begins."""

LAST = 100_000
"""Never come to. Twice: notices that findings held up go in the turn behind these."""


def run_pruner(*arguments: str) -> int:
    command = [sys.executable, "-m", "tests.integration.prune.row_pruner", *arguments]
    return subprocess.run(command, timeout=200, check=False).returncode


async def counts(store: Store) -> dict[Kind, int]:
    return {kind: len(await ids(store, TABLES[kind])) for kind in ROW_KINDS}


async def kill_at(steps: Iterable[int], scene: Scene, store_url: str) -> int:
    """Prune, killed at each of the steps in turn, and see after each that the books are whole; how often it
    was killed."""
    store, kills = scene.store, 0
    before, told = await counts(store), await figures(scene)
    for step in steps:
        arguments = [store_url, str(scene.clock()), str(ROWS), str(step)]
        code = await asyncio.to_thread(run_pruner, *arguments)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
        gone: Counter[Kind] = Counter()
        for receipt in await store.db.read(receipts_of):
            gone[Kind(receipt.kind)] += receipt.row_count
        left = await counts(store)
        assert {kind: before[kind] - gone[kind] for kind in ROW_KINDS} == left, step
        assert (await verify(store)).differences == [], step
        assert await figures(scene) == told, step
    return kills


async def _old_books(store: Store) -> Scene:
    scene = await old_scene(store)
    await take(store, OVER, KEYS, scene.clock() - 30 * DAY_MS)
    await store.runs.cancel_run((await store.run_pages.runs_before(None, 1))[0].run.id, "cancelled")
    await prune(scene, Kind.BODIES)  # by which findings stay
    return scene


async def test_row_pruning_killed_at_some_steps_loses_nothing(store: Store, store_url: str) -> None:
    scene = await _old_books(store)
    assert await kill_at((WITHIN, BETWEEN), scene, store_url) == 2
    assert await pruner_of(scene, *ROW_KINDS).turn(), "the rest"
    assert (await verify(store)).differences == []


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_row_pruning_killed_at_many_steps_loses_nothing(store: Store, store_url: str) -> None:
    scene = await _old_books(store)
    before = await counts(store)
    assert await kill_at([*EVERY, LAST, LAST], scene, store_url) > 20
    after = await counts(store)
    assert all(after[kind] < before[kind] for kind in ROW_KINDS)
