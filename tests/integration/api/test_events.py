"""/v1/events: each listener is told of what is new to it, of that once, and by one look for all."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest

from app.api import live
from tests.integration.api.asking import Api, until
from tests.integration.api.conftest import StartApi


class Listener:
    """One open stream."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.last_id = ""

    async def lines(self) -> list[str]:
        """Up to the next empty line; none: the stream has ended."""
        found: list[str] = []
        async with asyncio.timeout(20):
            while line := (await self.answer.content.readline()).decode():
                if line == "\n":
                    return found
                found.append(line.rstrip("\n"))
        return found

    async def runs(self) -> list[Any]:
        """Of the next event."""
        while lines := await self.lines():
            if lines[0].startswith("id: "):
                self.last_id = lines[0].removeprefix("id: ")
                assert lines[1] == "event: runs"
                return list(json.loads(lines[2].removeprefix("data: "))["runs"])
        raise AssertionError("ended")


@contextlib.asynccontextmanager
async def listening(api: Api, last_id: str = "", account: str | None = None) -> AsyncIterator[Listener]:
    headers = {"Authorization": f"Bearer {await api.token('read', account)}", "Last-Event-ID": last_id}
    async with api.client.get("/v1/events", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        assert answer.headers["Content-Type"] == "text/event-stream"
        assert answer.headers["X-Accel-Buffering"] == "no" and "Content-Encoding" not in answer.headers
        listener = Listener(answer)
        assert await listener.lines() == ["retry: 2000"]
        yield listener


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "EVERY_S", 0.01)


async def test_what_changed_is_told_once_also_after_an_absence_and_by_another_process(
    api: Api, start_api: StartApi
) -> None:
    first, second = await api.run("one"), await api.run("two")
    other = await start_api(api.store)
    other.tokens = api.tokens
    async with listening(api) as listener:
        told = await listener.runs()
        assert [run["id"] for run in told] == [second, first]
        assert told[0] == (await api.ask(f"/v1/runs/{second}")).document
        await api.store.runs.cancel_run(first, "by hand")
        (run,) = await listener.runs()
        assert (run["id"], run["state"], run["counts"]["cancelled"]) == (first, "cancelled", 2)
    await api.store.submissions.claim_pending(
        limit=1, claim="me", now_ms=api.clock(), lease_until_ms=api.clock() + 60_000
    )
    for process in (api, other):
        async with listening(process, listener.last_id) as again:
            (run,) = await again.runs()
            assert (run["id"], run["counts"]["submitting"]) == (second, 1)
    async with listening(other, again.last_id) as once_more:
        third = await api.run("three")
        assert [run["id"] for run in await once_more.runs()] == [third], "and of nothing else"
    async with listening(other, "none of ours!") as new:
        assert [run["id"] for run in await new.runs()] == [third, second, first]


async def test_a_listener_sees_what_its_token_may(api: Api) -> None:
    ours, others = await api.run(account="eu"), await api.run()
    async with listening(api, account="eu") as listener, listening(api) as all_seeing:
        assert [run["id"] for run in await listener.runs()] == [ours]
        assert {run["id"] for run in await all_seeing.runs()} == {ours, others}
        await api.store.runs.cancel_run(others, "by hand")
        assert [run["id"] for run in await all_seeing.runs()] == [others]
        await api.store.runs.cancel_run(ours, "by hand")
        assert [run["id"] for run in await listener.runs()] == [ours]


async def test_one_look_is_for_all(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    looks = 0
    read = api.store.run_pages.live_runs

    async def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return await read(*args)

    monkeypatch.setattr(api.store.run_pages, "live_runs", counted)
    monkeypatch.setattr(live, "EVERY_S", 60.0)
    await api.run()
    async with contextlib.AsyncExitStack() as open_streams:
        listeners = [await open_streams.enter_async_context(listening(api)) for _ in range(5)]
        for listener in listeners:
            assert len(await listener.runs()) == 1
    assert looks == 1


async def test_nothing_is_silent_for_long_and_a_listener_that_left_is_noticed(
    api: Api, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)
    async with listening(api) as listener:
        assert await listener.lines() == [": still here"]
        assert await listener.lines() == [": still here"]
        listener.answer.close()
    shared = api.parts.shared["live"]

    async def looking() -> bool:
        return shared._looks._looking is not None

    await until(looking, False)
    assert [record.name for record in caplog.records if record.name == "aiohttp.server"] == []


async def test_listeners_are_bounded_and_end_with_the_process(store: Any, start_api: StartApi) -> None:
    api = await start_api(store, api_streams_max=1)
    async with listening(api) as listener:
        refused = await api.ask("/v1/events")
        assert (refused.status, refused.document["code"]) == (503, "unavailable")
        assert refused.headers["Retry-After"] == "1"
        api.parts.stopping.set()
        assert await listener.lines() == [] and listener.answer.content.at_eof()


async def test_a_stream_ends_now_and_then_so_that_its_token_is_asked_for(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(live, "LIFE_S", 0.1)
    monkeypatch.setattr(live, "HEARTBEAT_S", 0.05)
    async with listening(api) as listener:
        while await listener.lines():
            pass
        assert listener.answer.content.at_eof()
