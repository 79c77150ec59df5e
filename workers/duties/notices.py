"""Writes and sends notices in parallel with the sweep: a receiver that is away must not hold the sweep up.

One worker at a time looks for news; every worker sends what is stored.
"""

import asyncio
import contextlib
import itertools
import json
import uuid
from collections.abc import Sequence

import structlog

from app.config import Account
from app.domain.engine_pauses import EnginePause
from app.domain.notices.failing_engines import EngineBounds
from app.domain.notices.notice import DueNotice, NoticeKind, NoticeState, Outcome
from app.domain.state_gauges import Reading
from app.limits import to_ms
from app.notice_client import open_notice_client
from app.ports import StoreUnavailable
from app.services.engine_pauses import EnginePauses
from app.services.forecast import look_ahead
from app.services.isolated import Isolated
from app.services.notice_triggers import Watcher
from app.services.notify import Notifier
from app.services.state import forecast_readings
from workers.context import Context
from workers.periodic import run_every

log = structlog.get_logger(__name__)

LEASE = "notices"
LEASE_MS = 60_000
"""Prolonged at each look, so that one worker goes on looking; replaced when it ends or looks no more."""
SHOWN_S = 50.0
"""What a look told is shown: longer than between two looks, shorter than the lease."""
LOOK_SHARE = 100
"""Looking may take a hundredth of the time: with many open tasks a look counts many rows, and what the
database does for it, it does not do for the run."""
REST_MAX_S = 15.0
"""But no longer between two looks: on a busy machine each takes long, and an engine goes on failing."""
QUIET = frozenset({NoticeKind.RUN_FINISHED, NoticeKind.RUN_RESUMED, NoticeKind.TEST})
"""Kinds that need nobody: logged as information, the others as warnings."""


async def run_notices(context: Context) -> None:
    """Look, log and send every few seconds, until the process stops."""
    async with contextlib.AsyncExitStack() as stack:
        poster = open_notice_client(context.settings)
        post = None if poster is None else (await stack.enter_async_context(poster)).post
        notifier = Notifier(
            context.store, post, limits=context.settings, clock=context.clock, jitter=context.jitter
        )
        looker = Looker(context)

        async def look_and_send() -> int:
            try:
                await looker.look()
            finally:
                sent = await send(notifier)
            return sent

        every_s = context.settings.notice_every_s
        try:
            await run_every(
                look_and_send,
                name="notices",
                every_s=every_s,
                stopping=context.stopping,
                watch=context.signals,
            )
        finally:
            await looker.leave()


class Looker:
    """Looks for news in whichever worker holds the lease."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._owner = uuid.uuid4().hex
        limits = context.settings
        engines = EngineBounds(limits.engine_success_min, limits.engine_tasks, limits.usable_chars_min)
        self._watcher = Watcher(context.store, clock=context.clock, engines=engines)
        self._pauses = EnginePauses(
            context.store,
            clock=context.clock,
            jitter=context.jitter,
            bounds=engines,
            probe_every_ms=to_ms(limits.engine_probe_every_s),
        )
        self._looked_ahead_ms: int | None = None
        self._forecasts: dict[str, list[Reading]] = {}
        self._again_s = 0.0

    async def look(self) -> None:
        """One look at the rows; now and then, one ahead. Nothing while another worker looks, or too soon."""
        monotonic_s = asyncio.get_running_loop().time
        started_s = monotonic_s()
        if started_s >= self._again_s:
            await self._look()
            self._again_s = monotonic_s() + min(REST_MAX_S, LOOK_SHARE * (monotonic_s() - started_s))

    async def leave(self) -> None:
        """Look no more, so that another worker need not wait for the end of the lease."""
        self._context.signals.board.drop(LEASE)
        with contextlib.suppress(StoreUnavailable):
            await self._context.store.runs.release_lease(LEASE, self._owner)

    async def _look(self) -> None:
        store, now = self._context.store, self._context.clock()
        board = self._context.signals.board
        if not await store.runs.acquire_lease(LEASE, self._owner, until_ms=now + LEASE_MS, now_ms=now):
            self._forecasts.clear()
            board.drop(LEASE)
            return
        board.keep(LEASE, for_s=SHOWN_S)
        isolated = Isolated()
        with isolated.alone():
            await self._watcher.look()
        with isolated.alone():
            for pause in await self._pauses.look():
                _tell_pause(pause)
        every_ms = self._context.settings.forecast_every_s * 1000
        if self._looked_ahead_ms is None or not 0 <= now - self._looked_ahead_ms < every_ms:
            self._looked_ahead_ms = now
            for name, account in self._context.settings.all_accounts().items():
                with isolated.alone():
                    await self._look_ahead(name, account)
            board.put(LEASE, itertools.chain(*self._forecasts.values()), for_s=SHOWN_S)
        isolated.finish()

    async def _look_ahead(self, name: str, account: Account) -> None:
        now = self._context.clock()
        at_work = (await self._context.store.accounts.outstanding(name)).tasks
        seen = await look_ahead(
            self._context.store,
            name,
            provider=self._context.providers.get(name) if at_work else None,
            rate_per_s=account.rate_per_s,
            now_ms=now,
        )
        self._forecasts[name] = forecast_readings(name, seen)
        await self._watcher.tell(one.notice(name, now) for one in seen.warnings if one.is_sure)


async def send(notifier: Notifier) -> int:
    """One turn of sending, and a line in the log for each notice at its first try. How many were tried."""
    ended = await notifier.send_due()
    tell(ended)
    return len(ended)


def tell(ended: Sequence[tuple[DueNotice, Outcome]]) -> None:
    """What is new, and what a receiver did not take."""
    for notice, outcome in ended:
        about = {"notice": notice.id, "kind": notice.kind, "account": notice.account, "run": notice.run_id}
        if notice.tries == 1:
            level = log.info if notice.kind in QUIET else log.warning
            level("notice", **about, message=_message_of(notice))
        if outcome.state is NoticeState.FAILED:
            log.error("notice_given_up", **about, tries=notice.tries, error=outcome.error)
        elif outcome.error is not None:
            log.warning("notice_not_taken", **about, tries=notice.tries, error=outcome.error)


def _tell_pause(pause: EnginePause) -> None:
    about = {"account": pause.account, "engine": pause.task_type}
    if pause.paused_at_ms is None:
        log.info("engine_resumed", **about)
    else:
        log.warning("engine_paused", **about, tasks=pause.tasks, usable=pause.usable)


def _message_of(notice: DueNotice) -> str:
    try:
        return str(json.loads(notice.body)["data"]["message"])
    except (ValueError, LookupError, TypeError):
        return "its body cannot be read"
