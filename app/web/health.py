"""Health and readiness, for an orchestrator. Decides nothing about a delivery."""

import asyncio
import time
from typing import TYPE_CHECKING

import structlog
from aiohttp import web

from app.ports import Clock
from app.signals.scrape import readiness
from app.store.driver_errors import why_no_writes
from app.web.metrics import Metrics
from app.web.receiver.clock_offset import ClockOffset
from app.web.receiver.inbox import Inbox

if TYPE_CHECKING:
    from app.store import Store

log = structlog.get_logger(__name__)

COMMIT_PROVES_FOR_S = 5.0
"""A commit this recent shows that the database works; otherwise it is tried."""
DATABASE_TIMEOUT_S = 2.0
PROBE_BYTES = 65_536
"""As large as a delivery is at most, but for the rarest."""


class Probes:
    """Handlers of /healthz and /readyz. `draining` is set when the process is asked to end."""

    def __init__(
        self,
        store: "Store",
        inbox: Inbox,
        offset: ClockOffset,
        metrics: Metrics,
        *,
        window_s: int,
        clock: Clock,
    ) -> None:
        self._store = store
        self._inbox = inbox
        self._offset = offset
        self._metrics = metrics
        self._window_s = window_s
        self._clock = clock
        self.draining = False
        self.ready_requests = 0
        """How often /readyz was requested."""
        self._ready_check: asyncio.Task[list[str]] | None = None
        metrics.add_gauge(
            "tallyhook_inbox_waiting", "Deliveries read but not committed", lambda: inbox.waiting
        )
        metrics.add_gauge(
            "tallyhook_inbox_waiting_bytes", "Bytes of those deliveries", lambda: inbox.waiting_bytes
        )
        metrics.add_gauge(
            "tallyhook_clock_offset_seconds",
            "Our clock minus the provider's, median of the last deliveries; NaN when unknown",
            lambda: float("nan") if (offset_s := self.offset_s()) is None else offset_s,
        )

    async def health(self, _request: web.Request) -> web.Response:
        """200 while the process does its work; says nothing about the database. 503 when a task of it is
        dead: then the process ends by itself, and killing it by this probe is right too."""
        if not self.draining and self._inbox.is_dead:
            return web.Response(status=503, text="dead\n")
        return web.Response(text="ok\n")

    async def ready(self, _request: web.Request) -> web.Response:
        """200, or 503 with every reason why deliveries should go elsewhere."""
        # The path is as public as the webhook's: one look at the database answers all requests meanwhile.
        self.ready_requests += 1
        if self._ready_check is None or self._ready_check.done():
            self._ready_check = asyncio.create_task(self.unready_reasons(), name="readiness")
        reasons = await asyncio.shield(self._ready_check)
        return readiness(reasons)

    async def unready_reasons(self) -> list[str]:
        """Why this process is not ready; empty when it is."""
        reasons = ["draining: the process is ending"] if self.draining else []
        refusal = self._inbox.refusal_reason
        if refusal is not None and not self.draining:
            reasons.append(f"inbox {refusal}")
        offset_s = self.offset_s()
        if offset_s is not None and abs(offset_s) > self._window_s:
            side = "ahead of" if offset_s > 0 else "behind"
            reasons.append(
                f"clock {abs(offset_s):.0f} s {side} the provider's, so deliveries are refused: "
                "set this machine's time"
            )
        if not self._committed_recently():
            reasons.extend(await self._database_reasons())
        return reasons

    def offset_s(self) -> float | None:
        """Seconds that our clock is ahead; None when too little is known."""
        return self._offset.median_s(now_s=self._clock() / 1000, monotonic_s=time.monotonic())

    def _committed_recently(self) -> bool:
        last_s = self._inbox.last_commit_s
        return (
            self._inbox.last_error is None
            and last_s is not None
            and time.monotonic() - last_s < COMMIT_PROVES_FOR_S
        )

    async def _database_reasons(self) -> list[str]:
        try:
            async with asyncio.timeout(DATABASE_TIMEOUT_S):
                revision = await self._store.queries.schema_revision()
                if revision is not None:
                    # A read proves nothing: a full disk and a read-only server answer it. After a commit that
                    # failed a small row is no proof either, because some room is always left over.
                    wanted = PROBE_BYTES if self._inbox.last_error is not None else 0
                    await self._store.health.try_write(keep=True, bytes_wanted=wanted)
        except TimeoutError:
            return [f"database: no answer within {DATABASE_TIMEOUT_S:g} s"]
        except Exception as error:
            # Only the kind goes out: the text of a database error can name hosts and users.
            return [f"database: {why_no_writes(error) or type(error).__name__}"]
        return ["database: never migrated, run `tallyhook migrate`"] if revision is None else []
