"""What the receiver's tests share: deliveries as the provider sends them, and doubles for its two outer
edges, a store whose commit can be held and a queue that misbehaves.
"""

import asyncio
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import sqlalchemy as sa
from aiohttp import ClientResponse, web
from aiohttp.test_utils import TestClient

from app.domain.delivery import RawDelivery
from app.limits import Limits
from app.provider.signature import sign
from app.store import Store
from app.store.tables import deliveries
from app.store.write.inbox import RAW_COLUMNS, raw_delivery
from app.web.server import INBOX, METRICS
from tests.clock import SteppedClock

SECRET = "whsec_test_0123456789abcdef0123456789abcdef"
OLD_SECRET = "whsec_test_before_the_rotation"
PATH = "/webhooks/cloro"
WAIT_S = 20.0
"""Longer than anything takes on two busy cores; only a failure waits this long."""


class WebLimits(Limits):
    """With less in one wake."""

    wake_size: ClassVar[int] = 200


LIMITS = WebLimits(
    body_bytes_max=1024 * 1024,
    body_read_timeout_s=WAIT_S,
    deliveries_waiting_max=1_000,
    waiting_bytes_max=16 * 1024 * 1024,
    commit_timeout_s=WAIT_S,
    wake_delay_s=0.0,
)


def delivery_body(number: int = 0, text: str = "Café — ok") -> bytes:
    """A finished task, as C-I.1 has it."""
    return json.dumps(
        {
            "task": {
                "id": f"b27a21e1-7c39-4aa2-a347-{number:012x}",
                "taskType": "CHATGPT",
                "status": "COMPLETED",
                "idempotencyKey": f"018f0000-0000-7000-8000-{number:012x}.1",
            },
            "credits": {"creditsToCharge": 7, "creditsCharged": 7},
            "response": {"text": text, "sources": []},
        },
        ensure_ascii=False,
    ).encode()


def signed(body: bytes, signed_s: int, *, secret: str = SECRET, attempt: int = 1) -> dict[str, str]:
    """The headers of C-I.2."""
    return {
        "Content-Type": "application/json",
        "X-Cloro-Timestamp": str(signed_s),
        "X-Cloro-Signature": sign(secret, str(signed_s), body),
        "X-Cloro-Webhook-Id": f"b27a21e1-7c39-4aa2-a347-23e828c426f9-{attempt}",
    }


async def until(condition: Callable[[], bool], timeout_s: float = WAIT_S) -> None:
    """Wait for a condition; raises TimeoutError."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110 - conditions of any kind
            await asyncio.sleep(0.002)


async def stored(store: Store) -> list[RawDelivery]:
    """Every delivery in the inbox, oldest first."""

    async def work(connection: object) -> list[RawDelivery]:
        rows = await connection.execute(sa.select(*RAW_COLUMNS).order_by(deliveries.c.id))  # type: ignore[attr-defined]
        return [raw_delivery(row) for row in rows]

    return await store.db.read(work)


@dataclass
class WakeDouble:
    """Takes ids; can refuse, raise, or hang until `released`."""

    taken: list[str] = field(default_factory=list)
    calls: list[list[str]] = field(default_factory=list)
    takes: bool = True
    error: Exception | None = None
    hangs: bool = False
    released: asyncio.Event = field(default_factory=asyncio.Event)

    async def wake_settle(self, delivery_ids: Sequence[str]) -> bool:
        self.calls.append(list(delivery_ids))
        if self.hangs:
            await self.released.wait()
        if self.error is not None:
            raise self.error
        if self.takes:
            self.taken.extend(delivery_ids)
        return self.takes


@dataclass
class HeldStore:
    """A store whose commits wait for `gate`, and then fail with `error` if there is one."""

    gate: asyncio.Event = field(default_factory=asyncio.Event)
    groups: list[list[RawDelivery]] = field(default_factory=list)
    committed: list[RawDelivery] = field(default_factory=list)
    due_at_ms: list[int] = field(default_factory=list)
    error: Exception | None = None
    deaf: bool = False
    """Does not end when it is cancelled, as a database that hangs."""

    def __post_init__(self) -> None:
        # Every part of the store that a receiver uses.
        self.inbox = self.queries = self.health = self.set_aside = self.partitions = self

    async def store_deliveries(
        self, raw: Sequence[RawDelivery], *, due_at_ms: int, more: object = None
    ) -> set[str]:
        self.groups.append(list(raw))
        self.due_at_ms.append(due_at_ms)
        try:
            await self.gate.wait()
        except asyncio.CancelledError:
            if not self.deaf:
                raise
            await self.gate.wait()
            raise
        if self.error is not None:
            raise self.error
        known = {delivery.id for delivery in self.committed}
        self.committed.extend(raw)
        return known

    async def try_write(self, *, keep: bool = False, bytes_wanted: int = 0) -> None:
        if self.error is not None:
            raise self.error

    async def schema_revision(self) -> str | None:
        return "0001"


@dataclass
class Receiving:
    """A receiver on a loopback port, with what surrounds it."""

    app: web.Application
    client: TestClient[web.Request, web.Application]
    clock: SteppedClock
    wake: WakeDouble

    @property
    def now_s(self) -> int:
        return self.clock() // 1000

    async def post(
        self, body: bytes, headers: Mapping[str, str] | None = None, *, data: object = None
    ) -> ClientResponse:
        """One delivery, signed now unless `headers` are given; `data` is what goes over the wire if it is
        not `body`. The answer is read."""
        sent = signed(body, self.now_s) if headers is None else headers
        # As a file: aiohttp's client warns of large bytes.
        content = io.BytesIO(body) if data is None else data
        response = await self.client.post(PATH, data=content, headers=sent)
        await response.read()
        return response

    def post_soon(self, body: bytes) -> "asyncio.Task[ClientResponse]":
        """The same, as a task."""
        return asyncio.create_task(self.post(body))

    def count(self, name: str, **labels: str) -> float:
        """A metric's value; 0 when it was never counted."""
        return self.app[METRICS].registry.get_sample_value(name, labels) or 0.0

    def refused(self, reason: str) -> float:
        """How many deliveries were refused for this reason."""
        return self.count("tallyhook_deliveries_refused_total", reason=reason)

    @property
    def waiting(self) -> int:
        return self.app[INBOX].waiting
