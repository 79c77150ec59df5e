"""The overview, and what moves on open pages: one look for all of them, only what changed, none while nobody
listens."""

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import ClientPayloadError

from app.api import live as looks
from app.page import live
from app.page.live import Sent, live_of
from app.services.bulk_changes import carry_out
from app.store import Store
from app.store.read.run_pages import TimedRun
from tests.integration.api.asking import until
from tests.integration.api.test_reading import settled_run
from tests.integration.page.conftest import StartPage
from tests.integration.page.test_acting import failed_run, fields_of, tried_out
from tests.integration.page.visiting import Visitor
from tests.integration.store.scenes import ended
from tests.plans import noting

OPEN = 200
"""Pages."""


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(looks, "EVERY_S", 0.05)
    monkeypatch.setattr(looks, "HEARTBEAT_S", 0.3)  # by it one that is gone is noticed


@contextlib.asynccontextmanager
async def listening(visitor: Visitor, path: str, **headers: str) -> AsyncIterator[Any]:
    """The events of a page; `await anext(…)` gives (id, data) of the next one."""

    async def events(content: Any) -> AsyncIterator[tuple[str, str]]:
        block: list[str] = []
        while raw := await asyncio.wait_for(content.readline(), 20):
            line = raw.decode().rstrip("\n")
            if line:
                block.append(line)
                continue
            data = "\n".join(one[6:] for one in block if one.startswith("data: "))
            if data:
                yield next(one[4:] for one in block if one.startswith("id: ")), data
            block = []

    async with visitor.api.client.get(path, headers=headers) as response:
        assert (response.status, response.content_type) == (200, "text/event-stream")
        assert response.headers["Cache-Control"] == "no-store"
        yield events(response.content)


async def test_the_overview_says_what_is_going_on(visitor: Visitor) -> None:
    await settled_run(visitor.api)
    seen = await visitor.look("/")
    assert seen.status == 200, seen.text
    for said in (
        "With the provider 1 tasks",
        "11 of 12 done",
        "Used an hour",
        "Receiver away 0 processes",
        "no worker is running",
        "one look at all of this took",
        "default",
    ):
        assert said in seen.text, said
    assert seen.tree.css_first("td[data-label='To explain'] .loud") is not None


async def test_an_open_page_gets_what_changed_and_nothing_else(visitor: Visitor) -> None:
    api = visitor.api
    run_id = await api.run(tasks=2)
    async with listening(visitor, f"/live/runs/{run_id}") as events:
        first_id, data = await anext(events)
        assert data.startswith('<hx-partial hx-target="#run-live"') and "0 of 2 tasks done" in data
        sent = await api.store.submissions.claim_pending(
            limit=3, claim="me", now_ms=api.clock(), lease_until_ms=api.clock() + 60_000, account="default"
        )
        await api.store.submissions.record_submissions([ended(task) for task in sent])
        while "submitted 2" not in data:
            last_id, data = await anext(events)
        assert last_id != first_id
    async with listening(visitor, f"/live/runs/{run_id}", **{"Last-Event-ID": last_id}) as events:
        await api.store.runs.cancel_run(run_id, "enough")
        _, data = await anext(events)
        assert "cancelled" in data


async def test_a_run_asks_nothing_of_the_whole(visitor: Visitor) -> None:
    """Only the overview pays for a look at every day of deliveries and every open run."""
    run_id = await settled_run(visitor.api)
    open_too = await visitor.api.run("other")
    asked = Counter[str]()
    with noting(visitor.api.store.db, counted=asked):
        assert (await visitor.look(f"/runs/{run_id}")).status == 200
        async with listening(visitor, f"/live/runs/{open_too}") as events:
            await anext(events)
    assert asked and not [text for text in asked if " leases" in text or "FROM deliveries" in text]
    ways = [text for text in asked if "runs.state IN" in text.partition(" FROM ")[2]]
    assert not ways, "the open runs"
    with noting(visitor.api.store.db, counted=asked):
        await visitor.look("/")
    assert [text for text in asked if " leases" in text]


async def test_the_overview_moves_by_its_parts(visitor: Visitor) -> None:
    async with listening(visitor, "/live") as events:
        _, data = await anext(events)
        assert [f'hx-target="#{part}"' in data for part in ("now", "run-rows", "health-rows")] == [True] * 3
        await visitor.api.run("brand new")
        while "brand new" not in data:
            _, data = await anext(events)


