"""Deliveries that somebody acknowledged and nobody stored (P18, W14): with the emulator process, whose word
it is, and by hand for what must not be taken for one. On both stores."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import sqlalchemy as sa
from aiohttp import web

from app.config import EMULATOR_KEY, load_settings
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import idempotency_key, new_id
from app.limits import to_ms
from app.ports import PollAnswer
from app.provider.client import Client
from app.provider.ratelimit.pacing import Pacer
from app.provider.webhook_state import read_acknowledged
from app.queue import Queue
from app.services.lost_webhooks import LostWebhookSearch
from app.store import Store
from app.store.tables import deliveries
from tests.integration.services.pipeline import HOUR_MS, LIMITS, Pipeline
from tests.scripted_provider import ScriptedProvider
from workers.context import Context
from workers.duties.lost_webhooks import run_lost_webhook_search

GRACE_MS = 300_000
Handler = Callable[[bytes, Any], Awaitable[None]]


def acked(pipeline: Pipeline) -> LostWebhookSearch:
    return LostWebhookSearch(
        pipeline.store, read_acknowledged, clock=pipeline.clock, grace_ms=GRACE_MS, look_back_ms=24 * HOUR_MS
    )


async def lost(pipeline: Pipeline) -> list[dict[str, Any]]:
    """The findings of that verdict; every other one would be a surprise."""
    found = await pipeline.store.reports.findings_of(pipeline.run_id)
    assert {f["verdict"] for f in found} <= {"lost_after_ack"}
    return found


@asynccontextmanager
async def receiver(handler: Handler) -> AsyncIterator[str]:
    """Answers 200 to every POST, whatever `handler` does with it; its URL."""

    async def post(request: web.Request) -> web.Response:
        await handler(await request.read(), request.headers)
        return web.Response()

    app = web.Application()
    app.router.add_post("/hook", post)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    finally:
        await runner.cleanup()


async def idle(client: Client) -> bool:
    """Whether the emulator has finished and delivered everything."""
    answer = await client.get("/_emulator/books?tasks=0")
    books = json.loads(answer.body)
    return answer.status == 200 and not books["active_tasks"] and not books["pending_deliveries"]


async def test_w14_what_was_acknowledged_and_dropped_is_found(pipeline: Pipeline, emulator_url: str) -> None:
    kept: set[str] = set()

    async def keep_every_other(body: bytes, headers: Any) -> None:
        key = json.loads(body)["task"]["idempotencyKey"]
        if pipeline.task_ids.index(key.partition(".")[0]) % 2:
            return  # the fault: 200, and nothing is stored
        kept.add(key)
        raw = RawDelivery(
            new_id(pipeline.clock()),
            Source.DELIVERY,
            pipeline.clock(),
            body,
            headers["X-Cloro-Webhook-Id"],
            headers["X-Cloro-Timestamp"],
            headers["X-Cloro-Signature"],
        )
        await pipeline.store.inbox.store_deliveries([raw], due_at_ms=pipeline.clock())

    await pipeline.start(12)
    async with (
        receiver(keep_every_other) as url,
        Client(
            base_url=emulator_url,
            api_key=EMULATOR_KEY,
            webhook_url=url,
            pacer=Pacer(500),
            timeout_s=60,
            connections=8,
        ) as client,
    ):
        await pipeline.submit(provider=client)
        async with asyncio.timeout(60):
            while not await idle(client):  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.02)
        pipeline.clock.advance(to_ms(LIMITS.poll_after_s))
        await pipeline.sweep(client)
    books = await pipeline.books()
    assert books.states() == {"completed": 12}, "the answers come by poll as ever"
    judge = acked(pipeline)
    pipeline.clock.advance(GRACE_MS + 1)
    dropped = {i for i in pipeline.task_ids if idempotency_key(i, 1) not in kept}
    assert await judge.judge() == len(dropped) == 6
    found = await lost(pipeline)
    assert {f["task_id"] for f in found} == dropped
    polls = {row["id"] for row in books.deliveries if row["source"] == "poll"}
    assert {f["delivery_id"] for f in found} <= polls, "the provider's own words are the evidence"
    assert all(f"from {url};" in f["detail"] for f in found)
    pipeline.clock.advance(HOUR_MS)
    assert await judge.judge() == await acked(pipeline).judge() == 0, "told once, whoever judges"


class Telling(ScriptedProvider):
    """Its polls tell of the webhook, as the newest edition's do."""

    delivered: bool = True

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        answer = await ScriptedProvider.poll(self, task_id_or_key)
        if not answer.finished:
            return answer
        webhook = {
            "url": "https://user:word@us.example/hook?token=abc",
            "delivered": self.delivered,
            "deliveredAt": "2026-10-01T00:09:00.000Z" if self.delivered else None,
        }
        return PollAnswer(
            found=True,
            finished=True,
            body=json.dumps(json.loads(answer.body) | {"webhook": webhook}).encode(),
        )


