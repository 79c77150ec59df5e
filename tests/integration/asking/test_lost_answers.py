"""Asking a provider that answers as told: lost, unreadable, unpriced, and not reached at all."""

import asyncio
from collections.abc import Awaitable, Callable
from decimal import Decimal

import pytest
from aiohttp import web

from app.domain.sync_call import SyncAnswer, SyncEnd
from app.limits import to_ms
from app.provider.sync import encode_sync_report
from app.provider.wire import read_report
from app.store import Store
from tests.books import read_books
from tests.clock import SteppedClock
from tests.http_handlers import cut_connection
from tests.integration.asking.asking import LIMITS, Asking, question, served

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def scripted(handler: Handler) -> tuple[web.Application, list[str]]:
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
        cut_connection,
        half,
        answering(502, "<html>Bad gateway</html>"),
        answering(504, ""),
        answering(499, "{}"),
        answering(200, "<html>hello</html>"),
    ],
)
async def test_a_lost_answer_is_an_open_hold_and_is_not_repeated(
    store: Store, clock: SteppedClock, handler: Handler
) -> None:
    app, got = scripted(handler)
    async with served(store, clock, app) as asking:
        asked = await asking(question())
    assert (asked.answer.end, got) == (SyncEnd.LOST, ["/v1/monitor/chatgpt"])
    task = await asking.task()
    assert (task["state"], task["error_code"], task["money"]) == ("expired", "lost", "held")
    assert (task["credits_held"], task["credits_charged"], task["next_poll_at_ms"]) == (7, None, None)
    (run,) = await store.queries.find_runs(asked.run_id)
    report = await store.reports.report(run)
    assert (report.unknown, report.held, report.recovered_submits) == (1, 7, 0)


async def test_a_call_that_takes_too_long_is_lost(store: Store, clock: SteppedClock) -> None:
    ended = asyncio.Event()

    async def silent(request: web.Request) -> web.StreamResponse:
        await ended.wait()
        return web.Response()

    app, _ = scripted(silent)
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

    app, _ = scripted(silent)
    async with served(store, clock, app) as asking:
        asked = asyncio.create_task(asking(question()))
        await begun.wait()
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        ended.set()
    assert (await asking.task())["error_code"] == "lost"


async def test_no_charge_header_is_an_unknown_charge(store: Store, clock: SteppedClock) -> None:
    app, _ = scripted(answering(200, '{"success": true, "result": {"text": "yes"}}'))
    async with served(store, clock, app) as asking:
        await asking(question())
    task = await asking.task()
    assert (task["state"], task["verdict"], task["money"]) == ("completed", "unknown", "held")
    assert [row["verdict"] for row in (await asking.books()).findings] == ["unknown"]


@pytest.mark.parametrize(("charge", "verdict"), [("9", "overcharged"), ("5", "undercharged")])
async def test_another_charge_is_a_finding(
    store: Store, clock: SteppedClock, charge: str, verdict: str
) -> None:
    app, _ = scripted(
        answering(200, '{"success": true, "result": {"text": "yes"}}', X_Credits_Charged=charge)
    )
    async with served(store, clock, app) as asking:
        await asking(question())
    task = await asking.task()
    assert (task["verdict"], task["credits_charged"]) == (verdict, Decimal(charge))


async def test_an_unreadable_answer_that_says_its_charge_is_a_charged_failure(
    store: Store, clock: SteppedClock
) -> None:
    app, _ = scripted(answering(200, "<html>", X_Credits_Charged="7"))
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
    app, got = scripted(answering(409, "{}", **headers))
    async with served(store, clock, app) as asking:
        asked = await asking(question())
    assert (asked.answer.slots, asked.answer.slots_used) == (10, 11)
    assert asked.calls == len(got) > 1


async def test_a_killed_call_is_given_up_in_the_end(store: Store, clock: SteppedClock) -> None:
    """Nobody else sends it, whatever becomes of its process."""
    asked_for = question()
    await store.sync_calls.open_call(
        asked_for.spec,
        asked_for.estimate,
        name="ask",
        account="default",
        next_poll_at_ms=clock() + to_ms(LIMITS.retention_s),
        now_ms=clock(),
    )
    clock.advance(to_ms(LIMITS.retention_s))
    assert await store.submissions.release_overdue_claims(clock()) == 0
    assert await store.queries.accounts_with_due(clock()) == []
    (due,) = await store.polls.claim_due_polls(limit=10, now_ms=clock(), interval_ms=1_000)
    await store.polls.expire_if_unreported([(due.task_id, due.attempt)], code="retention_over", reason="gone")
    (task,) = (await read_books(store)).tasks
    assert (task["state"], task["money"]) == ("expired", "held")


def test_a_report_keeps_what_is_unknown_unknown() -> None:
    report = read_report(encode_sync_report("k.1", SyncAnswer(SyncEnd.ANSWERED, 200, result=b"{}")))
    assert (report.completed, report.charged, report.provider_task_id) == (True, None, "k.1")
