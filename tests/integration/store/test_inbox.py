"""The inbox: raw bytes in and out, tries, quarantine."""

import asyncio
import os

import aiosqlite
import pytest

from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.ports import RowsRefused
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.write.inbox import unpack
from tests.integration.store.scenes import (
    NOW,
    apply,
    check_books,
    count,
    receive,
    report_on,
    rows,
    start_run,
    submit_all,
)
from tests.servers.proxy import STORED_NEW, Proxy, through


def raw(body: bytes = b"{}", **changes: str) -> RawDelivery:
    return RawDelivery(new_id(NOW), Source.DELIVERY, NOW, body, **changes)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"\x00\x01\xff not text \r\n",
        b"x" * 511,
        b"x" * 512,
        b'{"a":"\xc3\xa9"}' * 2_000,
        os.urandom(70_000),
        b"\xfd\x2f\xb5\x28 looks like zstd" * 40,
    ],
    ids=lambda body: f"{len(body)} bytes",
)
async def test_bodies_come_back_byte_for_byte(store: Store, body: bytes) -> None:
    delivery = raw(body, webhook_id="w", signed_at="2026-10-01T00:00:00Z", signature="sha256=00")
    await store.inbox.store_deliveries([delivery], due_at_ms=NOW)
    (found,) = (await store.inbox.waiting_deliveries([delivery.id])).readable
    assert found == delivery


async def test_long_bodies_are_stored_compressed(store: Store) -> None:
    delivery = raw(b'{"text":"the same again and again"}' * 1_000)
    await store.inbox.store_deliveries([delivery], due_at_ms=NOW)
    (row,) = await rows(store, "SELECT encoding, length(body) AS size FROM deliveries")
    assert row["encoding"] == "zstd"
    assert row["size"] < len(delivery.body) / 20


async def test_a_batch_is_stored_all_or_none(store: Store) -> None:
    broken = RawDelivery(new_id(NOW), None, NOW, b"")  # type: ignore[arg-type]
    with pytest.raises(RowsRefused):
        await store.inbox.store_deliveries([raw(), broken], due_at_ms=NOW)
    assert await count(store, "SELECT count(*) FROM deliveries") == 0


async def test_waiting_deliveries_are_the_oldest_first_and_only_those_asked_for(store: Store) -> None:
    stored = [RawDelivery(new_id(NOW + n), Source.POLL, NOW + n, b"") for n in range(4)]
    await store.inbox.store_deliveries(stored, due_at_ms=NOW)
    asked = [stored[3].id, stored[0].id, stored[2].id, new_id(NOW)]
    waiting = await store.inbox.waiting_deliveries(asked)
    assert [d.id for d in waiting.readable] == [stored[n].id for n in (0, 2, 3)]
    assert list((await store.inbox.waiting_deliveries([])).readable) == []
    assert await store.queries.waiting_count() == 4


async def test_a_group_is_unpacked_one_body_at_a_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    stored = [RawDelivery(new_id(NOW + n), Source.POLL, NOW + n, b"%d" % n * 1_000) for n in range(3)]
    await store.inbox.store_deliveries(stored, due_at_ms=NOW)
    unpacked: list[bytes] = []

    def noting(encoding: str, body: bytes) -> bytes:
        unpacked.append(body)
        return unpack(encoding, body)

    monkeypatch.setattr("app.store.write.inbox.unpack", noting)
    waiting = await store.inbox.waiting_deliveries([d.id for d in stored])
    for n, delivery in enumerate(waiting.readable, 1):
        assert (delivery, len(unpacked)) == (stored[n - 1], n)


async def overdue(store: Store, now_ms: int, *, limit: int = 10) -> list[str]:
    return await store.inbox.claim_overdue_deliveries(
        limit=limit, now_ms=now_ms, next_due_at_ms=now_ms + 1_000
    )


async def test_overdue_deliveries_are_claimed_for_a_while(store: Store) -> None:
    stored = [raw() for _ in range(3)]
    await store.inbox.store_deliveries(stored, due_at_ms=NOW)
    assert await overdue(store, NOW - 1) == []
    first = await overdue(store, NOW, limit=2)
    rest = await overdue(store, NOW, limit=2)
    assert len(first) == 2
    assert sorted(first + rest) == sorted(d.id for d in stored)
    await store.inbox.release_deliveries(first + rest)
    assert await overdue(store, NOW + 999) == []
    assert len(await overdue(store, NOW + 1_000)) == 3


