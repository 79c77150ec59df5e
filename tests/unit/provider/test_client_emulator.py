"""The client against the emulator's own wire, in every edition it speaks."""

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any, Literal

import pytest
from aiohttp.test_utils import TestServer

from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.domain.sync_call import SyncEnd
from app.emulator.engine.options import Options, Switches
from app.emulator.http.server import create_app
from app.ports import BalanceEnd
from app.provider.client import Client
from app.provider.ratelimit.pacing import Pacer
from app.provider.sync import SyncClient
from app.provider.wire import read_report

EDITIONS = ["2025", "legacy", "2026"]
EMULATOR_KEY = "sk_live_" + "0123456789abcdef" * 2
SCALE = 2_000.0


@contextlib.asynccontextmanager
async def emulated(
    edition: str, *, api_key: str = EMULATOR_KEY, credits: int | None = None, switches: Switches | None = None
) -> AsyncIterator[Client]:
    """A client of an emulator of that edition, on a clock that makes answers come within milliseconds."""
    options = Options(
        edition=edition,
        keys=(EMULATOR_KEY,),
        time_scale=SCALE,
        credits=credits,
        requests_per_s=0,
        switches=switches or Switches(),
    )
    async with TestServer(create_app(options)) as server, client_of(url_of(server), api_key) as client:
        yield client


def url_of(server: TestServer) -> str:
    return str(server.make_url("")).rstrip("/")


def client_of(url: str, api_key: str = EMULATOR_KEY) -> Client:
    return Client(
        base_url=url, api_key=api_key, webhook_url=None, pacer=Pacer(500), timeout_s=60.0, connections=4
    )


def prompt(n: int = 1, **payload: Any) -> ClaimedTask:
    body = {"prompt": f"Which CRM suits a small firm? {n}", "country": "DE"} | payload
    return ClaimedTask(
        f"id-{n}",
        "run",
        1,
        f"id-{n}.1",
        "CHATGPT",
        json.dumps(body),
        1,
        Decimal(5),
        1,
        first_sent_at_ms=0,
        claim="c",
    )


@pytest.mark.parametrize("edition", EDITIONS)
async def test_create_resend_and_poll(edition: str) -> None:
    async with emulated(edition) as client:
        created = await client.create(prompt())
        assert created.answer is Answer.ACCEPTED, created
        assert created.provider_task_id is not None
        assert created.credits_to_charge == 5
        assert (await client.create(prompt())).answer is Answer.EXISTS

        answer = await client.poll(created.provider_task_id)
        async with asyncio.timeout(20):
            while not answer.finished:
                assert answer.found is True
                answer = await client.poll(created.provider_task_id)
        report = read_report(answer.body)
        assert report.completed
        assert report.idempotency_key == "id-1.1"
        assert report.provider_task_id == created.provider_task_id
        assert (report.to_charge, report.charged) == (Decimal(5), Decimal(5))


@pytest.mark.parametrize("edition", EDITIONS)
async def test_a_task_nobody_knows(edition: str) -> None:
    async with emulated(edition) as client:
        assert (await client.poll("00000000-0000-4000-8000-000000000000")).found is False


@pytest.mark.parametrize("edition", EDITIONS)
async def test_a_key_nobody_knows_stops_everything(edition: str) -> None:
    async with emulated(edition, api_key="sk_live_" + "f" * 32) as client:
        answer = await client.create(prompt())
        assert answer.answer is Answer.BAD_KEY
        assert (await client.poll("t")).found is None
        got = await client.get("/v1/async/status")
        assert (got.status, got.refusal.is_own) == (401, True)
        assert (await client.balance(0)).end in (BalanceEnd.REFUSED, BalanceEnd.ABSENT)


@pytest.mark.parametrize("edition", EDITIONS)
async def test_an_account_without_credits(edition: str) -> None:
    async with emulated(edition, credits=4) as client:
        answer = await client.create(prompt())
        assert (answer.answer, answer.http_status) == (Answer.NO_CREDITS, 403)
        expected = "INSUFFICIENT_CREDITS" if edition == "2026" else "INSUFFICIENT_PERMISSIONS"
        assert answer.code in (expected, None)


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize(
    ("payload", "named"),
    [({"prompt": ""}, "prompt"), ({"prompt": "x" * 10_001}, "prompt"), ({"country": "XX"}, "country")],
)
async def test_s15_an_invalid_task_is_rejected_with_the_reason(
    edition: str, payload: dict[str, Any], named: str
) -> None:
    async with emulated(edition) as client:
        answer = await client.create(prompt(**payload))
        assert answer.answer is Answer.REJECTED
        assert answer.http_status == (400 if edition == "2026" else 422)
        assert answer.message is not None and named in answer.message
        assert (await client.create(prompt())).answer is Answer.ACCEPTED, "its key is not used up"


@pytest.mark.parametrize("edition", EDITIONS)
async def test_f1_a_path_that_it_does_not_serve_says_nothing_of_a_task(edition: str) -> None:
    options = Options(edition=edition, keys=(EMULATOR_KEY,), time_scale=SCALE, requests_per_s=0)
    async with (
        TestServer(create_app(options)) as server,
        client_of(url_of(server)) as client,
        client_of(url_of(server) + "/v2") as misdirected,
    ):
        created = await client.create(prompt())
        assert created.provider_task_id is not None
        assert (await client.poll("unknown")).found is False, "of a task it does"
        refused = await misdirected.create(prompt(2))
        assert (refused.answer, refused.http_status) == (Answer.MISDIRECTED, 404)
        assert refused.message is not None and "Route not found" in refused.message
        assert await misdirected.create_batch([prompt(2), prompt(3)]) is None, "alone they find out"
        poll = await misdirected.poll(created.provider_task_id)
        assert (poll.found, poll.finished) == (None, False), "not gone"
        assert poll.gateway is not None and "404" in poll.gateway


@pytest.mark.parametrize("edition", EDITIONS)
@pytest.mark.parametrize("spelling", ["concurrent", "concurrency", "both", None])
async def test_the_slots_are_read_however_their_headers_are_spelled(
    edition: str, spelling: Literal["concurrent", "concurrency", "both"] | None
) -> None:
    options = Options(
        edition=edition,
        keys=(EMULATOR_KEY,),
        time_scale=SCALE,
        concurrency=7,
        requests_per_s=0,
        switches=Switches(concurrency_headers=spelling),
    )
    async with TestServer(create_app(options)) as server:
        url = str(server.make_url("")).rstrip("/")
        client = SyncClient(base_url=url, api_key=EMULATOR_KEY, pacer=Pacer(500), timeout_s=60.0)
        answer = await client.ask("GOOGLE", '{"query":"shoes","country":"US"}')
        await client.close()
    assert (answer.end, answer.slots, answer.slots_used) == (SyncEnd.ANSWERED, 7, 1)


async def test_a_state_outside_the_us_is_refused_or_ignored_and_never_charged() -> None:
    berlin, ours = prompt(country="DE", state="CA"), prompt(2, country="US", state="CA")
    async with emulated("2026") as client:
        assert (await client.create(berlin)).answer is Answer.REJECTED
        assert (await client.create(ours)).credits_to_charge == 7
    switches = Switches()
    switches.state_outside_us = "ignored"
    async with emulated("2026", switches=switches) as client:
        taken = await client.create(berlin)
        assert (taken.answer, taken.credits_to_charge) == (Answer.ACCEPTED, 5)
        assert (await client.create(ours)).credits_to_charge == 7
        nowhere = await client.create(prompt(3, country="US", state="XX"))
        assert nowhere.answer is Answer.REJECTED, "there it is looked at as before"
