"""`make bench-growth` and `make bench-history` in their short forms."""

from argparse import Namespace
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.store import Store
from app.store.days import DAY_MS
from benchmarks.growth import JUDGED, compare, opened
from benchmarks.history import DROPPED, drop_days, fill
from benchmarks.old_tasks import DAYS, OLD_MS
from tests.servers.postgres import PostgresServer


async def test_the_benchmark_of_growth_runs(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("empty", "grown")]
    async with opened(urls) as stores:
        found = await compare(stores, tasks=200, runs=4, paused=50, rounds=1)
        runs = await stores[1].queries.list_runs()
        assert sorted(run.state for run in runs) == ["finished"] * 4 + ["paused", "running"]
    assert found["ratios"].keys() >= set(JUDGED)
    assert all(found["empty_ms"][name] > 0 and found["grown_ms"][name] > 0 for name in JUDGED)


@pytest.mark.slow
async def test_a_history_lies_in_days_that_are_dropped_beside_a_writer(postgres: PostgresServer) -> None:
    url = postgres.create_database()
    async with opened([url]) as stores:
        store = stores[0]
        before = await _index_count(store)
        await fill(store, Namespace(tasks=10 * DAYS, runs=2, paused=10))
        assert await _index_count(store) == before, "what was dropped to fill it is made again"
        days = await store.partitions.partitions()
        assert [days[0].from_ms, days[DAYS - 1].until_ms] == [OLD_MS, OLD_MS + DAYS * DAY_MS]
        counts = [await _scalar(store, f"SELECT count(*) FROM {day.name}") for day in days[:DAYS]]
        assert counts == [10] * DAYS
        found = await drop_days(store)
        assert found["drop_s"]["longest"] > 0
        assert found["longest_write_ms"]["beside_a_drop"] > 0
        days = await store.partitions.partitions()
        assert days[0].from_ms == OLD_MS + DROPPED * DAY_MS
    postgres.drop_database(url)


async def _index_count(store: Store) -> int:
    return await _scalar(
        store, "SELECT count(*) FROM pg_indexes WHERE tablename IN ('tasks', 'ledger', 'results')"
    )


async def _scalar(store: Store, query: str) -> int:
    return int(await store.db.read(lambda connection: connection.scalar(sa.text(query))))