async def test_what_was_begun_and_never_ended_is_set_aside(store: Store) -> None:
    await store.inbox.store_deliveries([delivery := raw()], due_at_ms=NOW)
    for n in range(3):
        assert await store.inbox.quarantine_unended(tries_max=3) == {}
        assert len(await overdue(store, NOW + n * 1_000)) == 1
        assert await count(store, "SELECT tries FROM deliveries") == n + 1
    error = "begun 3 times, and its worker ended each time before the work did"
    assert await store.inbox.quarantine_unended(tries_max=3) == {delivery.id: error}
    assert await overdue(store, NOW + 10_000) == []
    (row,) = await rows(store, "SELECT state, error, tries FROM deliveries")
    assert row == {"state": "quarantined", "error": error, "tries": 3}
    assert await store.queries.waiting_count() == 0


async def test_what_was_begun_before_is_claimed_alone_and_after_the_others(store: Store) -> None:
    stored = [raw() for _ in range(4)]
    await store.inbox.store_deliveries(stored, due_at_ms=NOW)
    begun = await overdue(store, NOW, limit=2)
    fresh = await overdue(store, NOW + 1_000)
    assert sorted(begun + fresh) == sorted(d.id for d in stored)
    await store.inbox.release_deliveries(fresh)
    assert await overdue(store, NOW + 2_000) == sorted(fresh)
    alone = [await overdue(store, NOW + 2_000) for _ in range(3)]
    assert sorted(alone) == sorted([[], *([i] for i in begun)])


async def test_work_that_came_to_its_end_is_not_counted(store: Store) -> None:
    """However it ended: a delivery without a task waits for days."""
    _, _ = await start_run(store)
    (task,) = await submit_all(store)
    strange = report_on(task, idempotency_key=None, provider_task_id="q")
    (delivery,) = await receive(store, strange, now_ms=NOW)
    for n in range(5):
        assert await overdue(store, NOW + 20_000 + n * 1_000) == [delivery.id]
        await apply(store, [delivery], now_ms=NOW)
        await store.inbox.release_deliveries([delivery.id])
        assert await store.inbox.quarantine_unended(tries_max=1) == {}


async def test_what_is_held_up_is_looked_at_again_less_and_less_often(store: Store) -> None:
    delivery = raw()
    await store.inbox.store_deliveries([delivery], due_at_ms=NOW)
    waits = []
    now = NOW
    for _ in range(8):
        await store.inbox.hold_up_deliveries([(delivery.id, "KeyError at rules.py:1: 'x'")], now_ms=now)
        (row,) = await rows(store, "SELECT state, error, tries, due_at_ms FROM deliveries")
        assert (row["state"], row["tries"], row["error"][:8]) == ("new", 0, "KeyError")
        waits.append(row["due_at_ms"] - now)
        now = row["due_at_ms"]
    assert waits == [10_000, 10_000, 20_000, 40_000, 80_000, 120_000, 120_000, 120_000]


async def test_quarantine_keeps_the_bytes_and_the_reason(store: Store) -> None:
    stored = [raw(b"good"), raw(b"bad")]
    await store.inbox.store_deliveries(stored, due_at_ms=NOW)
    reason = "ValueError: \x00 and \ud800" + "x" * 5_000
    await store.inbox.quarantine_deliveries([(stored[1].id, reason)])
    await store.inbox.quarantine_deliveries([])
    waiting = await store.inbox.waiting_deliveries([d.id for d in stored])
    assert [d.body for d in waiting.readable] == [b"good"]
    (row,) = await rows(store, "SELECT body, error, state FROM deliveries WHERE state <> 'new'")
    assert (bytes(row["body"]), row["state"]) == (b"bad", "quarantined")
    assert row["error"].startswith("ValueError: \\0 and \\ud800xxx")
    assert len(row["error"]) == 2_000
    assert await overdue(store, NOW + 10**6) == [stored[0].id]


