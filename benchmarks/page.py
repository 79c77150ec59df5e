"""What each page costs beside 5,000,000 tasks in PostgreSQL: `make bench-page`.

Every address of benchmarks/page_paths.py is asked for: first after the server was started anew with nothing
of the database in memory, then ROUNDS times more; the time is to its whole answer on loopback.
Then 200 pages are open, and the statements of some seconds are counted.
Ends with 1 when 95 of 100 take longer than MAX_MS, or a statement scans a large table.

`--data FOLDER` keeps the database there and takes it from there the next time, `--url` takes one filled
elsewhere. `--tasks 200000` is a minute. Needs 2 KB of disk a task.
"""

import argparse
import asyncio
import functools
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import CookieJar, TCPConnector
from aiohttp.test_utils import TestClient, TestServer

from app.api.route import Parts
from app.api.server import create_api
from app.config import Settings
from app.page.site import mount
from app.provider.wire import read_answer
from app.services.access import create_token
from app.store import Database, Store
from app.store.migrate import migrate
from benchmarks.history import TASK_BYTES
from benchmarks.page_paths import Shown, shown_paths
from benchmarks.page_rows import add_page_history
from tests.clock import SteppedClock
from tests.integration.api.asking import Api
from tests.integration.page.visiting import Visitor
from tests.plans import large_relations, noting, plans_of, scanned
from tests.servers.postgres import PostgresServer, database_name

RESULTS = Path(__file__).parent / "results" / "page.json"
MAX_MS = 200.0
ROUNDS = 2
LOADED = "loaded.json"
"""In the folder of a database that is kept: what was loaded into it."""
OPEN = 200
LISTENED_S = 10.0
LARGE = {"tasks", "deliveries", "ledger"}
UNHURRIED: dict[str, Any] = {"api_rate_per_s": 10_000, "_env_file": None}
SLOWEST = 12
"""That are named."""
SERVER = {
    "shared_buffers": "512MB",
    "max_wal_size": "2GB",
    "wal_level": "minimal",
    "max_wal_senders": "0",
    "autovacuum": "off",
}


@asynccontextmanager
async def visiting(url: str) -> AsyncIterator[Visitor]:
    """Somebody who is signed in to pages on a database."""
    async with AsyncExitStack() as stack:
        store = Store(Database(url), read_answer)
        stack.push_async_callback(store.close)
        settings, clock = Settings(**UNHURRIED), SteppedClock()
        parts = Parts(store, settings, clock)
        server = TestServer(create_api(parts, settings, mount))
        client = TestClient(server, connector=TCPConnector(limit=0), cookie_jar=CookieJar(unsafe=True))
        await stack.enter_async_context(client)
        visitor = Visitor(Api(client, store, clock, parts))
        visitor.api.tokens["operate", None] = await _token(visitor)
        await visitor.sign_in()
        yield visitor


async def _token(visitor: Visitor) -> str:
    made = await create_token(
        visitor.api.store, f"bench {time.time_ns()}", "operate", None, now_ms=visitor.api.clock()
    )
    assert made is not None
    return made[1]


async def timed(visitor: Visitor, shown: Shown) -> float:
    """Milliseconds."""
    began = time.perf_counter()
    seen = await visitor.look(shown.path)
    took_ms = (time.perf_counter() - began) * 1_000
    assert seen.status in (200, 404, 409), (shown, seen.status, seen.body[:500])
    return took_ms


async def cold(url: str) -> list[tuple[float, Shown]]:
    """Each address once, when nothing was read before."""
    async with visiting(url) as visitor:
        return [(await timed(visitor, one), one) for one in await _paths(visitor)]


async def hot(url: str) -> list[tuple[float, Shown]]:
    """Each address ROUNDS times, not counting the first."""
    async with visiting(url) as visitor:
        paths = await _paths(visitor)
        for one in paths:
            await timed(visitor, one)
        return [(await timed(visitor, one), one) for _ in range(ROUNDS) for one in paths]


async def scans(url: str) -> dict[str, list[str]]:
    """Large table -> statements that scan it."""
    found: dict[str, list[str]] = {}
    async with visiting(url) as visitor:
        known: set[Any] = set()
        sizes = await large_relations(visitor.api.store.db)
        for one in await _paths(visitor):
            look = functools.partial(timed, visitor, one)
            for statement, plan in await plans_of(visitor.api.store.db, look, known=known):
                for table in LARGE & set(scanned(plan, sizes)):
                    found.setdefault(table, []).append(f"{one.path}: {statement}")
    return found


async def listened(url: str, pages: int) -> dict[str, Any]:
    """What some open pages cost over LISTENED_S."""
    async with visiting(url) as visitor, AsyncExitStack() as stack:
        run_id = await _run_id(visitor.api.store)
        for n in range(pages):
            path = "/live" if n % 2 else f"/live/runs/{run_id}"
            await stack.enter_async_context(visitor.api.client.get(path))
        await asyncio.sleep(2)
        looks, memory, cpu = Counter[str](), _memory_mb(), time.process_time()
        with noting(visitor.api.store.db, counted=looks):
            await asyncio.sleep(LISTENED_S)
        return {
            "pages": pages,
            "statements_a_second": round(sum(looks.values()) / LISTENED_S, 1),
            "cpu_percent": round(100 * (time.process_time() - cpu) / LISTENED_S, 1),
            "memory_mb": memory,
        }


