"""Which address workers announce: PUBLIC_URL, else what a `web` that runs says of itself."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from app.cli.doctor.configuration import check_configuration
from app.config import Settings, load_settings
from app.database_clock import DatabaseClock
from app.provider.client import Client
from app.provider.ratelimit.pacing import Pacer
from app.store import Store
from app.store.tables import processes
from app.store.write.health import RUNS_WITHIN_MS, Receiver
from app.web.presence import stay_known
from workers.webhook_address import WEB_WAIT_S, WebhookAddress

ONE, OTHER = "01a0f4c2-c400-7000-8000-000000000001", "01a0f4c2-c400-7000-8000-000000000002"
ACCOUNTS = '{"eu": {"api_key": "k", "webhook_secret": "s"}}'


def settings_of(**values: Any) -> Settings:
    """With a PORT that is no `web`'s, as a Procfile gives one to every process."""
    return load_settings(_env_file=None, PORT=5200, accounts=ACCOUNTS, **values)


class Scene:
    """A worker's address, its clients, and a clock that is set."""

    def __init__(self, store: Store, settings: Settings) -> None:
        self.now_s = 0.0
        self.clients: Mapping[str, Client] = {
            name: Client(
                base_url=account.base_url,
                api_key=account.api_key,
                webhook_url=account.webhook_url,
                pacer=Pacer(500),
                timeout_s=1.0,
                connections=1,
            )
            for name, account in settings.all_accounts().items()
        }
        self.address = WebhookAddress(settings, store, self.clients, monotonic=lambda: self.now_s)

    def announced(self) -> list[str | None]:
        return [client.webhook_url for client in self.clients.values()]


async def test_nothing_is_announced_before_web_says_where_it_is(store: Store) -> None:
    scene = Scene(store, settings_of())
    waiting = asyncio.create_task(scene.address.until_known(asyncio.Event()))
    assert not await scene.address.refresh()
    await store.health.beat(ONE, "web", "http://127.0.0.1:5100")
    async with asyncio.timeout(20):
        await waiting
    assert scene.announced() == [
        "http://127.0.0.1:5100/webhooks/cloro",
        "http://127.0.0.1:5100/webhooks/cloro/eu",
    ]
    # Started again elsewhere: the newest one counts, and the others are told from then on.
    await store.health.end_process(ONE, "web")
    await store.health.beat(OTHER, "web", "http://127.0.0.1:5700")
    assert await scene.address.refresh()
    assert scene.announced()[0] == "http://127.0.0.1:5700/webhooks/cloro"
    # While none runs, the last one stays.
    await store.health.end_process(OTHER, "web")
    assert await scene.address.refresh()
    assert scene.address.announced == "http://127.0.0.1:5700"


async def test_a_web_that_never_says_it_is_waited_for_and_then_assumed(store: Store) -> None:
    scene = Scene(store, settings_of())
    with capture_logs() as logs:
        assert not await scene.address.refresh()
        scene.now_s = WEB_WAIT_S
        assert await scene.address.refresh()
    assert [line["event"] for line in logs] == [
        "webhook_address_awaited",
        "webhook_address_assumed",
        "webhook_address",
    ]
    assert scene.address.announced == "http://127.0.0.1:5200"


async def test_the_last_web_is_assumed_before_a_port_of_ours(store: Store) -> None:
    await store.health.beat(ONE, "web", "http://127.0.0.1:5100")
    long_ago = sa.update(processes).values(seen_at_ms=processes.c.seen_at_ms - RUNS_WITHIN_MS - 1_000)
    await store.db.write(lambda connection: connection.execute(long_ago))
    assert await store.health.receivers() == [Receiver("http://127.0.0.1:5100", False)]
    scene = Scene(store, settings_of())
    assert not await scene.address.refresh()
    scene.now_s = WEB_WAIT_S
    assert await scene.address.refresh()
    assert scene.address.announced == "http://127.0.0.1:5100"


@pytest.mark.parametrize("public", ["https://hooks.example.com", "https://hooks.example.com/"])
async def test_public_url_counts_and_another_one_of_web_is_said_once(store: Store, public: str) -> None:
    settings = settings_of(PUBLIC_URL=public)
    scene = Scene(store, settings)
    with capture_logs() as logs:
        assert await scene.address.refresh()
        await store.health.beat(ONE, "web", "https://hooks.example.com")
        assert await scene.address.refresh()
        assert not logs
        await store.health.beat(ONE, "web", "http://127.0.0.1:5100")
        assert await scene.address.refresh()
        assert await scene.address.refresh()
    assert [line["event"] for line in logs] == ["webhook_address_mismatch"]
    assert scene.announced()[0] == "https://hooks.example.com/webhooks/cloro"
    told = {check.name: check for check in check_configuration(settings, ["http://127.0.0.1:5100"])}
    assert told["address of web"].state == "warning"
    assert "web says that it is at http://127.0.0.1:5100" in told["address of web"].detail
    assert len(check_configuration(settings, ["https://hooks.example.com"])) == 3


async def test_web_says_that_it_runs_and_that_it_has_ended(store: Store) -> None:
    clock = DatabaseClock()
    known = asyncio.create_task(stay_known(store, clock, "http://h"))

    async def told() -> list[Receiver]:
        async with asyncio.timeout(20):
            while not (found := await store.health.receivers()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        return found

    assert await told() == [Receiver("http://h", True)]
    known.cancel()
    await asyncio.gather(known, return_exceptions=True)
    assert await store.health.receivers() == [Receiver("http://h", False)]
    assert cast(float, clock._ahead_ms) is not None, "the database's time came by the way"