async def polled(pipeline: Pipeline, tasks: int = 1, *, delivered: bool = True) -> list[Any]:
    """A run whose answers came by poll only, the provider saying that its webhooks were acknowledged."""
    provider = pipeline.provider = Telling()
    provider.delivered = delivered
    await pipeline.start(tasks)
    await pipeline.submit()
    finished = [provider.finish(key) for key in provider.sends]
    pipeline.clock.advance(to_ms(LIMITS.poll_after_s))
    assert (await pipeline.sweep()).found_finished == tasks
    return finished


async def test_it_is_judged_after_a_grace(sqlite_pipeline: Pipeline) -> None:
    pipeline = sqlite_pipeline
    await polled(pipeline, 3)
    judge = acked(pipeline)
    pipeline.clock.advance(GRACE_MS)
    assert await judge.judge() == 0, "the boundary itself is too early"
    pipeline.clock.advance(1)
    assert await judge.judge() == 3
    [first, *_] = await lost(pipeline)
    assert first["expected"] is first["actual"] is None, "no credit is in dispute"
    assert first["detail"] == (
        "the provider had its 2xx at 2026-10-01T00:09:00.000Z from https://us.example/hook; "
        "no delivery is stored"
    ), "and nothing of a user, password or query"


async def test_f18_what_comes_after_a_clock_was_ahead_is_judged_in_its_time(
    sqlite_pipeline: Pipeline,
) -> None:
    pipeline = sqlite_pipeline
    judge = acked(pipeline)
    pipeline.clock.advance(25 * HOUR_MS)
    assert await judge.judge() == 0
    pipeline.clock.advance(-25 * HOUR_MS)
    await polled(pipeline, 3)
    pipeline.clock.advance(GRACE_MS + 1)
    assert await judge.judge() == 3
    pipeline.clock.advance(-GRACE_MS)
    assert await judge.judge() == 0, "nor is it told twice"