async def _run_id(store: Store) -> str:
    """Of the newest run that has tasks."""
    for run in await store.run_pages.runs_before(None, 5_000):
        if (await store.queries.progress(run.run.id)).tasks:
            return run.run.id
    raise AssertionError("no run has tasks")


async def _paths(visitor: Visitor) -> list[Shown]:
    store = visitor.api.store
    if not await store.bulk_changes.changes_before(None, 1, None):
        # Of nothing, so that it is tried out at once.
        await visitor.act("/bulk", {"verb": "retry", "q": f"run:{await _run_id(store)} custom_id:none"})
    return await shown_paths(store, await _run_id(store))


def figures(times: Sequence[tuple[float, Shown]]) -> dict[str, Any]:
    """Milliseconds, of all and by page, and what took longest."""
    by_route: dict[str, list[float]] = {}
    longest: dict[Shown, float] = {}
    for took_ms, shown in times:
        by_route.setdefault(shown.route, []).append(took_ms)
        longest[shown] = max(longest.get(shown, 0.0), took_ms)
    slowest = sorted(longest.items(), key=lambda item: -item[1])[:SLOWEST]
    return {
        "requests": len(times),
        **_percentiles([took_ms for took_ms, _ in times]),
        "by_page": {route: _percentiles(found) for route, found in sorted(by_route.items())},
        "slowest": [f"{took_ms:.0f} ms {shown.route} {shown.what}" for shown, took_ms in slowest],
    }


def _percentiles(times_ms: Sequence[float]) -> dict[str, float]:
    ordered = sorted(times_ms)
    p95 = ordered[(len(ordered) * 95 + 99) // 100 - 1]
    return {"median_ms": round(statistics.median(ordered), 1), "p95_ms": round(p95, 1)}


def _memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)


async def fill(url: str, tasks: int) -> float:
    """Seconds."""
    store, began = Store(Database(url), read_answer), time.perf_counter()
    try:
        await migrate(store.db)
        await add_page_history(store, tasks)
    finally:
        await store.close()
    return round(time.perf_counter() - began)


def forget(folder: Path) -> None:
    """Take files that nobody writes to out of the system's memory."""
    for path in folder.rglob("*"):
        if path.is_file():
            with path.open("rb") as file:
                os.fsync(file.fileno())
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measured(url: str, server: PostgresServer | None) -> dict[str, Any]:
    """Everything, as a document. Cold only where the server is ours."""
    found: dict[str, Any] = {"load": os.getloadavg()[0]}
    if server is not None:
        server.execute("CHECKPOINT")
        server.kill()
        forget(server.data)
        server.recover()
        found["cold"] = figures(asyncio.run(cold(url)))
    found["hot"] = figures(asyncio.run(hot(url)))
    found["scans"] = asyncio.run(scans(url))
    found["open_pages"] = [asyncio.run(listened(url, pages)) for pages in (1, OPEN)]
    quick = all(found[name]["p95_ms"] < MAX_MS for name in ("cold", "hot") if name in found)
    return found | {"within": quick and not found["scans"], "load_after": os.getloadavg()[0]}


def _of_our_own(tasks: int, folder: Path | None, loaded: Path | None) -> dict[str, Any]:
    """Loaded now, or taken as it was left in `folder`."""
    server = PostgresServer(settings=SERVER, folder=folder)
    server.start()
    try:
        if loaded is not None and loaded.exists():
            kept: dict[str, Any] = json.loads(loaded.read_text())
            url = server.same_database(f"postgresql:///{kept.pop('database')}", server.admin_url)
            return kept | measured(url, server)
        url = server.create_database()
        about = {"tasks": tasks, "loaded_s": asyncio.run(fill(url, tasks))}
        if loaded is not None:
            loaded.write_text(json.dumps(about | {"database": database_name(url)}))
        return about | measured(url, server)
    finally:
        server.stop()


def main() -> int:
    """Measure, print, keep; the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--tasks", type=int, default=5_000_000)
    parser.add_argument("--url", help="of a database that is filled already")
    parser.add_argument("--data", type=Path, help="where its database is kept, or was")
    parser.add_argument("--keep", action="store_true", help=f"write to {RESULTS.name}")
    options = parser.parse_args()
    loaded = options.data / LOADED if options.data else None
    is_loaded = bool(options.url) or (loaded is not None and loaded.exists())
    free_bytes = shutil.disk_usage(tempfile.gettempdir()).free
    if not is_loaded and free_bytes < options.tasks * TASK_BYTES:
        print(f"{tempfile.gettempdir()} has {free_bytes / 1e9:.0f} GB free: set TMPDIR, or --tasks to fewer.")
        return 2
    found = measured(options.url, None) if options.url else _of_our_own(options.tasks, options.data, loaded)
    document = json.dumps(found, indent=2) + "\n"
    sys.stdout.write(document)
    if options.keep:
        RESULTS.write_text(document)
    return 0 if found["within"] else 1


if __name__ == "__main__":
    sys.exit(main())
