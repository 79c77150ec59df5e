"""What is pushed, when it is tried again, and who is held up by whom."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import Iterable
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import web

from app.domain.relay.message import Scheme
from app.domain.send_outcome import Answer
from app.domain.task import TaskState
from app.ports import ArchivedBlock, BlockDamaged
from app.store import Store
from app.store.days import day_of, time_of
from app.store.tables import deliveries, results
from app.store.write.inbox import unpack
from tests.clock import SteppedClock
from tests.integration.relay.pushing import Worker, complete, endpoint, only_endpoint, stepped_to_now, until
from tests.integration.relay.receiver import receiving, verify_as_provider
from tests.integration.services.pipeline import Pipeline

MINUTE_MS, HOUR_MS = 60_000, 3_600_000


async def test_each_result_and_the_end_of_its_run_are_posted_once_and_verify(
    on_either: Pipeline, clock: SteppedClock
) -> None:
    stepped_to_now(clock)
    async with receiving() as receiver, Worker(on_either) as worker:
        to = endpoint(receiver.url)
        ids = await on_either.start(5, push_to=to)
        await complete(on_either)
        await on_either.store.run_ends.finish_runs(clock())
        await worker.turn()
        await worker.turn()

        documents = receiver.verified(to.secret)
        tasks = [d for d in documents if d["type"] == "task.completed"]
        assert sorted(d["data"]["task"] for d in tasks) == sorted(ids)
        assert tasks[0]["data"]["answer"] == {"text": "answer"}
        assert tasks[0]["data"]["credits_charged"] == "5"
        assert tasks[0]["data"]["verdict"] == "matched"
        assert [d["data"]["state"] for d in documents if d["type"] == "run.finished"] == ["finished"]
        row = await only_endpoint(on_either)
        assert (row.taken, row.waiting, row.due_at_ms) == (6, 0, None)


async def test_answers_that_fill_a_page_before_its_end_are_posted_page_by_page(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.read.exports.CHUNK_BYTES", 10)
    async with receiving() as receiver, Worker(pipeline) as worker:
        ids = await pipeline.start(5, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        assert sorted(d["data"]["task"] for d in receiver.documents()) == sorted(ids)


async def test_a_look_that_finds_nothing_due_writes_nothing(
    pipeline: Pipeline, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        await pipeline.start(2, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        seen: Counter[str] = Counter()
        monkeypatch.setattr(pipeline.store.db, "watch", lambda kind, *_: seen.update([kind]))
        endpoints = pipeline.store.relay_endpoints
        assert not await endpoints.claim_endpoints("another", limit=8, now_ms=clock(), lease_ms=MINUTE_MS)
        assert seen == {"read": 1}


async def test_a_run_without_an_endpoint_makes_no_message(pipeline: Pipeline) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        await pipeline.start(2, push_to=endpoint(receiver.url))
        await complete(pipeline)
        pushed = list(pipeline.task_ids)
        await pipeline.start(2)
        await complete(pipeline)
        await worker.turn()
        assert sorted(d["data"]["task"] for d in receiver.documents()) == sorted(pushed)


async def test_what_was_settled_before_there_was_an_endpoint_is_nobodys(pipeline: Pipeline) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        await pipeline.start(3)
        await complete(pipeline)
        ids = await pipeline.start(1, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        assert [d["data"]["task"] for d in receiver.documents()] == ids


async def test_what_ends_without_a_report_is_posted_too(on_either: Pipeline, clock: SteppedClock) -> None:
    async with receiving() as receiver, Worker(on_either) as worker:
        await on_either.start(3, push_to=endpoint(receiver.url))
        on_either.provider.tell(Answer.REJECTED, None, Answer.DEFERRED)
        await on_either.submit()
        await on_either.store.runs.cancel_run(on_either.run_id, "enough")
        task = next(iter(on_either.provider.accepted.values()))[-1]
        task_id, attempt = task.key.rsplit(".", 1)
        await on_either.store.polls.expire_if_unreported(
            [(task_id, int(attempt))], code="expired", reason="nobody knows"
        )
        await worker.turn()
        kinds = Counter(d["type"] for d in receiver.documents())
        assert kinds == Counter({"task.rejected": 1, "task.expired": 1, "task.cancelled": 1})
        assert all(d["data"]["answer"] is None for d in receiver.documents())
        assert all(d["data"]["error"]["message"] for d in receiver.documents())


class DamagedArchive:
    """What one delivery was moved to: a block that does not open, until it is restored."""

    def __init__(self) -> None:
        self.rows: dict[str, dict[str, Any]] = {}
        self.is_damaged = True

    async def take(self, store: Store, delivery_id: str, now_ms: int) -> None:
        d = deliveries.c
        query = sa.select(deliveries).where(d.id == delivery_id)
        row = await store.db.read(lambda c: c.execute(query))
        (found,) = [dict(one._mapping) for one in row]
        self.rows[delivery_id] = found | {"body": unpack(found["encoding"], found["body"])}
        block = ArchivedBlock(day_of(time_of(delivery_id)), "b", delivery_id, delivery_id, 1, 1, 1, "0" * 64)
        await store.archives.record_block(block, [], number=1, archive="a", now_ms=now_ms)
        await store.db.write(lambda c: c.execute(sa.delete(deliveries).where(d.id == delivery_id)))

    async def deliveries(self, _block: ArchivedBlock, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        if self.is_damaged:
            raise BlockDamaged("its end is not that of a block")
        return {i: self.rows[i] for i in ids}


async def test_what_the_archive_does_not_give_waits_and_holds_up_nothing(
    pipeline: Pipeline, clock: SteppedClock
) -> None:
    archive, store = DamagedArchive(), pipeline.store
    store.relay._archive = archive
    async with receiving() as receiver, Worker(pipeline) as worker:
        ids = await pipeline.start(3, push_to=endpoint(receiver.url))
        await complete(pipeline)
        page = await store.settled.settled_after(0)
        moved = page.rows[1]["task_id"]
        of_task = sa.select(results.c.delivery_id).where(results.c.task_id == moved)
        await archive.take(store, str(await store.db.read(lambda c: c.scalar(of_task))), clock())
        await worker.turn()
        assert sorted(d["data"]["task"] for d in receiver.documents()) == sorted(set(ids) - {moved})
        row = await only_endpoint(pipeline)
        assert (row.state, row.waiting, row.failing_since_ms) == ("active", 1, None)
        archive.is_damaged = False
        clock.advance(MINUTE_MS)
        await worker.turn()
        last = receiver.documents()[-1]["data"]
        assert (last["task"], last["answer"]) == (moved, {"text": "answer"})
        assert (await only_endpoint(pipeline)).waiting == 0


async def test_a_failed_task_says_so(pipeline: Pipeline) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        await pipeline.start(1, push_to=endpoint(receiver.url))
        await pipeline.submit()
        await pipeline.deliver(pipeline.provider.finish(next(iter(pipeline.provider.accepted)), "FAILED"))
        await worker.turn()
        (document,) = receiver.documents()
        assert document["type"] == "task.failed"
        assert document["data"]["credits_charged"] == "0"
        assert document["data"]["error"]["code"] == "INTERNAL_SERVER_ERROR"


async def test_a_retried_task_is_posted_again_under_another_id(
    on_either: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(on_either) as worker:
        await on_either.start(1, push_to=endpoint(receiver.url))
        await on_either.submit()
        await on_either.deliver(on_either.provider.finish(next(iter(on_either.provider.accepted)), "FAILED"))
        await on_either.store.run_ends.finish_runs(clock())
        await worker.turn()
        clock.advance(1_000)
        await on_either.store.retries.retry_chunk(
            on_either.run_id, [TaskState.FAILED], after=0, limit=10, even_if_held=False, now_ms=clock()
        )
        await complete(on_either)
        await on_either.store.run_ends.finish_runs(clock())
        await worker.turn()
        types = [d["type"] for d in receiver.documents()]
        assert Counter(types) == Counter({"task.failed": 1, "task.completed": 1, "run.finished": 2})
        assert len(set(receiver.ids())) == 4


async def test_the_providers_scheme_is_the_providers_body_and_signature(
    pipeline: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        to = endpoint(receiver.url, Scheme.PROVIDER, "whsec_of_a_token")
        receiver.answers.append(web.Response(status=500))
        (task_id,) = await pipeline.start(1, push_to=to)
        await complete(pipeline)
        await pipeline.store.run_ends.finish_runs(clock())
        await worker.turn()
        clock.advance(10_000)
        await worker.turn()
        for headers, body in receiver.got:
            verify_as_provider(to.secret, headers, body)
        assert [h["x-cloro-webhook-id"] for h, _ in receiver.got] == [f"{task_id}-1", f"{task_id}-2"]
        document = receiver.documents()[0]
        assert document["task"]["id"] == task_id
        assert document["task"]["status"] == "COMPLETED"
        assert document["credits"] == {"creditsToCharge": 5, "creditsCharged": 5}
        assert document["response"] == {"text": "answer"}


async def test_a_message_keeps_its_id_and_climbs_the_ladder(pipeline: Pipeline, clock: SteppedClock) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        receiver.answers.extend(web.Response(status=500) for _ in range(3))
        await pipeline.start(1, push_to=endpoint(receiver.url))
        await complete(pipeline)
        seen = []
        for wait_ms in (0, 4_000, 23_000, 90_000):
            clock.advance(wait_ms)
            await worker.turn()
            seen.append(len(receiver.got))
            clock.advance(-1)
            await worker.turn()  # not before its time
            clock.advance(1)
        assert seen == [1, 2, 3, 4]
        assert len(set(receiver.ids())) == 1
        assert (await only_endpoint(pipeline)).waiting == 0


async def test_retry_after_is_a_floor_for_the_whole_endpoint(pipeline: Pipeline, clock: SteppedClock) -> None:
    async with receiving() as receiver, Worker(pipeline, relay_in_flight=1) as worker:
        receiver.answers.append(web.Response(status=429, headers={"Retry-After": "600"}))
        await pipeline.start(3, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        clock.advance(590_000)
        await worker.turn()
        assert len(receiver.got) == 1
        clock.advance(11_000)
        await worker.turn()
        assert len(receiver.got) == 4


async def test_an_endpoint_that_is_down_is_asked_rarely_and_gets_all_in_the_end(
    pipeline: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        receiver.always = 503
        ids = await pipeline.start(60, push_to=endpoint(receiver.url))
        await complete(pipeline)
        for _ in range(6 * 4):  # six hours
            await worker.turn()
            clock.advance(15 * MINUTE_MS)
        assert len(receiver.got) < 5 + 16 + 12
        receiver.always = 204
        receiver.got.clear()
        for _ in range(12):
            clock.advance(2 * HOUR_MS)
            await worker.turn()
        assert sorted(d["data"]["task"] for d in receiver.documents()) == sorted(ids)
        row = await only_endpoint(pipeline)
        assert (row.waiting, row.state, row.failing_since_ms) == (0, "active", None)


async def test_an_endpoint_that_fails_for_a_day_is_set_aside_with_one_notice_until_it_is_put_back(
    pipeline: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        receiver.always = 500
        await pipeline.start(20, push_to=endpoint(receiver.url))
        await complete(pipeline)
        for _ in range(16):
            await worker.turn()
            clock.advance(3 * HOUR_MS)
        row = await only_endpoint(pipeline)
        assert (row.state, row.last_error) == ("set_aside", "HTTP 500")
        notices = await pipeline.store.notices.list_notices()
        assert [notice.kind for notice in notices] == ["relay.endpoint_failing"]
        assert receiver.url not in notices[0].body
        receiver.always = 204
        receiver.got.clear()
        await worker.turn()
        assert not receiver.got
        assert await pipeline.store.relay_endpoints.put_back([row.id], clock()) == 20
        await worker.turn()
        await worker.turn()
        assert len(receiver.got) == 20


async def test_gone_sets_aside_at_once(pipeline: Pipeline, clock: SteppedClock) -> None:
    async with receiving() as receiver, Worker(pipeline, relay_in_flight=1) as worker:
        receiver.always = 410
        await pipeline.start(3, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        clock.advance(HOUR_MS)
        await worker.turn()
        assert len(receiver.got) == 1
        assert (await only_endpoint(pipeline)).state == "set_aside"


async def test_slow_endpoints_hold_up_nobody_else(pipeline: Pipeline) -> None:
    """Eight that answer nothing, which together may have every place; the quick one is done meanwhile."""
    async with contextlib.AsyncExitStack() as stack:
        slow = [await stack.enter_async_context(receiving()) for _ in range(8)]
        quick = await stack.enter_async_context(receiving())
        patient = Worker(pipeline, relay_in_flight=16, relay_timeout_s=60.0)
        worker = await stack.enter_async_context(patient)
        for receiver in slow:
            receiver.always = 600.0
            await pipeline.start(20, push_to=endpoint(receiver.url))
            await complete(pipeline)
        await pipeline.start(40, push_to=endpoint(quick.url))
        await complete(pipeline)
        await worker.relay.turn()
        await until(lambda: len(quick.got) == 40)
        assert max(receiver.under_way_max for receiver in slow) <= 16 // 9 + 1
        worker.context.stopping.set()
        for _, task in worker.relay._pumps.values():
            task.cancel()


async def test_posts_to_one_endpoint_are_bounded(pipeline: Pipeline) -> None:
    async with receiving() as receiver, Worker(pipeline, relay_endpoint_in_flight=3) as worker:
        receiver.gate.clear()
        await pipeline.start(20, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.relay.turn()
        await until(lambda: receiver.under_way_max >= 3)
        receiver.gate.set()
        await worker.ended()
        assert len(receiver.got) == 20
        assert receiver.under_way_max == 3


async def test_two_workers_share_endpoints_and_post_nothing_twice(on_either: Pipeline) -> None:
    async with (
        receiving() as one,
        receiving() as two,
        Worker(on_either) as first,
        Worker(on_either) as second,
    ):
        for receiver in (one, two):
            receiver.always = 0.01
            await on_either.start(30, push_to=endpoint(receiver.url))
            await complete(on_either)
        await asyncio.gather(first.relay.turn(), second.relay.turn())
        await first.turn()
        await second.turn()
        assert [len(one.got), len(two.got)] == [30, 30]


async def test_what_a_dead_worker_had_is_posted_by_another_when_its_lease_is_over(
    on_either: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(on_either) as dead, Worker(on_either) as other:
        receiver.always = 30.0
        await on_either.start(4, push_to=endpoint(receiver.url))
        await complete(on_either)
        await dead.relay.turn()
        await until(lambda: len(receiver.got) == 4)
        for pump, task in list(dead.relay._pumps.values()):
            pump._ended.clear()
            task.cancel()
        dead.relay._pumps.clear()
        receiver.always = 204
        await other.turn()
        assert len(receiver.got) == 4  # it may be alive yet
        clock.advance(61_000)
        await other.turn()
        assert Counter(receiver.ids()) == Counter(dict.fromkeys(receiver.ids(), 2))


async def test_redirects_are_not_followed(pipeline: Pipeline) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        receiver.answers.append(web.Response(status=307, headers={"Location": "/elsewhere"}))
        await pipeline.start(1, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        row = await only_endpoint(pipeline)
        assert (receiver.elsewhere, row.waiting, row.taken) == (0, 1, 0)


async def test_long_answers_of_a_receiver_are_not_read(pipeline: Pipeline) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        receiver.answers.append(web.Response(body=b"x" * (4 << 20)))
        await pipeline.start(2, push_to=endpoint(receiver.url))
        await complete(pipeline)
        await worker.turn()
        assert (await only_endpoint(pipeline)).taken == 2


async def test_a_private_address_is_refused_when_it_is_connected_to(
    pipeline: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(pipeline, allowed=()) as worker:
        await pipeline.start(1, push_to=endpoint(receiver.url.replace("127.0.0.1", "localhost")))
        await complete(pipeline)
        await worker.turn()
        row = await only_endpoint(pipeline)
        assert (receiver.got, row.taken, row.waiting) == ([], 0, 1)


async def test_equal_urls_have_one_endpoint_and_one_secret(on_either: Pipeline, clock: SteppedClock) -> None:
    stepped_to_now(clock)
    async with receiving() as receiver, Worker(on_either) as worker:
        first, second = endpoint(receiver.url), endpoint(receiver.url)
        for to in (first, second):
            await on_either.start(1, push_to=to)
            await complete(on_either)
        await worker.turn()
        assert len(receiver.verified(first.secret)) == 2
        row = await only_endpoint(on_either)
        await on_either.store.relay_endpoints.change_secret(row.id, second.secret, clock())
        receiver.got.clear()
        await on_either.start(1, push_to=endpoint(receiver.url))
        await complete(on_either)
        await worker.turn()
        assert receiver.verified(first.secret) == receiver.verified(second.secret) != []
        clock.advance(25 * HOUR_MS)
        receiver.got.clear()
        await on_either.start(1, push_to=endpoint(receiver.url))
        await complete(on_either)
        await worker.turn()
        assert len(receiver.got[0][0]["webhook-signature"].split(" ")) == 1


async def test_a_discarded_run_takes_its_endpoint_along(pipeline: Pipeline, clock: SteppedClock) -> None:
    run_id = await pipeline.store.runs.create_run(
        name="run", source="-", budget=Decimal(1), now_ms=clock(), push_to=endpoint("https://example.com/x")
    )
    await pipeline.store.runs.discard_run(run_id)
    assert await pipeline.store.relay.endpoints(limit=10) == []


async def test_an_endpoint_closes_a_week_after_its_last_run_and_a_retry_opens_it(
    on_either: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(on_either) as worker:
        await on_either.start(1, push_to=endpoint(receiver.url))
        await on_either.submit()
        await on_either.deliver(on_either.provider.finish(next(iter(on_either.provider.accepted)), "FAILED"))
        await on_either.store.run_ends.finish_runs(clock())
        await worker.turn()
        clock.advance(8 * 24 * HOUR_MS)
        assert await on_either.store.relay_messages.close_endpoints(clock()) == 1
        assert await on_either.store.relay_messages.make_messages(clock()) == (0, True)
        await on_either.store.retries.retry_chunk(
            on_either.run_id, [TaskState.FAILED], after=0, limit=10, even_if_held=False, now_ms=clock()
        )
        await complete(on_either)
        receiver.got.clear()
        await worker.turn()
        assert [d["type"] for d in receiver.documents()] == ["task.completed"]


async def test_times_that_a_wrong_clock_wrote_hold_up_nothing(
    pipeline: Pipeline, clock: SteppedClock
) -> None:
    async with receiving() as receiver, Worker(pipeline) as worker:
        receiver.answers.append(web.Response(status=500))
        await pipeline.start(1, push_to=endpoint(receiver.url))
        clock.advance(30 * 24 * HOUR_MS)
        await complete(pipeline)
        await worker.turn()
        clock.advance(-30 * 24 * HOUR_MS)
        await worker.turn()
        assert len(receiver.got) == 2


async def test_what_became_of_the_posts_of_one_task_is_known(
    on_either: Pipeline, clock: SteppedClock
) -> None:
    """Also of those that were taken, whose messages are gone."""

    async def known(task_id: str) -> list[tuple[str, str, int, int | None]]:
        found = await on_either.store.task_relay.messages_of_task(task_id)
        return [(one.kind, one.state, one.tries, one.status) for one in found]

    async with receiving() as receiver, Worker(on_either) as worker:
        (alone,) = await on_either.start(1)
        one, other = await on_either.start(2, push_to=endpoint(receiver.url))
        assert (await known(alone), await known(one)) == ([], [("", "to_come", 0, None)])
        await complete(on_either)
        assert await known(one) == [("completed", "new", 0, None)]
        receiver.answers += [web.Response(status=500), web.Response(status=500)]
        await worker.turn()
        assert await known(one) == await known(other) == [("completed", "waiting", 1, 500)]
        clock.advance(HOUR_MS)
        await worker.turn()
        assert await known(one) == [("completed", "taken", 0, None)]
        await on_either.start(1, push_to=endpoint(receiver.url))
        await on_either.store.runs.cancel_run(on_either.run_id, "enough")
        assert [state for _, state, _, _ in await known(on_either.task_ids[-1])] == ["waiting"]
        await worker.turn()
        assert await known(on_either.task_ids[-1]) == [("cancelled", "taken", 0, None)]
