"""Asking through real HTTP, against the emulator and against a provider that answers as told."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from app.commands.ask import question_of
from app.domain.sync import SyncAnswer, SyncEnd
from app.emulator.faults import FaultRates
from app.emulator.options import Options
from app.emulator.server import EMULATOR, create_app
from app.provider.pacing import Pacer
from app.provider.sync import SyncClient, encode_sync_report
from app.provider.wire import read_report
from app.services.ask import Asked, AskLimits, Question, ask
from app.services.settle import settle
from app.store import Store
from tests.books import Books, Row, check_books, read_books
from tests.clock import SteppedClock

EMULATOR_KEY = "sk_live_" + "0123456789abcdef" * 2
EDITIONS = ["2025", "2026"]
LIMITS = AskLimits(slot_wait_ms=60_000, retention_ms=86_400_000, sweep_after_ms=10_000)
SCALE = 2_000.0


def question(engine: str = "chatgpt", **options: Any) -> Question:
    include = options.pop("include", [])
    return question_of("Which CRM?", engine, "US", include, options.pop("state", ""), "default")


@dataclass
class Asking:
    """A client of one provider, and the store that keeps what it says."""

    store: Store
    clock: SteppedClock
    url: str
    timeout_s: float = 20.0
    slept: list[float] = field(default_factory=list)
    while_waiting: Callable[[], Awaitable[None]] | None = None

    async def __call__(self, asked_for: Question, *, key: str = EMULATOR_KEY) -> Asked:
        client = SyncClient(base_url=self.url, api_key=key, pacer=Pacer(500), timeout_s=self.timeout_s)
        try:
            return await ask(
                self.store, client, encode_sync_report, self.settle, asked_for, limits=LIMITS,
                clock=self.clock, jitter=lambda: 0.5, sleep=self.sleep,
            )  # fmt: skip
        finally:
            await client.close()

    async def settle(self, ids: Any) -> object:
        return await settle(self.store, read_report, ids, clock=self.clock, unmatched_ms=0)

    async def sleep(self, seconds: float) -> None:
        """Time passes at once."""
        self.slept.append(seconds)
        self.clock.advance(round(seconds * 1000))
        if self.while_waiting is not None:
            await self.while_waiting()

    async def books(self) -> Books:
        books = await read_books(self.store)
        check_books(books)
        return books

    async def task(self) -> Row:
        (task,) = (await self.books()).tasks
        return task


@contextlib.asynccontextmanager
async def served(store: Store, clock: SteppedClock, app: web.Application) -> AsyncIterator[Asking]:
    async with TestServer(app) as server:
        yield Asking(store, clock, str(server.make_url("")).rstrip("/"))


def emulator(edition: str, **options: Any) -> web.Application:
    defaults: dict[str, Any] = {"keys": (EMULATOR_KEY,), "time_scale": SCALE, "requests_per_s": 0}
    return create_app(Options(edition=edition, **(defaults | options)))


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(
    ("engine", "options"),
    [("chatgpt", {}), ("chatgpt", {"include": ["shopping"]}), ("google/news", {}), ("gemini", {})],
)
async def test_an_answer_is_billed_with_its_surcharge(
    store: Store, clock: SteppedClock, edition: str, engine: str, options: dict[str, Any]
) -> None:
    app = emulator(edition, prices="2026", faults=FaultRates(internal_retry=0))
    async with served(store, clock, app) as asking:
        asked_for = question(engine, **options)
        asked = await asking(asked_for)
        assert asked.answer.end is SyncEnd.ANSWERED
        assert asked.answer.slots_used == 1
        billed = app[EMULATOR].organizations["default"].totals.sync_charged
    task = await asking.task()
    assert (task["state"], task["verdict"], task["money"]) == ("completed", "matched", "posted")
    assert task["credits_charged"] == billed == asked_for.estimate
    assert task["settled_by"] == "sync"
    books = await asking.books()
    assert books.entries("hold") == books.entries("post") == {task["idempotency_key"]: billed}
    assert isinstance(json.loads(books.results[0]["response"]), dict)
    (run,) = await store.find_runs(asked.run_id)
    report = await store.report(run)
    assert (report.recovered_submits, report.swept, report.unknown) == (0, 0, 0)


@pytest.mark.parametrize("edition", EDITIONS)
async def test_a_failure_is_free(store: Store, clock: SteppedClock, edition: str) -> None:
    async with served(store, clock, emulator(edition, faults=FaultRates(fail=1))) as asking:
        assert (await asking(question())).answer.end is SyncEnd.FAILED
    task = await asking.task()
    assert (task["state"], task["verdict"], task["money"]) == ("failed", "free_failure", "voided")


@pytest.mark.parametrize("edition", EDITIONS)
async def test_no_slot_is_waited_for(store: Store, clock: SteppedClock, edition: str) -> None:
    app = emulator(edition, concurrency=1)
    organization = app[EMULATOR].organizations["default"]
    organization.slots_used = 1
    async with served(store, clock, app) as asking:

        async def give_slot() -> None:
            if len(asking.slept) == 3:
                organization.slots_used = 0

        asking.while_waiting = give_slot
        asked = await asking(question())
    assert (asked.answer.end, asked.calls) == (SyncEnd.ANSWERED, 4)
    assert asking.slept == [0.75, 1.5, 3.0]
    assert [row["answer"] for row in (await asking.books()).submissions] == [
        "rate_limited", "rate_limited", "rate_limited", "accepted",
    ]  # fmt: skip
    assert (await asking.task())["state"] == "completed"


@pytest.mark.parametrize("edition", EDITIONS)
async def test_no_slot_within_the_bound_costs_nothing(
    store: Store, clock: SteppedClock, edition: str
) -> None:
    app = emulator(edition, concurrency=1)
    app[EMULATOR].organizations["default"].slots_used = 1
    async with served(store, clock, app) as asking:
        asked = await asking(question())
    assert asked.answer.end is SyncEnd.BUSY
    assert asked.answer.slots == 1
    assert 30 < sum(asking.slept) <= 60
    task = await asking.task()
    assert (task["state"], task["money"], task["credits_charged"]) == ("rejected", "voided", 0)
    assert task["error_code"] in ("CONCURRENT_LIMIT_EXCEEDED", "CONCURRENCY_LIMIT_EXCEEDED")


@pytest.mark.parametrize("edition", EDITIONS)
async def test_refusals_cost_nothing_and_are_not_repeated(
    store: Store, clock: SteppedClock, edition: str
) -> None:
    async with served(store, clock, emulator(edition, credits=1)) as asking:
        asked = await asking(question())
        assert (asked.answer.end, asked.calls) == (SyncEnd.REFUSED, 1)
        assert (await asking.task())["error_code"] == asked.answer.code
        assert (await asking(question(), key="sk_live_" + "f" * 32)).answer.http_status == 401
    assert {task["money"] for task in (await asking.books()).tasks} == {"voided"}


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def told(handler: Handler) -> tuple[web.Application, list[str]]:
    """A provider that answers as told, and the requests it got."""
    got: list[str] = []

    async def handle(request: web.Request) -> web.StreamResponse:
        got.append(request.path)
        return await handler(request)

    app = web.Application()
    app.router.add_post("/{path:.*}", handle)
    return app, got


def answering(status: int, body: str, **headers: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        return web.Response(status=status, text=body, headers=named)

    return handle


async def cut(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def half(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Length": "100", "X-Credits-Charged": "7"})
    await response.prepare(request)
    await response.write(b'{"success":')
    assert request.transport is not None
    request.transport.abort()
    return response


@pytest.mark.parametrize(
    "handler",
    [
        cut, half, answering(502, "<html>Bad gateway</html>"), answering(504, ""), answering(499, "{}"),
        answering(200, "<html>hello</html>"),
    ],
)  # fmt: skip
async def test_a_lost_answer_is_an_open_hold_and_is_not_repeated(
    store: Store, clock: SteppedClock, handler: Handler
) -> None:
    app, got = told(handler)
    async with served(store, clock, app) as asking:
        asked = await asking(question())
    assert (asked.answer.end, got) == (SyncEnd.LOST, ["/v1/monitor/chatgpt"])
    task = await asking.task()
    assert (task["state"], task["error_code"], task["money"]) == ("expired", "lost", "held")
    assert (task["credits_held"], task["credits_charged"], task["next_poll_at_ms"]) == (7, None, None)
    (run,) = await store.find_runs(asked.run_id)
    report = await store.report(run)
    assert (report.unknown, report.held, report.recovered_submits) == (1, 7, 0)


async def test_a_call_that_takes_too_long_is_lost(store: Store, clock: SteppedClock) -> None:
    ended = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await ended.wait()
        return web.Response()

    app, _ = told(silent)
    async with served(store, clock, app) as asking:
        asking.timeout_s = 0.2
        assert (await asking(question())).answer.end is SyncEnd.LOST
        ended.set()
    assert (await asking.task())["money"] == "held"


async def test_an_interrupted_call_is_lost(store: Store, clock: SteppedClock) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        begun.set()
        await ended.wait()
        return web.Response()

    app, _ = told(silent)
    async with served(store, clock, app) as asking:
        asked = asyncio.create_task(asking(question()))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        ended.set()
    assert (await asking.task())["error_code"] == "lost"


async def test_no_charge_header_is_an_unknown_charge(store: Store, clock: SteppedClock) -> None:
    app, _ = told(answering(200, '{"success": true, "result": {"text": "yes"}}'))
    async with served(store, clock, app) as asking:
        await asking(question())
    task = await asking.task()
    assert (task["state"], task["verdict"], task["money"]) == ("completed", "unknown", "held")
    assert [row["verdict"] for row in (await asking.books()).findings] == ["unknown"]


@pytest.mark.parametrize(("charge", "verdict"), [("9", "overcharged"), ("5", "undercharged")])
async def test_another_charge_is_a_finding(
    store: Store, clock: SteppedClock, charge: str, verdict: str
) -> None:
    app, _ = told(answering(200, '{"success": true, "result": {"text": "yes"}}', X_Credits_Charged=charge))
    async with served(store, clock, app) as asking:
        await asking(question())
    task = await asking.task()
    assert (task["verdict"], task["credits_charged"]) == (verdict, Decimal(charge))


async def test_an_unreadable_answer_that_says_its_charge_is_a_charged_failure(
    store: Store, clock: SteppedClock
) -> None:
    app, _ = told(answering(200, "<html>", X_Credits_Charged="7"))
    async with served(store, clock, app) as asking:
        await asking(question())
    task = await asking.task()
    assert (task["state"], task["verdict"], task["credits_charged"]) == ("failed", "charged_failure", 7)


async def test_a_provider_that_cannot_be_reached_costs_nothing(store: Store, clock: SteppedClock) -> None:
    asking = Asking(store, clock, "http://127.0.0.1:9")
    assert (await asking(question())).answer.end is SyncEnd.NOT_SENT
    assert (await asking.task())["money"] == "voided"


@pytest.mark.parametrize("family", ["X-Concurrent", "X-Concurrency", "x-concurrency"])
async def test_slots_are_read_in_either_spelling(store: Store, clock: SteppedClock, family: str) -> None:
    headers = {f"{family}-Limit": "10", f"{family}-Current": "11", f"{family}-Remaining": "0"}
    app, got = told(answering(409, "{}", **headers))
    async with served(store, clock, app) as asking:
        asked = await asking(question())
    assert (asked.answer.slots, asked.answer.slots_used) == (10, 11)
    assert asked.calls == len(got) > 1


async def test_a_killed_call_is_given_up_in_the_end(store: Store, clock: SteppedClock) -> None:
    """Nobody else sends it, whatever becomes of its process."""
    asked_for = question()
    await store.open_ask(
        asked_for.spec, asked_for.estimate, name="ask", account="default",
        next_poll_at_ms=clock() + LIMITS.retention_ms, now_ms=clock(),
    )  # fmt: skip
    clock.advance(LIMITS.retention_ms)
    assert await store.release_overdue_claims(clock()) == 0
    assert await store.accounts_with_due(clock()) == []
    (due,) = await store.claim_due_polls(limit=10, now_ms=clock(), interval_ms=1_000)
    await store.expire_if_unreported([(due.task_id, due.attempt)], code="retention_over", reason="gone")
    (task,) = (await read_books(store)).tasks
    assert (task["state"], task["money"]) == ("expired", "held")


def test_a_report_keeps_what_is_unknown_unknown() -> None:
    report = read_report(encode_sync_report("k.1", SyncAnswer(SyncEnd.ANSWERED, 200, result=b"{}")))
    assert (report.completed, report.charged, report.provider_task_id) == (True, None, "k.1")
