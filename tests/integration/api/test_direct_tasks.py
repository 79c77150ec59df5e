"""Single tasks that a connection has taken as they arrive, and what it leaves to the dispatcher."""

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from app.api.access import RequestRates
from app.api.addresses import Addresses
from app.api.dialects.provider.direct import DirectTasks
from app.ports import StoreUnavailable
from app.store.tables import tasks
from app.store.write.standing import StandingWrites
from tests.integration.api.asking import Api
from tests.integration.api.conftest import StartApi
from tests.integration.api.test_provider import create, rows, task
from tests.integration.web.receiving import until

PATH = "/v1/async/task"


@pytest.fixture
def handled(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Paths of what the dispatcher was called with."""
    paths: list[str] = []
    resolve = Addresses.resolve

    async def noting(self: Addresses, request: Any) -> Any:
        paths.append(request.path)
        return await resolve(self, request)

    monkeypatch.setattr(Addresses, "resolve", noting)
    return paths


async def known(api: Api, handled: list[str]) -> Api:
    """Token and balance were looked at a moment ago; the connection is open."""
    assert (await create(api)).status == 200
    handled.clear()
    return api


@dataclass
class Held:
    """Commits that wait, or fail."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    error: Exception | None = None
    groups: int = 0


@pytest.fixture
def held(monkeypatch: pytest.MonkeyPatch) -> Iterator[Held]:
    """From the moment that `groups` is 0; before, commits pass."""
    held = Held(groups=-1)
    take_tasks = StandingWrites.take_tasks

    async def waiting(*arguments: Any) -> Any:
        if held.groups >= 0:
            held.groups += 1
            await held.gate.wait()
        if held.error is not None:
            raise held.error
        return await take_tasks(*arguments)

    monkeypatch.setattr(StandingWrites, "take_tasks", waiting)
    yield held
    held.gate.set()


async def test_a_task_is_taken_without_the_dispatcher(api: Api, handled: list[str]) -> None:
    by_dispatcher = await create(api)
    await known(api, handled)
    answered = await api.ask(PATH, "POST", json=task(priority=3), headers={"X-Request-Id": "mine-1"})
    assert (answered.status, handled) == (200, [])
    assert answered.headers["X-Request-Id"] == "mine-1"
    assert answered.document["task"]["priority"] == 3
    # The same headers, in whatever way it is answered.
    assert {*answered.headers} == {*by_dispatcher.headers}
    assert len(await rows(api, tasks)) == 3


async def test_it_is_answered_after_its_commit(api: Api, handled: list[str], held: Held) -> None:
    await known(api, handled)
    held.groups = 0
    asked = asyncio.ensure_future(create(api))
    await until(lambda: held.groups == 1)
    await asyncio.sleep(0.05)
    assert not asked.done()
    held.gate.set()
    assert ((await asked).status, handled) == (200, [])


async def test_a_known_key_and_a_database_that_is_away_are_said_as_ever(
    api: Api, handled: list[str], held: Held
) -> None:
    await known(api, handled)
    assert [(await create(api, idempotencyKey="k")).status for _ in range(2)] == [200, 409]
    held.groups = 0
    held.gate.set()
    for held.error, status, code in (
        (StoreUnavailable("away"), 503, "SERVICE_UNAVAILABLE"),
        (RuntimeError("a bug"), 500, "INTERNAL_SERVER_ERROR"),
    ):
        refused = await create(api)
        assert (refused.status, refused.document["error"]["code"]) == (status, code)
        assert handled == []
    held.error = None
    assert (await create(api)).status == 200, "its place is free again"


async def test_nobody_waits_longer_than_a_request_may_take(
    sqlite_api: Api, handled: list[str], held: Held, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = await known(sqlite_api, handled)
    held.groups = 0
    with monkeypatch.context() as patched:
        # Of this request only: at load the others take longer than that.
        patched.setattr(DirectTasks, "timeout_s", property(lambda _: 0.05), raising=False)
        late = await create(api, idempotencyKey="k")
    assert (late.status, handled) == (504, [])
    held.gate.set()
    # It was stored all the same, and is not stored twice.
    await until(lambda: held.groups == 1)
    assert (await create(api, idempotencyKey="k")).status == 409


@pytest.mark.parametrize(
    ("status", "options"),
    [
        (400, {"data": b"{"}),
        (400, {"json": {"taskType": "GEMINI"}}),
        (400, {"json": task(payload={"prompt": "x", "country": "XX"})}),
        (200, {"data": b'{"taskType": "GEMINI", "payload": {"prompt": "x", "country": "DE"}}'}),
        (415, {"json": task(), "headers": {"Content-Encoding": "gzip"}}),
        (401, {"json": task(), "headers": {"Authorization": "Bearer x"}}),
        (403, {"json": task(), "scope": "read"}),
        (422, {"json": task(), "params": {"x": "1"}}),
    ],
)
async def test_what_it_leaves_is_answered_by_the_dispatcher(
    sqlite_api: Api, handled: list[str], monkeypatch: pytest.MonkeyPatch, status: int, options: dict[str, Any]
) -> None:
    api = await known(sqlite_api, handled)
    rates = Counted()
    monkeypatch.setattr(RequestRates, "take", rates.take)
    monkeypatch.setattr(RequestRates, "give_back", rates.give_back)
    if "data" in options:
        options = options | {"headers": {"Content-Type": "application/json; charset=utf-8"}}
    answered = await api.ask(PATH, "POST", **options)
    assert (answered.status, handled) == (400 if status == 422 else status, [PATH])
    assert rates.taken == (status != 401), "it is counted once"


class Counted:
    """Requests that are counted."""

    taken = 0

    def take(self, *_: object) -> dict[str, str]:
        self.taken += 1
        return {}

    def give_back(self, *_: object) -> None:
        self.taken -= 1


async def test_who_asks_too_often_is_told_by_the_dispatcher(
    start_api: StartApi, sqlite_store: Any, handled: list[str]
) -> None:
    api = await known(await start_api(sqlite_store, api_rate_per_s=0.001), handled)
    assert ((await create(api)).status, handled) == (429, [PATH])


async def test_beyond_its_places_it_leaves_them_to_the_dispatcher(
    start_api: StartApi, sqlite_store: Any, handled: list[str], held: Held
) -> None:
    api = await known(await start_api(sqlite_store, api_in_flight=1), handled)
    held.groups = 0
    first, second = (asyncio.ensure_future(create(api)) for _ in range(2))
    await until(lambda: handled == [PATH])
    held.gate.set()
    assert [answered.status for answered in await asyncio.gather(first, second)] == [200, 200]
