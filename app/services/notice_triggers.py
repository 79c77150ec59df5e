"""Finds what is worth a notice, from the rows, on a timer: the hot paths write nothing for it.

A notice is stored under the dedupe key of its trigger, so any number of workers may look at once, or again
after one died, and each thing is sent once.
"""

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from app.domain.admission import month_start_ms
from app.domain.notices.failing_engines import EngineBounds, failing_engines
from app.domain.notices.notice import Notice, NoticeKind, NoticeState
from app.domain.notices.triggers import (
    RunSnapshot,
    balance_unknown,
    budget_reached,
    discrepancy,
    discrepancy_key,
    ended,
    external_usage,
    halted,
    run_edge,
    schedule_failed,
    set_aside,
)
from app.domain.run_reason import ReasonCode
from app.ports import Clock, StoreUnavailable
from app.services.isolated import Isolated

if TYPE_CHECKING:
    from app.store import Store

NEWS_MS = 24 * 3_600_000
"""What ended longer ago, when it is first looked at, is old news: kept as sent, and sent to nobody."""
ASIDE_MS = 7 * NEWS_MS
"""A delivery may be set aside days after it came."""
ENDS_MAX = 20
"""Ended runs of one look, because each is counted; the next look goes on."""
REMEMBERED_MAX = 10_000


class Watcher:
    """Looks for one process. What it remembers only spares it work."""

    def __init__(self, store: "Store", *, clock: Clock, engines: EngineBounds | None = None) -> None:
        self._store = store
        self._clock = clock
        self._engines = engines or EngineBounds()
        self._newest_finding = 0
        self._newest_result = 0
        self._perhaps_resumed: set[str] = set()
        self._known: set[str] = set()

    async def look(self) -> int:
        """One look at everything but the forecast; how many notices are new."""
        stored, isolated = 0, Isolated()
        with isolated.alone():
            stored += await self._look_at_runs(isolated)
        with isolated.alone():
            newest = await self._store.notice_triggers.newest_finding()
            if newest != self._newest_finding:
                stored += await self.tell(await self._discrepancies())
                self._newest_finding = newest
        with isolated.alone():
            newest = await self._store.notice_triggers.newest_result()
            if newest != self._newest_result:
                stored += await self.tell(await self._of_engines())
                self._newest_result = newest
        for about in (
            self._of_budgets,
            self._of_balances,
            self._of_inbox,
            self._of_external_usage,
            self._of_schedules,
        ):
            with isolated.alone():
                stored += await self.tell(await about())
        isolated.finish()
        return stored

    async def tell(self, found: Iterable[Notice]) -> int:
        """Store what is not stored yet; how many were new."""
        new = [notice for notice in found if notice.dedupe_key not in self._known]
        stored = await self._add(new)
        if len(self._known) > REMEMBERED_MAX:
            self._known.clear()
        self._known |= {notice.dedupe_key for notice in new}
        return stored

    async def _add(self, found: Sequence[Notice], *, state: NoticeState = NoticeState.NEW) -> int:
        now = self._clock()
        try:
            return await self._store.notices.add_notices(found, now, state=state)
        except StoreUnavailable:
            raise
        except Exception:
            # One of them cannot be stored: the others are.
            stored, isolated = 0, Isolated()
            for notice in found:
                with isolated.alone():
                    stored += await self._store.notices.add_notices([notice], now, state=state)
            if not stored:
                isolated.finish()
            return stored

    async def _look_at_runs(self, isolated: Isolated) -> int:
        now = self._clock()
        news: list[Notice] = []
        old: list[Notice] = []
        resumed: set[str] = set()
        await self._store.run_ends.finish_runs(now)
        for run in await self._store.notice_triggers.run_snapshots():
            with isolated.alone():
                edge = run_edge(run)
                if edge is NoticeKind.RUN_RESUMED:
                    # A run that paused for credits is tried every few minutes and refused at once: it goes on
                    # when it does so at two looks.
                    notice = run.notice(edge, f"Run {run.name} goes on.", now)
                    resumed.add(notice.dedupe_key)
                    news += [notice] if notice.dedupe_key in self._perhaps_resumed else []
                elif edge is NoticeKind.RUN_FINISHED:
                    if len(news) + len(old) < ENDS_MAX:
                        await self._add_end(run, now, news, old)
                elif edge is not None:
                    news.append(halted(run, edge, now))
        self._perhaps_resumed = resumed
        await self._add(old, state=NoticeState.LOGGED)
        return await self._add(news)

    async def _add_end(self, run: RunSnapshot, now: int, news: list[Notice], old: list[Notice]) -> None:
        progress = await self._store.queries.progress(run.id)
        if progress.open or not progress.tasks:
            return  # retried since it was looked at, or never filled
        ended_ms = now if run.finished_at_ms is None else run.finished_at_ms
        notice = ended(
            run,
            states=progress.states,
            verdicts=progress.verdicts,
            charged=progress.charged,
            held=progress.held,
            at_ms=ended_ms,
        )
        is_news = run.edges or max(ended_ms, run.created_at_ms) > now - NEWS_MS
        (news if is_news else old).append(notice)

    async def _discrepancies(self) -> list[Notice]:
        now = self._clock()
        found = []
        for group in await self._store.notice_triggers.finding_groups(now - NEWS_MS):
            if discrepancy_key(group) not in self._known:
                newest = await self._store.notice_triggers.newest_found(group.run_id, group.verdict)
                found.append(discrepancy(group, now, newest))
        return found

    async def _of_engines(self) -> list[Notice]:
        now = self._clock()
        if not self._engines.success_min:
            return []
        newest_first = await self._store.notice_triggers.newest_results(now - NEWS_MS)
        return list(failing_engines(newest_first, self._engines, now))

    async def _of_budgets(self) -> list[Notice]:
        now = self._clock()
        waiting = await self._store.notice_triggers.accounts_waiting(ReasonCode.MONTH_BUDGET)
        return [budget_reached(account, month_start_ms(now), now) for account in waiting]

    async def _of_balances(self) -> list[Notice]:
        found, now = [], self._clock()
        for account in await self._store.notice_triggers.accounts_waiting(ReasonCode.BALANCE_UNKNOWN):
            last = await self._store.accounts.last_balance(account, now)
            found.append(balance_unknown(account, None if last is None else last.at_ms, now))
        return found

    async def _of_inbox(self) -> list[Notice]:
        now = self._clock()
        return [
            set_aside(group, now) for group in await self._store.set_aside.set_aside_groups(now - ASIDE_MS)
        ]

    async def _of_external_usage(self) -> list[Notice]:
        now = self._clock()
        spent = await self._store.notice_triggers.external_usage(now - NEWS_MS)
        return [external_usage(usage, now) for usage in spent if usage.credits > 0]

    async def _of_schedules(self) -> list[Notice]:
        now = self._clock()
        return [
            schedule_failed(
                row.id,
                row.name,
                row.last_error,
                account=_account_of(row.options),
                next_at_ms=row.next_at_ms,
                now_ms=now,
            )
            for row in await self._store.schedules.list_schedules()
            if row.enabled and row.last_error
        ]


def _account_of(options: str) -> str:
    """Whose runs a schedule starts; the default account where its options cannot be read."""
    try:
        return str(json.loads(options)["account"])
    except (ValueError, LookupError, TypeError):
        return "default"
