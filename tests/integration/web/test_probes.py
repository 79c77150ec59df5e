"""Health, readiness and metrics; a clock that is wrong must be seen (R6)."""

import asyncio
import re
from typing import Any

import pytest
import sqlalchemy as sa

from app.config import ConfigError
from app.provider.wire import read_answer
from app.signals import scrape
from app.store import Database, Store
from app.web.receiver.clock_offset import SAMPLE_AGE_MAX_S, SAMPLES_MAX, ClockOffset
from app.web.server import PROBES, create_app
from tests.clock import SteppedClock
from tests.integration.web.conftest import StartReceiver
from tests.integration.web.receiving import (
    LIMITS,
    SECRET,
    WAIT_S,
    HeldStore,
    Receiving,
    WakeDouble,
    delivery_body,
    signed,
    until,
)


async def reasons(receiver: Receiving) -> list[str]:
    async with receiver.client.get("/readyz") as response:
        answer = await response.json()
        assert (response.status == 200) is answer["ready"]
        assert answer["ready"] is (answer["reasons"] == [])
        return answer["reasons"]


async def test_a_fresh_receiver_is_ready(receiver: Receiving) -> None:
    assert await reasons(receiver) == []
    async with receiver.client.get("/healthz") as response:
        assert (response.status, await response.text()) == (200, "ok\n")


@pytest.mark.parametrize("wrong_s", [400, -400])
async def test_r6_a_wrong_clock_is_not_ready_until_it_is_set(
    sqlite_store: Store, start_receiver: StartReceiver, wrong_s: int
) -> None:
    receiver = await start_receiver(sqlite_store)
    true_s = receiver.now_s
    receiver.clock.advance(wrong_s * 1000)
    for number in range(3):
        body = delivery_body(number)
        assert (await receiver.post(body, signed(body, true_s))).status == 401
    (reason,) = await reasons(receiver)
    side = "ahead of" if wrong_s > 0 else "behind"
    said = re.match(rf"clock (\d+) s {side} the provider's", reason)
    # The receiver's clock stands still, and the monotonic one goes on.
    assert said is not None and int(said[1]) == pytest.approx(400, abs=WAIT_S), reason
    assert receiver.count("tallyhook_clock_offset_seconds") == pytest.approx(wrong_s, abs=WAIT_S)
    # Set right: ready at once, without one more delivery.
    receiver.clock.advance(-wrong_s * 1000)
    assert await reasons(receiver) == []


async def test_r6_forgeries_and_replays_do_not_move_the_offset(
    sqlite_store: Store, start_receiver: StartReceiver
) -> None:
    receiver = await start_receiver(sqlite_store)
    body = delivery_body()
    captured = signed(body, receiver.now_s - 9_999)
    for number in range(10):
        forged_body = delivery_body(number)
        forged = signed(forged_body, receiver.now_s - 9_999, secret="whsec_guess")
        assert (await receiver.post(forged_body, forged)).status == 401
        assert (await receiver.post(body, captured)).status == 401
    assert await reasons(receiver) == []
    # Neither do a few replays among good deliveries.
    for number in range(6):
        body = delivery_body(number)
        assert (await receiver.post(body)).status == 200
        if number % 2:
            await receiver.post(body, signed(body, receiver.now_s - 9_999))
    assert await reasons(receiver) == []


def test_the_offset_is_a_median_of_the_last_deliveries() -> None:
    offset = ClockOffset()
    offset.note("a", signed_s=1_000, monotonic_s=50.0)
    offset.note("b", signed_s=1_000, monotonic_s=50.0)
    assert offset.median_s(now_s=1_002.0, monotonic_s=50.0) is None
    offset.note("c", signed_s=500, monotonic_s=50.0)
    assert offset.median_s(now_s=1_002.0, monotonic_s=50.0) == 2.0
    assert offset.median_s(now_s=1_012.0, monotonic_s=60.0) == 2.0
    assert offset.median_s(now_s=1_412.0, monotonic_s=60.0) == 402.0
    assert offset.median_s(now_s=2_000.0, monotonic_s=51.0 + SAMPLE_AGE_MAX_S) is None
    for number in range(SAMPLES_MAX):
        offset.note(f"new {number}", signed_s=2_000, monotonic_s=100.0)
    assert offset.median_s(now_s=2_000.0, monotonic_s=100.0) == 0.0


async def test_a_database_that_is_gone_is_not_ready(start_receiver: StartReceiver) -> None:
    class Gone(HeldStore):
        async def schema_revision(self) -> str | None:
            raise ConnectionRefusedError("postgresql://user:secret@host/db")

    receiver = await start_receiver(Gone())
    assert await reasons(receiver) == ["database: ConnectionRefusedError"]


