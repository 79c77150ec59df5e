"""Stored notices reach a real receiver, signed, whatever it answers; on both databases."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web

from app.config import load_settings
from app.domain.notices.notice import Notice, NoticeKind, NoticeState, Outcome
from app.limits import NoticeLimits
from app.notice_client import NoticeClient, open_notice_client
from app.services.notify import Notifier
from app.store import Store
from tests.changed_limits import changed
from tests.clock import SteppedClock
from tests.integration.notices.receiver import SECRET, Receiver

LIMITS = NoticeLimits(notice_tries_max=4)


@pytest.fixture
async def poster(receiver: Receiver) -> AsyncIterator[NoticeClient]:
    async with client_of(receiver, timeout_s=60) as opened:
        yield opened


def client_of(receiver: Receiver, *, timeout_s: float) -> NoticeClient:
    opened = open_notice_client(
        load_settings(
            _env_file=None, notice_url=receiver.url, notice_secret=SECRET, notice_timeout_s=timeout_s
        )
    )
    assert opened is not None
    return opened


def notifier(store: Store, poster: NoticeClient | None, clock: SteppedClock, **limits: int) -> Notifier:
    return Notifier(
        store, poster and poster.post, limits=changed(LIMITS, **limits), clock=clock, jitter=lambda: 0.0
    )


def notice(number: int = 1, **changes: Any) -> Notice:
    given: dict[str, Any] = {
        "kind": NoticeKind.RUN_PAUSED,
        "account": "default",
        "dedupe_key": f"o{number}",
        "message": f"No. {number}.",
        "at_ms": 1_790_812_800_000,
    }
    return Notice(**(given | changes))


async def only(store: Store) -> Any:
    (row,) = await store.notices.list_notices()
    return row


async def test_a_notice_is_stored_once_and_sent_once(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    assert await store.notices.add_notices([notice(1), notice(2)], clock()) == 2
    assert await store.notices.add_notices([notice(2, message="other"), notice(3)], clock()) == 1
    sender = notifier(store, poster, clock)
    ended = await sender.send_due()
    assert [(due.tries, outcome.state) for due, outcome in ended] == [(1, NoticeState.SENT)] * 3
    assert await sender.send_due() == []
    assert (receiver.refused, len(receiver.got), len(set(receiver.ids))) == ([], 3, 3)
    assert sorted(d["data"]["message"] for _, d in receiver.got) == ["No. 1.", "No. 2.", "No. 3."]
    rows = await store.notices.list_notices()
    assert {(row.state, row.tries, row.sent_at_ms) for row in rows} == {("sent", 1, clock())}


async def test_a_receiver_that_recovers_gets_it_under_the_same_id(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    receiver.answers.extend([web.Response(status=500), web.Response(status=500)])
    await store.notices.add_notices([notice()], clock())
    sender = notifier(store, poster, clock)
    await sender.send_due()
    assert await sender.send_due() == [], "tried again at once"
    row = await only(store)
    assert (row.state, row.error, row.due_at_ms - clock()) == ("new", "HTTP 500", 2_500)
    clock.advance(2_500)
    await sender.send_due()
    clock.advance(9_999)
    assert await sender.send_due() == []
    clock.advance(1)
    await sender.send_due()
    row = await only(store)
    assert (row.state, row.tries, row.error) == ("sent", 3, None)
    assert receiver.ids == [row.id] * 3 and receiver.refused == []


async def test_retry_after_is_respected(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    receiver.answers.append(web.Response(status=503, headers={"Retry-After": "600"}))
    await store.notices.add_notices([notice()], clock())
    await notifier(store, poster, clock).send_due()
    assert (await only(store)).due_at_ms == clock() + 600_000


async def test_silence_and_absence_are_given_up_in_the_end(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    receiver.answers.append(600.0)
    await store.notices.add_notices([notice()], clock())
    async with client_of(receiver, timeout_s=0.3) as hasty:
        ((_, outcome),) = await notifier(store, hasty, clock).send_due()
    sender = notifier(store, poster, clock)
    assert (outcome.state, outcome.error) == (NoticeState.NEW, "TimeoutError")
    # A port that nobody listens on.
    poster.url = "http://127.0.0.1:1/notices"
    for _ in range(3):
        clock.advance(86_400_000)
        ((_, outcome),) = await sender.send_due()
    row = await only(store)
    assert (row.state, row.tries) == ("failed", 4)
    assert row.error == "ClientConnectorError; given up after 4 tries"
    clock.advance(86_400_000)
    assert await sender.send_due() == []


async def test_no_redirect_is_followed(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    receiver.answers.extend(
        web.Response(status=status, headers={"Location": "/elsewhere"}) for status in (301, 307, 308)
    )
    await store.notices.add_notices([notice(n) for n in range(3)], clock())
    ended = await notifier(store, poster, clock).send_due()
    assert {outcome.state for _, outcome in ended} == {NoticeState.NEW}
    assert (receiver.elsewhere, len(receiver.got)) == (0, 3)


async def test_a_receiver_that_is_gone_is_left_alone(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    receiver.answers.append(web.Response(status=410))
    sender = notifier(store, poster, clock)
    await store.notices.add_notices([notice(1)], clock())
    await sender.send_due()
    assert (await only(store)).state == "failed"
    await store.notices.add_notices([notice(2)], clock())
    await sender.send_due()
    assert sorted(row.state for row in await store.notices.list_notices()) == ["failed", "logged"]
    assert len(receiver.got) == 1


async def test_without_a_url_it_is_logged(store: Store, clock: SteppedClock) -> None:
    await store.notices.add_notices([notice()], clock())
    ((_, outcome),) = await notifier(store, None, clock).send_due()
    assert outcome.state is NoticeState.LOGGED
    assert ((await only(store)).state, await notifier(store, None, clock).send_due()) == ("logged", [])


async def test_a_round_is_bounded_and_old_news_is_sent_to_nobody(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    await store.notices.add_notices([notice(n) for n in range(5)], clock())
    await store.notices.add_notices([notice(9)], clock(), state=NoticeState.LOGGED)
    sender = notifier(store, poster, clock, notice_size=2)
    assert [len(await sender.send_due()) for _ in range(4)] == [2, 2, 1, 0]
    assert len(receiver.got) == 5


async def test_two_workers_at_once_send_each_notice_once(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    found = [notice(n) for n in range(12)]
    stored = await asyncio.gather(*(store.notices.add_notices(found, clock()) for _ in range(4)))
    assert sum(stored) == 12
    senders = [notifier(store, poster, clock, notice_size=3) for _ in range(4)]
    while any([await sender.send_due() for sender in senders]) or any(
        await asyncio.gather(*(sender.send_due() for sender in senders))
    ):
        pass
    assert len(receiver.ids) == len(set(receiver.ids)) == 12


async def test_a_worker_that_dies_leaves_its_notice_to_the_next(
    store: Store, clock: SteppedClock, receiver: Receiver, poster: NoticeClient
) -> None:
    await store.notices.add_notices([notice()], clock())
    (lost,) = await store.notices.claim_due_notices(limit=1, now_ms=clock(), lease_until_ms=clock() + 30_000)
    sender = notifier(store, poster, clock)
    assert await sender.send_due() == []
    clock.advance(30_000)
    (again,) = await store.notices.claim_due_notices(limit=1, now_ms=clock(), lease_until_ms=clock() + 30_000)
    # What the first one thought of its try comes too late, both now and when the notice is sent.
    late = [(lost, Outcome(NoticeState.FAILED, error="late"))]
    await store.notices.record_tries(late, clock())
    assert ((await only(store)).state, again.tries) == ("new", 2)
    clock.advance(30_000)
    await sender.send_due()
    await store.notices.record_tries(late, clock())
    row = await only(store)
    assert (row.state, row.error, row.tries) == ("sent", None, 3)
