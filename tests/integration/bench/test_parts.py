"""The parts that `make bench` is made of: what is sent is what the provider sends, what is compared does the
same work, and what is written says what was measured.
"""

import asyncio
import json
import xml.etree.ElementTree as ET
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
import pytest
import sqlalchemy as sa
from aiohttp import web

from app.bootstrap import now_ms
from app.config import EMULATOR_KEY, EMULATOR_WEBHOOK_SECRET
from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.provider.client import Client
from app.provider.ratelimit.pacing import Pacer
from app.provider.signature import Verified, verify
from app.provider.wire import read_answer, read_report
from app.services.settle import settle
from app.store import Database, Store
from app.store.tables import deliveries, ledger, results, tasks
from benchmarks.bench import backlog, naive_worker, noop_provider, receivers
from benchmarks.bench.bare_client import send_all
from benchmarks.bench.bodies import BODY_BYTES, signed_headers, write_bodies
from benchmarks.bench.figures import row
from benchmarks.bench.load import Load
from benchmarks.bench.page import BEGIN, END, PAGE, with_table
from benchmarks.bench.pipeline import LIMIT_PER_S, pipeline_row
from benchmarks.bench.plot import plot
from tests.servers.valkey import ValkeyServer


def test_bodies_are_distinct_signed_and_read_as_reports() -> None:
    keys = [f"key{n}.1" for n in range(50)]
    written = list(write_bodies(3, keys))
    assert {len(body) for _, body in written} == {BODY_BYTES}
    assert len({body for _, body in written}) == len({task_id for task_id, _ in written}) == len(keys)
    for (task_id, body), key in zip(written, keys, strict=True):
        report = read_report(body)
        assert (report.provider_task_id, report.idempotency_key, report.completed) == (task_id, key, True)
        assert json.loads(report.response)["sources"]
        headers = signed_headers(task_id, body, 1_790_812_800)
        signed = headers["X-Cloro-Timestamp"], headers["X-Cloro-Signature"]
        assert isinstance(verify([EMULATOR_WEBHOOK_SECRET], *signed, body, 1_790_812_800, 300), Verified)


@pytest.mark.parametrize(
    ("bar", "ratio", "holds"),
    [
        ({"at_least": 0.6}, 0.6, True),
        ({"at_least": 0.6}, 0.59, False),
        ({"at_most": 4}, 4, True),
        ({"at_most": 4}, 4.1, False),
        ({}, 4, None),
    ],
)
def test_a_row_judges_its_median_ratio(bar: dict[str, float], ratio: float, holds: bool | None) -> None:
    found = row("b", "sqlite", [10 * ratio, 1, 1000], [10, 100, 1], unit="x", reference_is="y", **bar)
    assert (found.ratio, found.holds, found.rounds) == (ratio, holds, 3)
    assert found.spread == (0.01, 1000)


def test_the_page_keeps_its_text_around_the_table() -> None:
    rows = [row("intake", "sqlite", [3000.0], [4000.0], unit="accepts/s", reference_is="y", at_least=0.6)]
    page = with_table(f"before\n{BEGIN}\n| of last time |\n{END}\nafter\n", [one.document() for one in rows])
    assert page.startswith("before\n")
    assert page.endswith("\nafter\n")
    assert "| intake | sqlite | 3,000 accepts/s | 4,000: y | 0.75 (0.75 … 0.75) | ≥ 0.6 | holds |" in page
    assert "of last time" not in page
    with pytest.raises(ValueError, match="put both back"):
        with_table("no markers", [])
    assert with_table(PAGE.read_text(), []), "the page itself has its markers"


def test_the_plot_shows_every_judged_row_and_whether_it_holds() -> None:
    good = row("start", "sqlite", [2.0], [1.0], unit="s", reference_is="y", at_most=4)
    short = row("intake", "postgresql", [1.0], [4.0], unit="x", reference_is="y", at_least=0.6)
    silent = row("cpu", "sqlite", [1.0], [4.0], unit="x", reference_is="y")
    drawn = plot([one.document() for one in (good, short, silent)])
    svg = ET.fromstring(drawn)
    names = [text.text for text in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"start", "intake"} <= set(names)
    assert "cpu" not in names
    assert drawn.count('fill-opacity="0.35"') == 1


def test_the_pipeline_is_judged_by_the_whole_run_not_by_its_best_window() -> None:
    seen = [(n * 0.5, min(n * 250, 10_000)) for n in range(42)]
    assert pipeline_row("sqlite", seen, 10_000).ratio == pytest.approx(1, abs=0.01)
    stalled = [(at + (20 if at > 10 else 0), settled) for at, settled in seen]
    found = pipeline_row("sqlite", stalled, 10_000)
    assert found.ratio < 0.6
    assert found.holds is False
    assert found.spread[1] <= 1.01
    assert found.references[0] == LIMIT_PER_S