async def test_one_that_came_after_the_poll_is_not_lost(sqlite_pipeline: Pipeline) -> None:
    pipeline = sqlite_pipeline
    [done] = await polled(pipeline)
    pipeline.clock.advance(GRACE_MS // 2)
    await pipeline.deliver(done)
    pipeline.clock.advance(GRACE_MS)
    assert await acked(pipeline).judge() == 0


async def test_one_that_was_never_acknowledged_is_not_lost(sqlite_pipeline: Pipeline) -> None:
    pipeline = sqlite_pipeline
    await polled(pipeline, delivered=False)
    pipeline.clock.advance(2 * GRACE_MS)
    assert await acked(pipeline).judge() == 0


async def test_one_that_waits_or_is_set_aside_is_not_lost(pipeline: Pipeline) -> None:
    waiting, broken, gone = await polled(pipeline, 3)
    for done, body in ((waiting, waiting.body()), (broken, b"{}")):
        raw = RawDelivery(
            new_id(pipeline.clock()), Source.DELIVERY, pipeline.clock(), body, f"{done.id}-1", "1", "v1=0"
        )
        await pipeline.store.inbox.store_deliveries([raw], due_at_ms=pipeline.clock())
        if done is broken:
            await pipeline.settle([raw.id])
    pipeline.clock.advance(GRACE_MS + 1)
    assert await acked(pipeline).judge() == 1
    [found] = await lost(pipeline)
    assert f"{found['task_id']}.1" == gone.key


async def test_an_attempt_that_was_retried_meanwhile_is_judged_too(pipeline: Pipeline) -> None:
    provider = pipeline.provider = Telling()
    [task_id] = await pipeline.start(1)
    await pipeline.submit()
    provider.finish(idempotency_key(task_id, 1), "FAILED")
    pipeline.clock.advance(to_ms(LIMITS.poll_after_s))
    await pipeline.sweep()
    assert await pipeline.store.retries.retry_tasks_if_closed([task_id], pipeline.clock()) == 1
    pipeline.clock.advance(GRACE_MS + 1)
    assert await acked(pipeline).judge() == 1
    assert [f["attempt"] for f in await lost(pipeline)] == [1]


async def test_a_poll_that_is_settled_late_is_not_passed_over(sqlite_pipeline: Pipeline) -> None:
    pipeline = sqlite_pipeline
    await polled(pipeline, 2)
    [first, second] = sorted((await pipeline.books()).deliveries, key=lambda row: row["id"])
    judge = acked(pipeline)
    pipeline.clock.advance(GRACE_MS + 1)
    await _set_state(pipeline.store, first["id"], "new")
    assert await judge.judge() == 0
    pipeline.clock.advance(HOUR_MS)
    await _set_state(pipeline.store, first["id"], "done")
    assert await judge.judge() == 2
    assert {f["delivery_id"] for f in await lost(pipeline)} == {first["id"], second["id"]}


async def test_two_that_judge_at_once_note_it_once(pipeline: Pipeline) -> None:
    await polled(pipeline, 3)
    pipeline.clock.advance(GRACE_MS + 1)
    polls = await pipeline.store.polls.polls_without_delivery(
        after=new_id(0, 0), before=new_id(pipeline.clock(), 0), limit=10
    )
    noted = [(poll, "lost") for poll in polls]
    assert await pipeline.store.polls.note_lost_after_ack(noted + noted, pipeline.clock()) == 3
    assert await pipeline.store.polls.note_lost_after_ack(noted, pipeline.clock()) == 0
    assert len(await lost(pipeline)) == 3


async def test_every_worker_looks_for_them(sqlite_pipeline: Pipeline) -> None:
    pipeline = sqlite_pipeline
    await polled(pipeline, 2)
    pipeline.clock.advance(GRACE_MS)
    settings = load_settings(_env_file=None, ack_grace_s=0.05, sweep_every_s=0.01)
    queue = Queue("redis://127.0.0.1:1", timeout_s=1)
    providers = {"default": cast(Client, pipeline.provider)}
    context = Context(settings, pipeline.store, providers, queue, clock=pipeline.clock, jitter=lambda: 0.0)
    working = asyncio.create_task(run_lost_webhook_search(context))
    try:
        async with asyncio.timeout(60):
            while not await lost(pipeline):  # noqa: ASYNC110 - a row has no event
                await asyncio.sleep(0.01)
    finally:
        context.stopping.set()
        async with asyncio.timeout(60):
            await working
        await queue.close()
    assert len(await lost(pipeline)) == 2


async def _set_state(store: Store, delivery_id: str, state: str) -> None:
    async def work(connection: Any) -> None:
        await connection.execute(
            sa.update(deliveries).where(deliveries.c.id == delivery_id).values(state=state)
        )

    await store.db.write(work)
