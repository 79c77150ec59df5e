"""Why a run is not over yet, in sentences: what status and watch say of it."""

from collections.abc import Mapping

from app.domain.run_reason import ReasonCode
from app.domain.task import RunState
from app.domain.text import agreeing, counted
from app.domain.time_format import DAY_MS, iso_utc
from app.store.read.progress import RunProgress
from app.store.read.runs import RunRow
from app.store.read.waiting import Waiting
from app.views.runs import Document, is_finished
from app.views.workers import START_WORKER

REMEDIES: Mapping[str, str] = {
    ReasonCode.BAD_KEY: "set CLORO_API_KEY right, start the worker again, then: tallyhook resume {run}",
    ReasonCode.BY_HAND: "tallyhook resume {run} lets it go on",
    ReasonCode.BUDGET: "its --budget is spent; tallyhook cancel {run} gives up the rest",
    ReasonCode.NO_CREDITS: "it goes on by itself when the account has credits again",
    ReasonCode.PROVIDER_AWAY: "check CLORO_BASE_URL: tallyhook doctor; it goes on by itself",
    ReasonCode.POLLS_UNANSWERED: "check CLORO_BASE_URL: tallyhook doctor; it goes on by itself",
}
"""What to do about a reason, by its code; a text that says it itself needs none."""


def waiting_lines(
    run: RunRow,
    progress: RunProgress,
    waiting: Waiting,
    worker: Document | None,
    *,
    short_id: str,
    remedies: Mapping[str, str] = REMEDIES,
) -> list[str]:
    """What its open tasks wait for, the most important first; none of a run that is over. `worker`: as of
    workers_document; None: not known. `remedies`: in the words of where it is read."""
    if run.state == RunState.LOADING:
        how = f"tallyhook submit FILE --resume {short_id}"
        return [f"it is still being read, or that was interrupted: {how} goes on with it"]
    if is_finished(run, progress):
        return []
    lines = []
    if remedy := remedies.get(run.reason_code or ""):
        lines.append(remedy.format(run=short_id))
    if worker is not None and not worker["running"]:
        lines.append(f"{worker['message']}: {START_WORKER}")
    if waiting.put_off:
        when = clock_time(waiting.send_at_ms, waiting.now_ms)
        lines.append(f"{_tasks(waiting.put_off)} to be sent again, the first at {when}")
    if waiting.unreported:
        lines.append(_unreported(waiting))
    return lines


def _unreported(waiting: Waiting) -> str:
    text = f"{_tasks(waiting.unreported)} at the provider without a report"
    if waiting.ask_at_ms is None:
        return text
    if waiting.ask_at_ms <= waiting.now_ms:
        return f"{text}; asked for now"
    return f"{text}; asked for at {clock_time(waiting.ask_at_ms, waiting.now_ms)} at the latest"


def _tasks(count: int) -> str:
    return f"{counted(count, 'task')} {agreeing(count)}"


def clock_time(at_ms: int | None, now_ms: int) -> str:
    """A time to the minute, with its day when that is not near."""
    iso = iso_utc(at_ms) or "?"
    near = at_ms is not None and abs(at_ms - now_ms) < DAY_MS // 2
    return f"{iso[11:16] if near else iso[:16].replace('T', ' ')} UTC"
