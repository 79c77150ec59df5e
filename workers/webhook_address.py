"""Where the provider is told to deliver: PUBLIC_URL, else what a `web` that runs says of itself.

A worker cannot know it by its own PORT: under a Procfile each process has one of its own. Nothing is sent
until the address is known, since a task keeps the one that it was sent with: a wrong one costs its delivery.
"""

import asyncio
from collections.abc import Callable, Mapping

import structlog

from app.config import Settings
from app.provider.client import Client
from app.store import Store
from app.waiting import set_within

log = structlog.get_logger(__name__)

WEB_WAIT_S = 15.0
"""`web` is started with us and needs some seconds; one of the version before never says where it is."""
LOOK_EVERY_S = 0.2


class WebhookAddress:
    """What the clients of a worker process announce; they get each change."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        clients: Mapping[str, Client],
        *,
        monotonic: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._store = store
        self._clients = clients
        self._monotonic = monotonic
        self._wait_until_s: float | None = None
        self._strangers: list[str] = []
        self.announced: str | None = settings.public_url.rstrip("/") or None
        """None: nobody has said it yet."""

    async def refresh(self) -> bool:
        """Ask the database who takes deliveries; whether the address is known. Raises StoreUnavailable."""
        receivers = await self._store.health.receivers()
        running = [receiver.address for receiver in receivers if receiver.is_running]
        if self._settings.public_url:
            self._compare(running)
        elif running:
            self._announce(running[0], by="web")
        elif self.announced is None and self._has_waited():
            last = receivers[0].address if receivers else self._settings.address_at(self._settings.port)
            log.warning("webhook_address_assumed", address=last)
            self._announce(last, by="assumed")
        return self.announced is not None

    async def until_known(self, stopping: asyncio.Event) -> None:
        """Wait until the address is known, or until a stop. Raises StoreUnavailable."""
        while not await self.refresh() and not stopping.is_set():
            await set_within(stopping, LOOK_EVERY_S)

    def _has_waited(self) -> bool:
        if self._wait_until_s is None:
            self._wait_until_s = self._monotonic() + WEB_WAIT_S
            log.info("webhook_address_awaited", within_s=WEB_WAIT_S)
        return self._monotonic() >= self._wait_until_s

    def _announce(self, address: str, *, by: str) -> None:
        if address == self.announced:
            return
        self.announced = address
        accounts = self._settings.reached_at(address).all_accounts()
        for name, client in self._clients.items():
            client.webhook_url = accounts[name].webhook_url
        log.info("webhook_address", address=address, by=by)

    def _compare(self, running: list[str]) -> None:
        """Say once that no `web` is where we send the provider."""
        strangers = [] if self.announced in running else running
        if strangers and strangers != self._strangers:
            log.warning("webhook_address_mismatch", announced=self.announced, web=strangers)
        self._strangers = strangers
