"""`make bench-growth` in its short form."""

from pathlib import Path

from benchmarks.growth import JUDGED, compare, opened


async def test_the_benchmark_of_growth_runs(tmp_path: Path) -> None:
    urls = [f"sqlite:///{tmp_path}/{name}.db" for name in ("empty", "grown")]
    async with opened(urls) as stores:
        found = await compare(stores, tasks=200, runs=4, paused=50, rounds=1)
        runs = await stores[1].queries.list_runs()
        assert sorted(run.state for run in runs) == ["finished"] * 4 + ["paused", "running"]
    assert found["ratios"].keys() >= set(JUDGED)
    assert all(found["empty_ms"][name] > 0 and found["grown_ms"][name] > 0 for name in JUDGED)
