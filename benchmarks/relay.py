"""How fast results are pushed, by a real worker to a real receiver: `python -m benchmarks.relay`.

Fills a database with a run whose results stand in it and wait to be pushed, starts a receiver that only reads
and answers 204, in a process of its own, then one `python -m workers`. Measures from the first post to the
last, with the worker's memory at a tenth of it and at its peak. Beside it a bare aiohttp client posts equal
bodies, signed, to such a receiver: the fraction is what a busy machine changes least. Prints one JSON object,
and keeps it in benchmarks/results/relay.json, one for each store.
"""

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import aiohttp
import sqlalchemy as sa
import uvloop
from aiohttp import web

from app.domain.notices.notice import signature_of, signing_key
from app.domain.relay.message import NewEndpoint, new_secret
from app.domain.task import new_id
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.migrate import migrate
from app.store.tables import deliveries, ledger, results, settle_sequence, tasks
from benchmarks.export import made
from tests.servers.postgres import PostgresServer
from tests.servers.processes import answers, end, free_port

RESULTS = Path(__file__).parent / "results" / "relay.json"
CHUNK = 1_000
BARE = 3_000
IN_FLIGHT = 32
GROWTH_MB_MAX = 60
"""Of the worker's memory, from a tenth of the way to its end."""


def serve(port: int) -> None:
    """The receiver that does nothing; `GET /` says how many posts came, when the first and when the last."""
    seen: dict[str, Any] = {"count": 0, "ids": set(), "first_s": 0.0, "last_s": 0.0}

    async def post(request: web.Request) -> web.Response:
        await request.read()
        seen["count"] += 1
        seen["ids"].add(request.headers["webhook-id"])
        seen["last_s"] = time.monotonic()
        seen["first_s"] = seen["first_s"] or seen["last_s"]
        return web.Response(status=204)

    async def counts(_: web.Request) -> web.Response:
        return web.json_response(seen | {"ids": len(seen["ids"])})

    async def run() -> None:
        app = web.Application(client_max_size=8 << 20)
        app.add_routes([web.post("/", post), web.get("/", counts)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", port).start()
        await asyncio.Event().wait()

    uvloop.run(run())


async def fill(store: Store, count: int, to: NewEndpoint) -> str:
    """A run with that many results that nobody has pushed yet; its id."""
    now = time.time_ns() // 1_000_000
    run_id = await store.runs.create_run(name="relay", source="-", budget=None, now_ms=now, push_to=to)
    rng = random.Random(14)
    words = [rng.randbytes(3).hex() for _ in range(4_000)]
    rows = made(run_id, 1, count, rng, words, 0)
    for first in range(1, count + 1, CHUNK):
        chunk = [next(rows) for _ in range(min(CHUNK, count + 1 - first))]

        async def store_chunk(connection: Any, chunk: Any = chunk, first: int = first) -> None:
            for n, table in enumerate((tasks, results, ledger, deliveries)):
                stored = [row[n] for row in chunk]
                if table is ledger:
                    stored = [entry for entries in stored for entry in entries]
                await store.db.insert(connection, table, stored)
            last = first + len(chunk) - 1
            await connection.execute(sa.update(settle_sequence).values(value=last))

        await store.db.write(store_chunk, long=True)
    return run_id


def receive(port: int) -> subprocess.Popen[bytes]:
    """The receiver, in a process of its own, once it answers."""
    process = subprocess.Popen([sys.executable, "-m", "benchmarks.relay", "--serve", str(port)])
    while process.poll() is None and not answers(f"http://127.0.0.1:{port}/"):
        time.sleep(0.1)
    return process


def ask(url: str) -> dict[str, Any]:
    with urllib.request.urlopen(url, timeout=10) as response:
        seen: dict[str, Any] = json.load(response)
    return seen


def resident_mb(pid: int) -> float:
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGESIZE") / 2**20, 1)


def cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def bare_per_s(url: str, secret: str) -> float:
    """Signed posts of 18 KB by nothing but an aiohttp client."""
    body, keys = random.Random(1).randbytes(9_000).hex().encode(), (signing_key(secret),)
    left = iter(range(BARE))

    async def sender(session: aiohttp.ClientSession) -> None:
        for _ in left:
            name, at_s = new_id(0), int(time.time())
            headers = {
                "webhook-id": name,
                "webhook-timestamp": str(at_s),
                "webhook-signature": signature_of(keys, name, at_s, body),
            }
            async with session.post(url, data=body, headers=headers) as response:
                await response.read()

    async with aiohttp.ClientSession() as session:
        started_s = time.monotonic()
        await asyncio.gather(*(sender(session) for _ in range(IN_FLIGHT)))
        return BARE / (time.monotonic() - started_s)


def push(folder: Path, database_url: str, url: str, count: int) -> dict[str, Any]:
    """One worker's pushing, from its start until all came."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("TALLYHOOK_", "CLORO_"))}
    env |= {
        "DATABASE_URL": database_url,
        "TALLYHOOK_RELAY_PRIVATE_NETWORKS": "127.0.0.1",
        "TALLYHOOK_DATA_DIR": str(folder / "data"),
    }
    with (folder / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, "-m", "workers"], env=env, cwd=folder, stdout=log, stderr=log
        )
    try:
        early_mb, peak_mb, begun_cpu_s = 0.0, 0.0, None
        while (seen := ask(url))["ids"] < count:
            if seen["count"] and begun_cpu_s is None:
                begun_cpu_s = cpu_s(worker.pid), seen["count"]
            mb = resident_mb(worker.pid)
            peak_mb = max(peak_mb, mb)
            early_mb = early_mb or (mb if seen["ids"] >= count // 10 else 0.0)
            time.sleep(0.1)
        used_s = cpu_s(worker.pid) - (begun_cpu_s or (0.0, 0))[0]
    finally:
        end(worker, ((signal.SIGTERM, 30.0), (signal.SIGKILL, 5.0)))
    took_s = seen["last_s"] - seen["first_s"]
    return {
        "posts_per_s": round(count / took_s),
        "worker_cpu_us_per_post": round(used_s / (count - (begun_cpu_s or (0, 0))[1]) * 1e6),
        "posted_again": seen["count"] - count,
        "memory_mb": {"at_a_tenth": early_mb, "peak": peak_mb},
    }


async def measure(count: int, folder: Path, kind: str) -> dict[str, Any]:
    port = free_port()
    url, secret = f"http://127.0.0.1:{port}/", new_secret()
    postgres = PostgresServer(durable=True) if kind == "postgresql" else None
    if postgres is not None:
        postgres.start()
    database_url = postgres.create_database() if postgres else f"sqlite:///{folder / 'relay.db'}"
    receiver = receive(port)
    try:
        store = Store(Database(database_url), read_answer)
        await migrate(store.db)
        await fill(store, count, NewEndpoint(url, secret))
        await store.close()
        bare = await bare_per_s(url, secret)
    finally:
        end(receiver, ((signal.SIGKILL, 5.0),))
    receiver = receive(port)
    try:
        figures = await asyncio.to_thread(push, folder, database_url, url, count)
    finally:
        end(receiver, ((signal.SIGKILL, 5.0),))
        if postgres is not None:
            postgres.stop()
    memory = figures["memory_mb"]
    assert memory["peak"] - memory["at_a_tenth"] < GROWTH_MB_MAX, memory
    return {
        "store": kind,
        "tasks": count,
        "bare_client_per_s": round(bare),
        "of_bare": round(figures["posts_per_s"] / bare, 2),
        **figures,
    }


def main() -> None:
    """The benchmark, or the receiver."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tasks", type=int, default=20_000)
    parser.add_argument("--store", choices=("postgresql", "sqlite"), default="postgresql")
    parser.add_argument("--serve", type=int, metavar="PORT")
    options = parser.parse_args()
    if options.serve:
        serve(options.serve)
        return
    with tempfile.TemporaryDirectory(prefix="tallyhook-relay-") as folder:
        figures = asyncio.run(measure(options.tasks, Path(folder), options.store))
    kept = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    RESULTS.write_text(json.dumps(kept | {options.store: figures}, indent=2) + "\n")
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