async def test_what_is_settled_is_not_quarantined(store: Store) -> None:
    _, _ = await start_run(store)
    (task,) = await submit_all(store)
    (delivery,) = await receive(store, report_on(task))
    await apply(store, [delivery])
    await store.inbox.quarantine_deliveries([(delivery.id, "too late")])
    assert await rows(store, "SELECT state, error FROM deliveries") == [{"state": "done", "error": None}]
    await check_books(store)


async def test_what_comes_again_changes_the_count_and_nothing_else(store: Store) -> None:
    """Whatever has become of the first: it waits, is settled, or was set aside."""
    _, _ = await start_run(store)
    (task,) = await submit_all(store)
    (settled,) = await receive(store, report_on(task))
    await apply(store, [settled])
    waiting, bad = raw(b"waiting", webhook_id="w", signature="v1=00"), raw(b"bad")
    assert await store.inbox.store_deliveries([waiting, bad], due_at_ms=NOW) == set()
    await store.inbox.quarantine_deliveries([(bad.id, "ValueError: bad")])
    before = await rows(store, "SELECT * FROM deliveries ORDER BY id")
    again = [
        RawDelivery(each.id, Source.DELIVERY, NOW + 7, each_body, webhook_id="other")
        for each, each_body in ((settled, b"s"), (waiting, b"waiting"), (bad, b"bad"))
    ]
    new = raw(b"new")
    known = await store.inbox.store_deliveries([*again, new, again[1], new], due_at_ms=NOW + 9)
    assert known == {settled.id, waiting.id, bad.id}
    after = await rows(store, "SELECT * FROM deliveries ORDER BY id")
    counts = {row["id"]: row.pop("repeats") for row in after}
    assert counts == {
        each.id.replace("-", ""): times for each, times in ((settled, 1), (waiting, 2), (bad, 1), (new, 1))
    }
    assert [row for row in after if row["id"] != new.id.replace("-", "")] == [
        {key: value for key, value in row.items() if key != "repeats"} for row in before
    ]


async def test_processes_that_store_the_same_deliveries_count_each_and_block_nobody(store_url: str) -> None:
    """In opposite orders, which is what two transactions deadlock by."""
    stores = [Store(Database(store_url), read_answer) for _ in range(3)]
    both = [raw(b"%d" % n) for n in range(40)]
    try:
        groups = [both, both[::-1], both[20:] + both[:20]]
        returned = await asyncio.gather(
            *(
                each.inbox.store_deliveries(group, due_at_ms=NOW)
                for _ in range(5)
                for each, group in zip(stores, groups, strict=True)
            )
        )
        assert sum(len(both) - len(known) for known in returned) == 40, "each is new to one of them"
        assert await rows(stores[0], "SELECT DISTINCT repeats FROM deliveries") == [{"repeats": 14}]
    finally:
        for each in stores:
            await each.close()


async def test_a_second_try_after_a_lost_answer_counts_no_repeat(postgres_url: str, proxy: Proxy) -> None:
    store = Store(Database(through(proxy, postgres_url)), read_answer)
    proxy.lost_answer = STORED_NEW
    try:
        delivery = raw()
        assert await store.inbox.store_deliveries([delivery], due_at_ms=NOW) == set(), "so it is woken for"
        assert proxy.lost_answer is None
        assert await rows(store, "SELECT repeats FROM deliveries") == [{"repeats": 0}]
    finally:
        await store.close()


async def test_a_cancelled_group_leaves_sqlite_to_the_next_one(sqlite_store: Store, sqlite_url: str) -> None:
    """Its thread may still wait for the lock; the connection is not used again."""
    await sqlite_store.inbox.store_deliveries([raw()], due_at_ms=NOW)
    other = await aiosqlite.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)
    await other.execute("BEGIN IMMEDIATE")
    late = asyncio.create_task(sqlite_store.inbox.store_deliveries([raw()], due_at_ms=NOW))
    while not sqlite_store.db._writer.locked():  # noqa: ASYNC110 - it tells nobody
        await asyncio.sleep(0)
    late.cancel()
    with pytest.raises(asyncio.CancelledError):
        await late
    await other.execute("ROLLBACK")
    await other.close()
    delivery = raw()
    assert await sqlite_store.inbox.store_deliveries([delivery], due_at_ms=NOW) == set()
    assert await sqlite_store.inbox.store_deliveries([delivery], due_at_ms=NOW) == {delivery.id}