@asynccontextmanager
async def receiver(mode: str, url: str = "", redis_url: str = "") -> AsyncIterator[int]:
    """The reference handler on a port."""
    async with receivers.keeping(mode, url, redis_url) as keep:
        app = web.Application()
        app.add_routes([web.post("/webhooks/cloro", receivers.handler(keep))])
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()


async def test_the_naive_receiver_keeps_what_it_is_sent(store_url: str) -> None:
    load = Load()
    load.prepare(5, 20)
    async with receiver("insert", store_url) as port:
        figures = await load.run(port, seconds=30, connections=4)
    assert figures["statuses"] == {200: 20}
    assert figures["per_s"] > 0
    store = Store(Database(store_url), read_answer)
    try:
        kept = await read(store, sa.select(deliveries.c.id, deliveries.c.body, deliveries.c.signature))
        raw = list((await store.inbox.waiting_deliveries([row.id for row in kept])).readable)
    finally:
        await store.close()
    assert {bytes(row.body) for row in kept} == {
        body for _, body in write_bodies(5, [f"key{n}" for n in range(20)])
    }
    assert len(raw) == 20


async def test_the_queueing_receiver_enqueues_what_it_is_sent(valkey: ValkeyServer) -> None:
    load = Load()
    load.prepare(6, 8)
    async with receiver("queue", redis_url=valkey.url) as port:
        figures = await load.run(port, seconds=30, connections=2)
    assert figures["statuses"] == {200: 8}
    with valkey.client() as client:
        assert client.zcard("arq:queue") == 8


async def test_what_is_not_signed_is_refused_by_the_references_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(*signed: Any) -> dict[str, str]:
        return {name: value.replace("v1=", "v1=0") for name, value in signed_headers(*signed).items()}

    monkeypatch.setattr("benchmarks.bench.load.signed_headers", wrong)
    load = Load()
    load.prepare(7, 2)
    async with receiver("verify") as port:
        assert (await load.run(port, seconds=30, connections=1))["statuses"] == {401: 2}


async def test_the_naive_worker_writes_what_ours_writes(store_url: str) -> None:
    store = Store(Database(store_url), read_answer)
    try:
        await backlog.fill(store, 4, delivered=True)
        waiting = await read(store, sa.select(deliveries.c.id).order_by(deliveries.c.id))
        first, *others = [row.id for row in waiting]
        database, close = await naive_database(store_url)
        await naive_worker.settle_one({"database": database}, first)
        await close()
        await settle(store, read_report, others, clock=now_ms, unmatched_ms=60_000)
        for table in (tasks, results, ledger, deliveries):
            rows = await read(store, sa.select(*same_for_all(table)).distinct())
            assert len(rows) == (2 if table is ledger else 1), (table.name, rows)
    finally:
        await store.close()


OWN = (
    "answer_chars",  # the naive worker does not count them
    "id",
    "ordinal",
    "payload",
    "idempotency_key",
    "provider_task_id",
    "fingerprint",
    "body",
    "answer_sha256",
    "seq",
    "webhook_id",
    "signature",
    "signed_at",
    "task_id",
    "delivery_id",
    "settled_at_ms",
    "at_ms",
    "stored_at_ms",
    "received_at_ms",
    "due_at_ms",
    "next_poll_at_ms",
    "submitted_at_ms",
    "first_sent_at_ms",
)


def same_for_all(table: sa.Table) -> list[sa.Column[Any]]:
    """Columns that are the same in every row of an evenly settled backlog."""
    return [column for column in table.c if column.name not in OWN]


async def naive_database(url: str) -> tuple[Any, Any]:
    if url.startswith("sqlite"):
        connection = await aiosqlite.connect(url.removeprefix("sqlite:///"), isolation_level=None)
        return naive_worker.Sqlite(connection), connection.close
    pool = await asyncpg.create_pool(url, min_size=1, max_size=1)
    return naive_worker.Postgresql(pool), pool.close


async def read(store: Store, query: Any) -> list[Any]:
    async def work(connection: Any) -> list[Any]:
        return list((await connection.execute(query)).all())

    return await store.db.read(work)


async def test_both_senders_are_accepted_by_the_idle_provider(tmp_path: Path) -> None:
    server = await asyncio.get_running_loop().create_server(noop_provider.NoopProvider, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    task = ClaimedTask("i", "r", 1, "i.1", "CHATGPT", '{"prompt":"p"}', 1, noop_provider.CREDITS, 1, 0, "")
    async with server:
        figures = await send_all(f"{url}/v1/async/task", [b"{}"] * 9, 3)
        client = Client(
            base_url=url,
            api_key=EMULATOR_KEY,
            webhook_url=None,
            pacer=Pacer(1000.0),
            timeout_s=60,
            connections=2,
        )
        async with client:
            answer = await client.create(task)
            assert (await client.balance(0)).balance is None
    assert figures["statuses"] == {200: 9}
    assert (answer.answer, answer.credits_to_charge) == (Answer.ACCEPTED, noop_provider.CREDITS)
