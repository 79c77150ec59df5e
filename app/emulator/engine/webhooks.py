"""Webhooks: the signature of each attempt (C-I.2, C-I.3), the retry ladder, and a bounded number of requests
at once (C-I.5)."""

import asyncio
import hashlib
import hmac
import logging
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, cast

import aiohttp

from app.emulator.billing.organizations import Organization
from app.emulator.engine import faults
from app.emulator.engine.clock import Clock, iso
from app.emulator.engine.options import Options
from app.emulator.engine.tasks import Task
from app.emulator.engine.timeline import Timeline

log = logging.getLogger(__name__)

_RECENT_MAX = 50
_STALE_S = 301.0
"""One second past the receiver's window (C-I.3)."""


@dataclass(slots=True, eq=False)
class Delivery:
    """One copy of one task's report on its way; a duplicate is a second copy with a ladder of its own."""

    organization: Organization
    task: Task
    copy: int
    attempts: int = 0
    """Finished ones, of this copy."""
    payload: dict[str, Any] = field(init=False)
    """Kept here, since the record may pass its retention while a held-back copy waits."""

    def __post_init__(self) -> None:
        self.payload = self.task.payload or {}


class Deliveries:
    """Sends what is due. Workers exist only while there is something to send."""

    def __init__(
        self,
        options: Options,
        clock: Clock,
        timeline: Timeline,
        body_of: Callable[[Task, dict[str, Any]], bytes],
    ) -> None:
        self._options = options
        self._clock = clock
        self._timeline = timeline
        self._body_of = body_of
        self._ready: deque[Delivery] = deque()
        self._workers: set[asyncio.Task[None]] = set()
        self._session: aiohttp.ClientSession | None = None
        self.recent: deque[dict[str, Any]] = deque(maxlen=_RECENT_MAX)

    async def open(self) -> None:
        """Start sending; what fell due before is sent now."""
        limit = self._options.deliveries_in_flight_max
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=limit, ttl_dns_cache=300, keepalive_timeout=30),
            timeout=aiohttp.ClientTimeout(total=self._options.delivery_timeout_s),
            auto_decompress=False,
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._spawn()

    async def close(self) -> None:
        """Stop at once: attempts in flight are abandoned."""
        for worker in self._workers:
            worker.cancel()
        await asyncio.gather(*self._workers, return_exceptions=True)
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def idle(self) -> None:
        """Wait until nothing is ready or in flight; retries that are not due yet do not count."""
        while self._workers:
            await asyncio.wait(set(self._workers))

    def schedule(self, organization: Organization, task: Task, now_s: float) -> None:
        """The report of a finished task, with what its fate does to it (C-I.1)."""
        if task.fate.drops:
            organization.totals.deliveries_dropped += 1
            return
        for copy in range(2 if task.fate.duplicates else 1):
            organization.pending_deliveries += 1
            delivery = Delivery(organization, task, copy)
            held_s = self._held_back_s(task, copy)
            if held_s:
                self._timeline.at(now_s + held_s, partial(self._due, delivery))
            else:
                self._due(delivery, now_s)

    def _held_back_s(self, task: Task, copy: int) -> float:
        options = self._options
        shuffled_s = faults.delay_s(options.faults, options.fault_seed, task.number, copy)
        return task.fate.late_s + shuffled_s * (self._clock.scale or 1.0)

    def _due(self, delivery: Delivery, now_s: float) -> None:
        self._ready.append(delivery)
        self._spawn()

    def _spawn(self) -> None:
        if self._session is None:
            return
        while len(self._workers) < min(self._options.deliveries_in_flight_max, len(self._ready)):
            worker = asyncio.get_running_loop().create_task(self._work())
            self._workers.add(worker)
            worker.add_done_callback(self._workers.discard)

    async def _work(self) -> None:
        while self._ready:
            delivery = self._ready.popleft()
            delivery.task.attempts_sent += 1
            attempt = delivery.task.attempts_sent
            try:
                status = await self._attempt(delivery, attempt)
            except Exception as error:
                # A bug in one delivery: tried again like one that was not answered.
                error.add_note(f"task {delivery.task.id}")  # no field: nothing formats our log
                log.exception("delivery_attempt_failed")
                status = 0
            self._settle(delivery, status, attempt)
        # Now, not when the loop calls back: what falls due in between would count on this worker.
        self._workers.discard(cast("asyncio.Task[None]", asyncio.current_task()))

    async def _attempt(self, delivery: Delivery, attempt: int) -> int:
        """The status; see `_post`."""
        task, organization = delivery.task, delivery.organization
        body = self._body_of(task, delivery.payload)
        fault = task.fate.first_attempt if attempt == 1 else None
        wall_s = self._clock.wall() - (_STALE_S if fault == faults.STALE_TIMESTAMP else 0.0)
        headers = signed_headers(organization.webhook_secret, task.id, attempt, wall_s, body)
        headers["Content-Type"] = "application/json"
        if fault == faults.BAD_SIGNATURE and "X-Cloro-Signature" in headers:
            headers["X-Cloro-Signature"] = "v1=" + "0" * 64
        elif fault == faults.TRUNCATED_BODY:
            body = body[: len(body) // 2]
        task.sent += 1
        organization.totals.deliveries_sent += 1
        return await self._post(task.webhook_url or "", body, headers)

    async def _post(self, url: str, body: bytes, headers: dict[str, str]) -> int:
        """The status, or 0 for anything that is not an HTTP answer. Redirects are not followed (C-L row
        L17)."""
        session = self._session
        if session is None:
            return 0
        try:
            async with session.post(url, data=body, headers=headers, allow_redirects=False) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError):
            return 0

    def _settle(self, delivery: Delivery, status: int, attempt: int) -> None:
        task, organization = delivery.task, delivery.organization
        now_s = self._clock.now()
        delivery.attempts += 1
        acked = 200 <= status < 300
        self.recent.append(
            {
                "organization": organization.name,
                "task": task.id,
                "attempt": attempt,
                "status": status,
                "at": iso(now_s),
            }
        )
        if acked:
            task.acked += 1
            organization.totals.deliveries_acked += 1
            organization.pending_deliveries -= 1
            if task.first_ack_s is None:
                task.first_ack_s = now_s
        elif delivery.attempts <= len(self._options.ladder_s):
            wait_s = self._wait_s(task, delivery.attempts)
            self._timeline.at(now_s + wait_s, partial(self._due, delivery))
        else:
            organization.pending_deliveries -= 1
            organization.totals.deliveries_given_up += 1

    def _wait_s(self, task: Task, attempt: int) -> float:
        options = self._options
        rung_s = options.ladder_s[attempt - 1]
        return faults.jittered(rung_s, options.switches.ladder_jitter, options.seed, task.number, attempt)


def signature(secret: str, timestamp: str, body: bytes) -> str:
    """`v1=` and 64 lower-case hex digits. The whole secret is the key, `whsec_` included."""
    return "v1=" + hmac.digest(secret.encode(), timestamp.encode() + b"." + body, hashlib.sha256).hex()


def signed_headers(
    secret: str | None, task_id: str, attempt: int, wall_s: float, body: bytes
) -> dict[str, str]:
    """The three headers of a signed delivery, none when signing is off. The timestamp is the real clock's,
    because the receiver compares it with its own."""
    if secret is None:
        return {}
    timestamp = str(int(wall_s))
    return {
        "X-Cloro-Timestamp": timestamp,
        "X-Cloro-Signature": signature(secret, timestamp, body),
        "X-Cloro-Webhook-Id": f"{task_id}-{attempt}",
    }
