"""The commands forecast and notices on an embedded SQLite file, without a worker."""

import asyncio
import threading
from collections.abc import Iterator
from decimal import Decimal

import pytest
from aiohttp import web

from app.domain.accounting.balances import Balance
from app.store import Store
from tests.e2e.test_cli import Cli, cli, here, on_store, restored_logging
from tests.integration.notices.receiver import Receiver, receiving

__all__ = ["cli", "here", "restored_logging"]

SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    """In a thread of its own: the commands run a loop of theirs."""
    ready, opened, loop = threading.Event(), [], asyncio.new_event_loop()
    stop = asyncio.Event()

    async def serve() -> None:
        async with receiving(SECRET) as one:
            opened.append(one)
            ready.set()
            await stop.wait()

    thread = threading.Thread(target=loop.run_until_complete, args=[serve()])
    thread.start()
    try:
        assert ready.wait(10)
        yield opened[0]
    finally:
        loop.call_soon_threadsafe(stop.set)
        thread.join(10)
        loop.close()


def test_a_forecast_of_a_new_run(cli: Cli) -> None:
    assert cli("forecast").out.endswith("No task is open.\n")
    cli("submit good.csv --name monday")
    document = cli("forecast monday --json").document
    (run,) = document["runs"]
    assert (run["run"]["name"], run["open"], run["cost"]["likely"]) == ("monday", 2, 9)
    assert (document["measured"], document["balance"], document["warnings"]) == (False, None, [])
    ends = run["ends"]
    assert document["at"] < ends["earliest"] < ends["likely"] < ends["latest"]

    async def store_low_balance(store: Store) -> None:
        from app.bootstrap import now_ms

        await store.accounts.store_balance("default", Balance(now_ms(), Decimal(7), None, None))

    on_store(store_low_balance)
    document = cli("forecast latest --json").document
    assert [one["kind"] for one in document["warnings"]] == ["credits.low", "credits.short"]
    assert document["available"] == {"low": 7, "likely": 7, "high": 7}
    assert document["runs_out"]["likely"] > document["at"]
    drawn = cli("forecast").out
    assert "credits.low: Account default has 7 credits left." in drawn
    assert "9 (5 to 14) credits" in drawn and "a guess by the slots" in drawn
    cli("pause monday")
    (run,) = cli("forecast --json").document["runs"]
    assert run["why_not"] == "paused: paused by hand"


def test_wrong_options_of_a_forecast(cli: Cli) -> None:
    cli("submit good.csv --name monday")
    for line, code in (
        ("forecast monday --account eu --json", "bad_option"),
        ("forecast --account nobody --json", "unknown_account"),
        ("forecast tuesday --json", "run_not_found"),
    ):
        ended = cli(line)
        assert (ended.code, ended.document["error"]["code"]) == (1 if "not_found" in code else 2, code)


def test_notices_are_listed(cli: Cli) -> None:
    assert cli("notices").out.startswith("Nothing was told yet.")
    cli("submit good.csv --name monday")
    cli("cancel monday")

    async def look(store: Store) -> None:
        from app.bootstrap import now_ms
        from app.services.notice_triggers import Watcher

        assert await Watcher(store, clock=now_ms).look() == 1

    on_store(look)
    (row,) = cli("notices --json").document["notices"]
    assert (row["kind"], row["state"], row["tries"]) == ("run.finished", "new", 0)
    assert row["data"]["message"] == "Run monday is cancelled: 2 cancelled; 0 credits charged."
    assert "Run monday is cancelled" in cli("notices --limit 1").out


def test_the_receiver_is_tested(cli: Cli, receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    nowhere = cli("notices test --json")
    assert (nowhere.code, nowhere.document["error"]["code"]) == (2, "no_receiver")
    monkeypatch.setenv("TALLYHOOK_NOTICE_URL", receiver.url)
    unsigned = cli("notices test --json")
    assert (unsigned.code, unsigned.document["error"]["code"]) == (2, "configuration")
    monkeypatch.setenv("TALLYHOOK_NOTICE_SECRET", SECRET)
    taken = cli("notices test --json")
    assert (taken.code, taken.document["taken"], receiver.types) == (0, True, ["test"])
    receiver.answers.append(web.Response(status=302, headers={"Location": "/elsewhere"}))
    refused = cli("notices test")
    assert (refused.code, receiver.elsewhere) == (1, 0)
    assert "did not take the test notice: HTTP 302" in refused.out
    assert SECRET not in taken.out + taken.err + refused.out + refused.err
    other = "whsec_" + "A" * 32
    monkeypatch.setenv("TALLYHOOK_NOTICE_SECRET", other)
    assert cli("notices test --json").document["status"] == 401
    monkeypatch.setenv("TALLYHOOK_NOTICE_SECRET", f"{other},{SECRET}")
    assert cli("notices test --json").document["taken"], "both sign while the secret is being changed"
