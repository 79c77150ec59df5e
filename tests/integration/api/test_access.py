"""Who is let in: tokens, scopes, accounts, rates, request ids; and what every answer carries."""

import asyncio
import hashlib
import hmac
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
import structlog
from aiohttp import ClientPayloadError
from multidict import CIMultiDict
from sqlalchemy.ext.asyncio import AsyncConnection

from app.api import live
from app.api.route import Parts
from app.api.server import create_api, serve_api
from app.api.table import ROUTES
from app.config import Settings
from app.domain.access import Scope
from app.services.access import create_token, revoke_token
from app.store import Store
from app.store.read import exports
from app.store.tables import tokens
from tests.clock import SteppedClock
from tests.integration.api.asking import Api, until
from tests.integration.api.conftest import StartApi
from tests.integration.api.test_results import settled

WRONG = {
    "none": "",
    "another kind": "Basic dXNlcjpwYXNz",
    "no token of ours": "Bearer sk_live_0123456789abcdef",
    "cut": "Bearer thk_0FPnBNQC5_E7gI",
    "unknown": f"Bearer thk_0FPnBNQC5_{'0' * 43}",
    "empty": "Bearer ",
    "not ASCII": "Bearer thk_é",
}


@pytest.mark.parametrize("kind", WRONG)
async def test_no_token_no_access(kind: str, sqlite_store: Store, start_api: StartApi) -> None:
    api = await start_api(sqlite_store)
    async with api.client.get("/v1/runs", headers={"Authorization": WRONG[kind]}) as response:
        problem = await response.json(content_type=None)
    assert (response.status, problem["code"]) == (401, "unauthorized")
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")
    assert response.content_type == "application/problem+json"


async def test_a_token_with_another_secret_is_refused(api: Api) -> None:
    token = await api.token()
    headers = {"Authorization": f"Bearer {token[:-1]}{'1' if token[-1] == '0' else '0'}"}
    assert (await api.ask("/v1/runs")).status == 200
    assert (await api.ask("/v1/runs", headers=headers)).status == 401


