"""Engines that are paused because their answers fail: when, and until when. Pure: may not do I/O, read a
clock or log.

A paused engine hardly answers, so its newest results say nothing of it now. Every so often one task of it is
let through as a probe, and when as many answers in a row as `USABLE_IN_ROW` are usable, it goes on.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from app.domain.notices.failing_engines import EngineBounds, EngineResult, failing_tallies
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.time_format import iso_utc

USABLE_IN_ROW = 3
"""An engine of which a fifth of the answers are usable passes by chance in 0.8 % of such rows. One that just
meets the threshold of a half passes at one in eight; either is then judged anew, by all its bounds."""
PROBE_SPREAD = 0.5
"""Engines that were paused together are not probed together."""


@dataclass(frozen=True, slots=True)
class EnginePause:
    """An engine that is, or was, paused at an account."""

    account: str
    task_type: str
    paused_at_ms: int | None
    """None: it goes on."""
    judged_seq: int
    """Results up to this one are judged; for a pause, those after it count."""
    tasks: int
    usable: int
    """Of its newest results when it was paused."""
    probe_at_ms: int
    usable_in_row: int = 0
    """Of the newest results of what was sent since."""

    @property
    def engine(self) -> tuple[str, str]:
        """(account, engine)."""
        return self.account, self.task_type

    def ended(self) -> "EnginePause":
        """It goes on, and what is known of it does not count again."""
        return replace(self, paused_at_ms=None)


def probe_after_ms(every_ms: int, jitter: float) -> int:
    """How long until the next probe; `jitter` between 0 and 1."""
    return round(every_ms * (1 + PROBE_SPREAD * jitter))


def new_pauses(
    newest_first: Sequence[EngineResult],
    bounds: EngineBounds,
    known: Iterable[EnginePause],
    *,
    now_ms: int,
    probe_at_ms: int,
) -> Iterator[EnginePause]:
    """Pauses of engines that fail now. What was judged before an engine went on does not count again."""
    if not newest_first or not bounds.success_min:
        return
    before = {pause.engine: pause for pause in known}
    judged = {engine: pause.judged_seq for engine, pause in before.items()}
    fresh = (r for r in newest_first if r.seq > judged.get((r.account, r.task_type), 0))
    for engine, tally in failing_tallies(fresh, bounds):
        if engine not in before or before[engine].paused_at_ms is None:
            yield EnginePause(*engine, now_ms, newest_first[0].seq, tally.tasks, tally.usable, probe_at_ms)


def after_results(
    pause: EnginePause, oldest_first: Sequence[EngineResult], usable_chars_min: int
) -> EnginePause:
    """The pause of an engine after more results; over as soon as enough in a row were usable. What was sent
    before the pause does not count."""
    if pause.paused_at_ms is None or not oldest_first:
        return pause
    in_row = pause.usable_in_row
    for result in oldest_first:
        is_new = result.seq > pause.judged_seq and result.sent_at_ms >= pause.paused_at_ms
        if is_new and (result.account, result.task_type) == pause.engine and in_row < USABLE_IN_ROW:
            in_row = in_row + 1 if result.is_usable(usable_chars_min) else 0
    seq = max(pause.judged_seq, oldest_first[-1].seq)
    ended = pause.paused_at_ms if in_row < USABLE_IN_ROW else None
    return replace(pause, paused_at_ms=ended, judged_seq=seq, usable_in_row=in_row)


def pause_reason(pauses: Iterable[EnginePause]) -> RunReason:
    """Why a run with pending tasks of these engines waits."""
    parts = [
        f"{pause.task_type} fails ({pause.usable} of its last {pause.tasks} results usable), "
        f"next try at {(iso_utc(pause.probe_at_ms) or '?')[11:16]} UTC"
        for pause in sorted(pauses, key=lambda pause: pause.task_type)
    ]
    return RunReason(ReasonCode.ENGINES_FAIL, f"waiting: {'; '.join(parts)}")