async def test_many_pages_cost_one_look_and_none_costs_none(
    stranger: Visitor, start_page: StartPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stranger.sign_in()
    run_id = await stranger.api.run()
    drawn, read = 0, live.PageLive._look

    async def count(self: live.PageLive) -> live.Seen:
        nonlocal drawn
        drawn += 1
        return await read(self)

    monkeypatch.setattr(live.PageLive, "_look", count)
    monkeypatch.setattr(looks, "EVERY_S", 0.2)
    async with contextlib.AsyncExitStack() as open_pages:
        for _ in range(20):
            events = await open_pages.enter_async_context(listening(stranger, f"/live/runs/{run_id}"))
            await anext(events)
        began, began_s = drawn, time.monotonic()
        await asyncio.sleep(0.6)
        assert drawn - began <= (time.monotonic() - began_s) / 0.2 + 1
    page_live = live_of(stranger.api.parts)

    async def is_over() -> bool:
        return page_live._looks._looking is None

    await until(is_over, True)
    assert not page_live._topics
    ended = drawn
    await asyncio.sleep(0.3)
    assert drawn == ended


async def test_as_many_pages_as_may_be_open_cost_the_statements_of_one(
    sqlite_store: Store, start_page: StartPage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And one more is asked to come again."""
    visitor = await start_page(sqlite_store, api_streams_max=OPEN)
    await visitor.sign_in()
    run_id = await visitor.api.run()
    monkeypatch.setattr(looks, "EVERY_S", 0.2)
    monkeypatch.setattr(looks, "HEARTBEAT_S", 1.0)
    looked, read = 0, live.PageLive._look

    async def count(self: live.PageLive) -> live.Seen:
        nonlocal looked
        looked += 1
        return await read(self)

    monkeypatch.setattr(live.PageLive, "_look", count)

    async def statements_a_look() -> float:
        """Over five looks that are whole."""
        counted, began = Counter[str](), looked
        with noting(sqlite_store.db, counted):

            async def is_enough() -> bool:
                return looked >= began + 5

            await until(is_enough, True)
        return sum(counted.values()) / (looked - began)

    path = f"/live/runs/{run_id}"
    async with contextlib.AsyncExitStack() as open_pages:
        await anext(await open_pages.enter_async_context(listening(visitor, path)))
        one = await statements_a_look()
        for _ in range(OPEN - 1):
            await anext(await open_pages.enter_async_context(listening(visitor, path)))
        assert await statements_a_look() <= one * 1.5
        refused = await visitor.look(path)
        assert (refused.status, refused.headers["Retry-After"]) == (503, "1")


async def test_what_is_of_another_account_is_not_told(stranger: Visitor) -> None:
    theirs = await stranger.api.run("of eu", account="eu")
    await stranger.api.run("of us", account="us")
    await stranger.sign_in("read", "us")
    assert (await stranger.look(f"/live/runs/{theirs}")).status == 404
    async with listening(stranger, "/live") as events:
        _, data = await anext(events)
        assert "of us" in data and "of eu" not in data


async def test_nobody_listens_without_a_session(stranger: Visitor) -> None:
    seen = await stranger.look("/live")
    assert (seen.status, "sign in again" in seen.text) == (401, True)


async def test_a_stream_ends_with_its_session(stranger: Visitor) -> None:
    await stranger.sign_in()
    run_id = await stranger.api.run()
    async with listening(stranger, f"/live/runs/{run_id}") as events:
        await anext(events)
        await stranger.act("/sign-out")
        await stranger.api.store.runs.cancel_run(run_id, "enough")
        with pytest.raises((StopAsyncIteration, ClientPayloadError)):
            await anext(events)


def test_tasks_sent_a_second_are_counted_from_look_to_look() -> None:
    sent = Sent()
    assert not sent._looks
    run = _run("a")
    for at_s, pending in ((0.0, 100), (1.0, 60), (2.0, 20), (3.0, 80)):
        sent.note(at_s, {"a": run}, {"a": _progress(100, pending)})
    assert sent.rates() == {"default": pytest.approx(80 / 3)}
    sent.note(60.0, {"a": run}, {"a": _progress(100, 0)})
    assert sent.rates() == {}


def _run(id_: str) -> TimedRun:
    from types import SimpleNamespace

    return SimpleNamespace(run=SimpleNamespace(id=id_, account="default"))  # type: ignore[return-value]


def _progress(tasks: int, pending: int) -> Any:
    from app.store.read.progress import RunProgress

    return RunProgress(tasks=tasks, states={"pending": pending, "submitted": tasks - pending})


async def test_who_opens_another_page_is_told_of_nothing_that_nobody_looked_for(
    stranger: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look that began before was for other pages: its lack of runs is no lack of runs."""
    await stranger.sign_in()
    run_id = await stranger.api.run("there all the time")
    monkeypatch.setattr(looks, "EVERY_S", 0.5)
    async with listening(stranger, f"/live/runs/{run_id}") as of_run:
        await anext(of_run)
        async with listening(stranger, "/live") as of_all:
            _, data = await anext(of_all)
    assert "there all the time" in data and "no runs yet" not in data


async def test_a_bulk_change_is_told_of_until_its_end(stranger: Visitor) -> None:
    await stranger.sign_in()
    run_id = await failed_run(stranger)
    path, asked = await tried_out(stranger, verb="retry", q=f"run:{run_id}")
    await stranger.send(f"{path}/confirm", fields_of(asked, f"{path}/confirm"))
    async with listening(stranger, f"/live{path}") as events:
        _, data = await anext(events)
        assert "0 of 3 are done" in data and "form" not in data
        await carry_out(stranger.api.store, path.rpartition("/")[2], clock=stranger.api.clock)
        while "3 of 3" not in data:
            _, data = await anext(events)
        assert 'class="ended"' in data
    await stranger.sign_in("read", "eu")
    assert (await stranger.look(f"/live{path}")).status == 404
