"""Pauses engines whose answers fail, for the runs that want it, and lets them go on, by the rows, on a timer.

One worker at a time looks. What is paused is stored, and claims keep to it (store/write/engine_pauses.py).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from app.domain.engine_pauses import EnginePause, after_results, new_pauses, pause_reason, probe_after_ms
from app.domain.notices.failing_engines import EngineBounds
from app.ports import Clock, Jitter

if TYPE_CHECKING:
    from app.store import Store

JUDGED_MS = 24 * 3_600_000
"""Older results say nothing of an engine now."""


class EnginePauses:
    """Looks for one process. What it remembers only spares it work."""

    def __init__(
        self, store: "Store", *, clock: Clock, jitter: Jitter, bounds: EngineBounds, probe_every_ms: int
    ) -> None:
        self._store = store
        self._clock = clock
        self._jitter = jitter
        self._bounds = bounds
        self._probe_every_ms = probe_every_ms
        self._newest_result: int | None = None
        self._has_noted = True

    async def look(self) -> list[EnginePause]:
        """Pause what fails, end what is over, say so on the runs. The engines that were paused, or go on."""
        accounts = await self._store.engine_pauses.pausing_accounts()
        known = await self._store.engine_pauses.list_pauses()
        changed = await self._end(known, accounts)
        if accounts and (newest := await self._store.notice_triggers.newest_result()) != self._newest_result:
            changed += await self._begin(known, accounts)
            self._newest_result = newest
        await self._say()
        return changed

    async def _end(self, known: Sequence[EnginePause], accounts: set[str]) -> list[EnginePause]:
        """Judge what came since, of engines that are paused; where no run wants a pause any more, it ends."""
        paused = [pause for pause in known if pause.paused_at_ms is not None]
        if not paused:
            return []
        since = min(pause.judged_seq for pause in paused)
        results = await self._store.notice_triggers.results_after(since)
        ended = []
        for pause in paused:
            after = after_results(pause, results, self._bounds.usable_chars_min)
            if pause.account not in accounts or not self._bounds.success_min:
                after = pause.ended()
            if after != pause:
                await self._store.engine_pauses.note_judged(after)
            ended += [after] if after.paused_at_ms is None else []
        return ended

    async def _begin(self, known: Sequence[EnginePause], accounts: set[str]) -> list[EnginePause]:
        now = self._clock()
        newest_first = await self._store.notice_triggers.newest_results(now - JUDGED_MS)
        probe_at_ms = now + probe_after_ms(self._probe_every_ms, self._jitter())
        of_accounts = [result for result in newest_first if result.account in accounts]
        begun = list(new_pauses(of_accounts, self._bounds, known, now_ms=now, probe_at_ms=probe_at_ms))
        for pause in begun:
            await self._store.engine_pauses.begin_pause(pause)
        return begun

    async def _say(self) -> None:
        known = await self._store.engine_pauses.list_pauses()
        paused = [pause for pause in known if pause.paused_at_ms is not None]
        if not paused and not self._has_noted:
            return
        waiting = await self._store.engine_pauses.runs_waiting(paused)
        await self._store.engine_pauses.note_reasons({run: pause_reason(of) for run, of in waiting.items()})
        self._has_noted = bool(paused)
