"""What the provider asks us to wait is a floor under our own: 0, or a date just past, starts no storm."""

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime

import pytest
from aiohttp import web

from app.domain.send_outcome import Answer, backoff_s
from app.provider.ratelimit.pacing import Pacer
from tests.clock import SteppedClock
from tests.unit.provider.test_client import TASK, Provider, serving

REFUSAL = '{"success":false,"error":{"code":"RATE_LIMIT_EXCEEDED","message":"slow down"}%s}'
JUST_PAST = format_datetime(datetime.now(UTC) - timedelta(seconds=2), usegmt=True)
FORMS = [("0", ""), ("-5", ""), (JUST_PAST, ""), (None, ', "retry_after": 0'), (None, "")]
SENDERS = 64


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with serving() as opened:
        yield opened


@pytest.mark.parametrize(
    ("header", "in_body"), FORMS, ids=["zero", "negative", "just past", "in the body", "none"]
)
async def test_f9_a_wait_of_nothing_pauses_for_our_own_and_longer_each_time(
    header: str | None, in_body: str
) -> None:
    clock = SteppedClock()

    def monotonic() -> float:
        return clock() / 1_000

    async with serving(pacer=Pacer(500, monotonic=monotonic), monotonic=monotonic) as provider:
        provider.answers(429, REFUSAL % in_body, **({"Retry_After": header} if header is not None else {}))
        pauses = []
        for _ in range(4):
            assert (await provider.client.create(TASK)).answer is Answer.RATE_LIMITED
            pauses.append(await provider.pacer.acquire(within_s=0.0))
            clock.advance(pauses[-1] * 1_000 + 100)
        assert [round(pause) for pause in pauses] == [1, 2, 4, 8]
        provider.answers(200, '{"task":{"id":"t"}}')
        await provider.client.create(TASK)
        provider.answers(429, REFUSAL % in_body)
        clock.advance(100)
        await provider.client.create(TASK)
        assert await provider.pacer.acquire(within_s=0.0) == pytest.approx(1.0, abs=0.3)


async def test_f9_a_full_limit_gets_no_storm_of_requests(provider: Provider) -> None:
    """A limit of 50 a second that our own pace knows nothing of, and `Retry-After: 0`."""
    seen: list[float] = []

    async def answer(_: web.Request) -> web.StreamResponse:
        now = time.monotonic()
        seen.append(now)
        if sum(at > now - 1.0 for at in seen) > 50:
            return web.Response(status=429, text=REFUSAL % "", headers={"Retry-After": "0"})
        return web.Response(text='{"task":{"id":"t"}}')

    provider.answer = answer
    until = time.monotonic() + 1.5

    async def send() -> None:
        sends = 0
        while time.monotonic() < until:
            sends += 1
            got = await provider.client.create(TASK)
            if got.answer is Answer.RATE_LIMITED:
                await asyncio.sleep(min(backoff_s(sends, 0.5, got.wait_s), until - time.monotonic() + 0.01))
            elif got.answer is Answer.DEFERRED:
                await asyncio.sleep(min(got.wait_s or 0.0, 0.5))

    await asyncio.gather(*(send() for _ in range(SENDERS)))
    busiest = max(sum(at - 1.0 < other <= at for other in seen) for at in seen)
    assert busiest <= 50 + SENDERS, f"{busiest} requests in one second"