async def test_a_database_without_tables_is_not_ready(
    tmp_path: object, start_receiver: StartReceiver
) -> None:
    store = Store(Database(f"sqlite:///{tmp_path}/empty.db"), read_answer)
    try:
        receiver = await start_receiver(store)
        assert await reasons(receiver) == ["database: never migrated, run `tallyhook migrate`"]
    finally:
        await store.close()


async def test_f21_a_database_that_takes_no_write_is_not_ready(
    sqlite_store: Store, start_receiver: StartReceiver
) -> None:
    """It answers reads as before."""
    receiver = await start_receiver(sqlite_store)
    assert await reasons(receiver) == []

    def read_only(connection: Any, _record: Any) -> None:
        connection.execute("PRAGMA query_only = 1")

    sa.event.listen(sqlite_store.db.engine.sync_engine, "connect", read_only)
    await sqlite_store.db.engine.dispose()
    assert await sqlite_store.queries.schema_revision() is not None
    # What was read just before may still be shown.
    async with asyncio.timeout(WAIT_S):
        while not (found := await reasons(receiver)):  # noqa: ASYNC110 - nobody tells us
            await asyncio.sleep(0.05)
    assert found == ["database: it is read-only"]


async def test_a_recent_commit_stands_for_the_database_until_one_fails(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    asked = []

    async def schema_revision() -> str | None:
        asked.append(True)
        raise OSError

    held.queries.schema_revision = schema_revision  # type: ignore[method-assign]
    held.gate.set()
    receiver = await start_receiver(held)
    await receiver.post(delivery_body())
    assert await reasons(receiver) == []
    assert asked == []
    held.error = OSError("disk full")
    await receiver.post(delivery_body())
    assert await reasons(receiver) == ["database: OSError"]


async def test_the_public_port_shows_no_metrics_unless_asked(receiver: Receiving) -> None:
    async with receiver.client.get("/metrics") as response:
        assert response.status == 404


async def test_metrics_count_answers_and_refusals(start_receiver: StartReceiver, store: Store) -> None:
    receiver = await start_receiver(store, public_metrics=True)
    await receiver.post(delivery_body())
    await receiver.post(delivery_body(), {})
    async with receiver.client.get("/metrics") as response:
        assert response.content_type == "text/plain"
        text = await response.text()
    for line in (
        'tallyhook_deliveries_total{answer="200"} 1.0',
        'tallyhook_deliveries_total{answer="401"} 1.0',
        'tallyhook_deliveries_refused_total{reason="missing_headers"} 1.0',
        "tallyhook_inbox_commit_deliveries_count 1.0",
        "tallyhook_inbox_commit_seconds_count 1.0",
        "tallyhook_inbox_waiting 0.0",
        "tallyhook_wake_failures_total 0.0",
    ):
        assert line in text.splitlines()
    assert SECRET not in text


def test_it_refuses_to_start_without_a_secret(clock: SteppedClock, held: HeldStore) -> None:
    for secrets in ((), ("",), (SECRET, "")):
        with pytest.raises(ConfigError, match="CLORO_WEBHOOK_SECRET"):
            create_app(held, WakeDouble(), secrets=secrets, limits=LIMITS, clock=clock)


async def test_f12_the_metrics_are_not_written_anew_for_everybody_who_asks(
    start_receiver: StartReceiver, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    receiver = await start_receiver(store, public_metrics=True)
    written: list[int] = []
    monkeypatch.setattr(scrape, "RENDERED_FOR_S", 3600.0)
    real = scrape.generate_latest
    monkeypatch.setattr(scrape, "generate_latest", lambda registry: written.append(1) or real(registry))
    for _ in range(20):
        async with receiver.client.get("/metrics") as response:
            assert b"tallyhook_inbox_waiting" in await response.read()
    assert len(written) == 1


async def test_f12_all_who_ask_at_once_cost_the_database_one_look(
    start_receiver: StartReceiver, held: HeldStore
) -> None:
    asked: list[int] = []

    async def schema_revision() -> str | None:
        asked.append(1)
        await held.gate.wait()
        return "0001"

    held.queries.schema_revision = schema_revision  # type: ignore[method-assign]
    receiver = await start_receiver(held)
    asking = [asyncio.create_task(reasons(receiver)) for _ in range(20)]
    await until(lambda: receiver.app[PROBES].ready_requests == 20)
    held.gate.set()
    assert await asyncio.gather(*asking) == [[]] * 20
    assert len(asked) == 1
    assert await reasons(receiver) == []
    assert len(asked) == 2, "nothing is kept for those who come later"