async def test_a_token_is_compared_in_the_same_way_whatever_is_wrong_with_it(
    sqlite_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once, and two whole hashes, in a time that tells nothing."""
    token = await sqlite_api.token()
    compared: list[tuple[int, int]] = []
    compare_digest = hmac.compare_digest

    def noting(given: str, stored: str) -> bool:
        compared.append((len(given), len(stored)))
        return compare_digest(given, stored)

    monkeypatch.setattr("app.domain.access.hmac.compare_digest", noting)
    other_end = f"{token[:-1]}{'1' if token[-1] == '0' else '0'}"
    other_secret = f"{token[:14]}{'0' * 43}"
    for given, status in (
        (token, 200),
        (other_end, 401),
        (other_secret, 401),
        (f"thk_{'0' * 9}_{'0' * 43}", 401),
    ):
        for path in ("/v1/runs", "/v1/async/status"):
            answered = await sqlite_api.ask(path, headers={"Authorization": f"Bearer {given}"})
            assert answered.status == status
    assert compared == [(64, 64)] * 8


async def test_every_route_asks_for_a_token_of_its_scope(sqlite_api: Api) -> None:
    """And says so in its own dialect, before it looks at anything else."""
    made = await create_token(sqlite_api.store, "gone", "operate", None, now_ms=sqlite_api.clock())
    assert made is not None
    assert await revoke_token(sqlite_api.store, "gone", now_ms=sqlite_api.clock()) is not None
    for route in ROUTES:
        path = route.path.format(**dict.fromkeys(route.params.model_fields, "x"))
        if route.scope is None:
            assert (await sqlite_api.client.get(path)).status == 200
            continue
        for given in ("", f"Bearer {made[1]}"):
            refused = await sqlite_api.ask(path, route.method, headers={"Authorization": given})
            assert refused.status == 401, path
            route.dialect.error_model.model_validate(refused.document)
        for scope in Scope:
            if not scope.includes(route.scope):
                refused = await sqlite_api.ask(path, route.method, scope=scope)
                assert refused.status == 403, path
                route.dialect.error_model.model_validate(refused.document)
                assert f'scope="{route.scope}"' in refused.headers["WWW-Authenticate"]


async def test_only_a_hash_of_a_token_is_stored(api: Api) -> None:
    token = await api.token()

    async def rows(connection: AsyncConnection) -> list[dict[str, object]]:
        return [dict(row) for row in (await connection.execute(sa.select(tokens))).mappings()]

    (row,) = await api.store.db.read(rows)
    assert row["sha256"] == hashlib.sha256(token.encode()).hexdigest()
    assert token.rpartition("_")[2] not in str(row)
    assert token.startswith(f"{row['prefix']}_")


async def test_a_token_ends_when_it_expires_and_soon_after_it_is_revoked(api: Api) -> None:
    made = await create_token(api.store, "short", "read", None, now_ms=api.clock(), lasts_ms=60_000)
    assert made is not None
    headers = {"Authorization": f"Bearer {made[1]}"}
    assert (await api.ask("/v1/runs", headers=headers)).status == 200
    api.clock.advance(60_000)
    assert (await api.ask("/v1/runs", headers=headers)).status == 401
    assert (await api.ask("/v1/runs")).status == 200
    await revoke_token(api.store, "operate ", now_ms=api.clock())
    api.clock.advance(2_000)
    assert (await api.ask("/v1/runs")).status == 401


async def test_what_goes_on_when_a_token_ends_ends_with_it(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """Events, results and an upload that were begun before; nothing is bought."""
    monkeypatch.setattr(live, "EVERY_S", 0.01)
    monkeypatch.setattr(exports, "CHUNK_BYTES", 1)
    run_id, _ = await settled(api)
    ended = asyncio.Event()
    headers = {"Authorization": f"Bearer {await api.token()}"}
    read_on = api.store.run_results.results_of_run

    async def results(of: str, after: int) -> AsyncIterator[Any]:
        async for rows in read_on(of, after):
            yield rows
            await ended.wait()

    async def prompts() -> AsyncIterator[bytes]:
        yield b'{"prompt": "x"}\n'
        await ended.wait()
        yield b'{"prompt": "y"}\n'

    api.store.run_results.results_of_run = results  # type: ignore[method-assign]
    upload = api.client.post(
        "/v1/runs?task_type=GEMINI&country=DE",
        data=prompts(),
        headers=headers | {"Content-Type": "application/x-ndjson"},
    )
    uploading = asyncio.ensure_future(upload)
    async with (
        api.client.get("/v1/events", headers=headers) as events,
        api.client.get(f"/v1/runs/{run_id}/results", headers=headers) as listed,
    ):
        await events.content.readline()
        await listed.content.readline()
        await revoke_token(api.store, "operate ", now_ms=api.clock())
        api.clock.advance(2_000)
        ended.set()
        async with asyncio.timeout(20):
            await api.run("news")
            await events.content.read()
            with pytest.raises(ClientPayloadError):
                await listed.content.read()
            assert (await uploading).status == 401
    names = [timed.run.name for timed in await api.store.run_pages.runs_before(None, 10)]
    assert sorted(names) == ["news", "run"]


async def test_a_name_is_free_again_when_its_token_has_ended(api: Api) -> None:
    async def make(lasts_ms: int | None = None) -> bool:
        made = await create_token(api.store, "ci", "read", None, now_ms=api.clock(), lasts_ms=lasts_ms)
        return made is not None

    assert [await make(1_000), await make()] == [True, False]
    api.clock.advance(1_000)
    assert [await make(), await make()] == [True, False]
    assert await revoke_token(api.store, "ci", now_ms=api.clock()) is not None
    for shown in (lambda token: token, lambda token: f"{token[:13]}…", lambda token: token[:13]):
        made = await create_token(api.store, "other", "read", None, now_ms=api.clock())
        assert made is not None
        assert await revoke_token(api.store, shown(made[1]), now_ms=api.clock()) is not None
    assert await revoke_token(api.store, "ci", now_ms=api.clock()) is None
    assert await make()
    listed = (await api.store.access.actions_before(None, 20))[0]
    assert [row.action for row in listed].count("token.create") == 6
    assert {row.actor for row in listed} == {"command line"}


async def test_the_last_use_of_a_token_is_known_to_the_minute(api: Api) -> None:
    async def last_used_ms() -> int | None:
        return (await api.store.access.list_tokens(1))[0].last_used_at_ms

    begun = api.clock()
    await api.ask("/v1/runs")
    await until(last_used_ms, begun)
    api.clock.advance(59_000)
    await api.ask("/v1/runs")
    assert await last_used_ms() == begun
    api.clock.advance(1_000)
    await api.ask("/v1/runs")
    await until(last_used_ms, begun + 60_000)


async def test_a_token_of_an_account_sees_that_account_only(api: Api) -> None:
    ours, theirs = await api.run(account="eu"), await api.run(account="us")
    listed = await api.ask("/v1/runs", account="eu")
    assert [run["id"] for run in listed.document["data"]] == [ours]
    assert (await api.ask(f"/v1/runs/{ours}", account="eu")).status == 200
    hidden = await api.ask(f"/v1/runs/{theirs}", account="eu")
    missing = await api.ask(f"/v1/runs/{theirs[:-1]}{'0' if theirs[-1] != '0' else '1'}", account="eu")
    assert hidden.status == missing.status == 404
    for problem in (hidden, missing):
        del problem.document["request_id"]
    assert hidden.document == missing.document


async def test_a_token_that_sends_too_much_is_told_when_to_go_on(
    sqlite_store: Store, start_api: StartApi
) -> None:
    api = await start_api(sqlite_store, api_rate_per_s=0.01)
    first = await api.ask("/v1/runs")
    assert (first.status, first.headers["RateLimit"]) == (200, '"token";r=0;t=100')
    assert first.headers["RateLimit-Policy"] == '"token";q=1;w=100'
    second = await api.ask("/v1/runs")
    assert (second.status, second.document["code"]) == (429, "rate_limited")
    assert 1 <= int(second.headers["Retry-After"]) <= 100
    assert (await api.ask("/v1/runs", scope="read")).status == 200, "another token has its own"


@pytest.mark.parametrize("given", ["abc-1", "0" * 100, "1:2_3.4"])
async def test_a_request_id_goes_in_out_and_to_the_log(
    given: str, sqlite_store: Store, start_api: StartApi
) -> None:
    api = await start_api(sqlite_store)
    structlog.contextvars.clear_contextvars()
    with structlog.testing.capture_logs([structlog.contextvars.merge_contextvars]) as lines:
        answered = await api.ask("/v1/runs/none", headers={"X-Request-Id": given})
    assert answered.headers["X-Request-Id"] == answered.document["request_id"] == given
    (line,) = [line for line in lines if line["event"] == "api_request"]
    assert (line["request_id"], line["status"]) == (given, 404)


@pytest.mark.parametrize("given", ["", "a b", "x" * 101, "é", "<script>"])
async def test_a_request_id_that_is_none_is_replaced(
    given: str, sqlite_store: Store, start_api: StartApi
) -> None:
    api = await start_api(sqlite_store)
    answered = await api.ask("/v1/runs", headers={"X-Request-Id": given})
    assert len(answered.headers["X-Request-Id"]) == 36


async def test_answers_say_nothing_to_browsers(sqlite_store: Store, start_api: StartApi) -> None:
    api = await start_api(sqlite_store)
    for path in ("/v1/runs", "/v1/nothing", "/openapi.json"):
        answered = await api.ask(path, headers={"Origin": "https://evil.example"})
        assert answered.headers["X-Content-Type-Options"] == "nosniff"
        names = {name.lower() for name in answered.headers}
        assert not {name for name in names if name.startswith("access-control-")} | names & {"set-cookie"}
    assert (await api.ask("/v1/runs", "OPTIONS")).status == 405


async def test_addresses_that_are_none(sqlite_store: Store, start_api: StartApi) -> None:
    api = await start_api(sqlite_store)
    assert (await api.ask("/v1/nothing")).document["code"] == "not_found"
    # Whatever is written there, its answer is a problem document: a line break is no end of a path.
    assert (await api.ask("/v1/runs/a%0Ab/results")).document["code"] == "not_found"
    refused = await api.ask("/v1/runs", "DELETE")
    assert (refused.status, refused.headers["Allow"]) == (405, "GET, HEAD, POST")
    assert (await api.client.get("/healthz")).status == 200
    assert (await api.client.get("/readyz")).status == 200


async def test_two_tokens_are_none(sqlite_api: Api) -> None:
    token = await sqlite_api.token()
    headers = CIMultiDict([("Authorization", f"Bearer {token}"), ("Authorization", "Bearer other")])
    async with sqlite_api.client.get("/v1/runs", headers=headers) as response:
        assert response.status == 401


async def test_what_cannot_be_read_is_not_repeated(sqlite_store: Store, clock: SteppedClock) -> None:
    settings, stop = Settings(), asyncio.Event()
    parts = Parts(sqlite_store, settings, clock)
    port: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    serving = asyncio.create_task(
        serve_api(
            create_api(parts, settings),
            parts,
            host="127.0.0.1",
            port=0,
            stop=stop,
            on_listening=port.set_result,
        )
    )
    try:
        for sent in (b"secret / HTTP/1.1", b"GET / HTTP/1.1\r\nAuthorization: secret" + b"x" * 9_000):
            reader, writer = await asyncio.open_connection("127.0.0.1", await port)
            writer.write(sent + b"\r\n\r\n")
            answer = await reader.read()
            assert b" 400 " in answer.splitlines()[0], answer
            assert b"secret" not in answer
            writer.close()
            await writer.wait_closed()
    finally:
        stop.set()
        await serving
