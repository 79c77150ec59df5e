"""Triggers: what is worth a notice, and how often, from what the rows say. Pure.

A dedupe key names one thing; its notice is stored once, however often and by however many it is found.
May not do I/O, read a clock or log.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import NamedTuple

from app.domain.credits import to_json_number
from app.domain.notices.notice import Notice, NoticeKind
from app.domain.own_columns import own_document
from app.domain.run_reason import ReasonCode
from app.domain.task import RunState
from app.domain.text import agreeing, counted
from app.domain.time_format import DAY_MS, iso_day, iso_utc

ASK_SOURCE = "ask"
"""Source of a run of `tallyhook ask`: somebody waits for its answer already."""


@dataclass(frozen=True, slots=True)
class RunSnapshot:
    """A run, and what was reported of it."""

    id: str
    name: str
    account: str
    source: str
    state: str
    reason: str | None
    reason_code: str | None
    created_at_ms: int
    is_open: bool
    """A task of it is still to be done."""
    last_kind: str | None
    """Kind of the last notice about its state; None: nothing yet."""
    edges: int
    """How many there were."""
    finished_at_ms: int | None = None
    """When the last of its tasks was closed; None: one is open."""

    def notice(
        self, kind: NoticeKind, message: str, at_ms: int, figures: Mapping[str, object] | None = None
    ) -> Notice:
        """The next notice about its state."""
        data = {
            "run": self.name,
            "state": self.state,
            "reason": self.reason,
            "reason_code": self.reason_code,
            **(figures or {}),
        }
        return Notice(kind, self.account, f"run:{self.id}:{self.edges + 1}", message, at_ms, self.id, data)


@dataclass(frozen=True, slots=True)
class FindingGroup:
    """Findings of one verdict in one run; without a run: at one account."""

    verdict: str
    run_id: str | None
    run_name: str | None
    account: str
    count: int
    expected: Decimal
    actual: Decimal
    """Sums over those findings that have both."""


class FoundTask(NamedTuple):
    """A task that a finding is about, as its author knows it."""

    task_id: str
    custom_id: str | None
    metadata: str | None
    """Own columns, as JSON."""
    sample: int | None
    repeats: int | None

    def document(self) -> dict[str, object]:
        """For JSON."""
        return {**self._asdict(), "metadata": own_document(self.metadata)}


@dataclass(frozen=True, slots=True)
class SetAsideGroup:
    """Deliveries of one account and day that were set aside."""

    account: str
    day_ms: int
    count: int


@dataclass(frozen=True, slots=True)
class ExternalUsage:
    """Credits of one cycle that the account's other users spent."""

    account: str
    cycle_ms: int
    credits: Decimal


def run_edge(run: RunSnapshot) -> NoticeKind | None:
    """What to report of a run now; None: nothing new."""
    if run.state == RunState.LOADING or run.source == ASK_SOURCE:
        return None
    if not run.is_open:
        now: NoticeKind | None = NoticeKind.RUN_FINISHED
    elif run.state == RunState.PAUSED:
        now = NoticeKind.BUDGET_REACHED if run.reason_code == ReasonCode.BUDGET else NoticeKind.RUN_PAUSED
    elif run.state == RunState.STOPPED:
        now = NoticeKind.RUN_STOPPED
    else:
        # Cancelled with tasks still at the provider: its end is reported.
        now = NoticeKind.RUN_RESUMED if run.state == RunState.RUNNING and run.last_kind is not None else None
    return None if now == run.last_kind else now


def step_reached(count: int) -> int:
    """The largest of 1, 10, 100, … that a count has reached: what grows is reported at each."""
    return int("1" + "0" * (len(str(max(count, 1))) - 1))


def halted(run: RunSnapshot, kind: NoticeKind, now_ms: int) -> Notice:
    """A run is paused or stopped, for its own budget too."""
    word = "stopped" if kind is NoticeKind.RUN_STOPPED else "paused"
    return run.notice(kind, f"Run {run.name} is {word}: {run.reason or 'no reason was kept'}.", now_ms)


def ended(
    run: RunSnapshot,
    *,
    states: Mapping[str, int],
    verdicts: Mapping[str, int],
    charged: Decimal,
    held: Decimal,
    at_ms: int,
) -> Notice:
    """None of a run's tasks is open any more."""
    counts = {state: n for state, n in sorted(states.items()) if n}
    word = "cancelled" if run.state == RunState.CANCELLED else "finished"
    message = f"Run {run.name} is {word}: {', '.join(f'{n} {state}' for state, n in counts.items())}; "
    message += f"{counted(to_json_number(charged), 'credit')} charged"
    message += f", {to_json_number(held)} held, their charge is not known." if held else "."
    figures = {
        "tasks": sum(counts.values()),
        "states": counts,
        "verdicts": dict(sorted(verdicts.items())),
        "credits_charged": charged,
        "credits_held": held,
    }
    return run.notice(NoticeKind.RUN_FINISHED, message, at_ms, figures)


def discrepancy_key(group: FindingGroup) -> str:
    """Its dedupe key: one for each run and verdict, and another when it has grown tenfold."""
    return f"discrepancy:{group.run_id or group.account}:{group.verdict}:{step_reached(group.count)}"


def discrepancy(group: FindingGroup, now_ms: int, newest: Sequence[FoundTask] = ()) -> Notice:
    """One notice for a group; never one for each task. `newest`: some tasks that it is about, as examples."""
    where = f"run {group.run_name}" if group.run_id else f"account {group.account}"
    difference = group.actual - group.expected
    message = f"{group.count} × {group.verdict} in {where}"
    if difference:
        word = "more" if difference > 0 else "less"
        message += f": {counted(to_json_number(abs(difference)), 'credit')} {word} than expected"
    figures = {
        "run": group.run_name,
        "verdict": group.verdict,
        "count": group.count,
        "expected": group.expected,
        "actual": group.actual,
        "newest_tasks": [task.document() for task in newest],
    }
    key = discrepancy_key(group)
    return Notice(NoticeKind.DISCREPANCY, group.account, key, f"{message}.", now_ms, group.run_id, figures)


def budget_reached(account: str, month_ms: int, now_ms: int) -> Notice:
    """An account's monthly budget is used up."""
    month = iso_day(month_ms)[:7]
    message = f"The budget of account {account} for {month} is reached; its runs wait."
    dedupe_key = f"budget:{account}:{month}"
    return Notice(NoticeKind.BUDGET_REACHED, account, dedupe_key, message, now_ms, data={"month": month})


def balance_unknown(account: str, last_ms: int | None, now_ms: int) -> Notice:
    """An account's runs wait because its balance is unknown: once for each time it was last known."""
    since = "it was never told" if last_ms is None else f"it was told last at {iso_utc(last_ms)}"
    message = f"The balance of account {account} is unknown ({since}); its runs wait."
    dedupe_key = f"balance_unknown:{account}:{iso_day(now_ms) if last_ms is None else last_ms}"
    return Notice(
        NoticeKind.BALANCE_UNKNOWN, account, dedupe_key, message, now_ms, data={"last_at_ms": last_ms}
    )


def set_aside(group: SetAsideGroup, now_ms: int) -> Notice:
    """Deliveries that nobody could settle: reported for each day of theirs, and again when they have grown
    tenfold."""
    day, count = iso_day(group.day_ms), group.count
    what = "delivery was" if count == 1 else "deliveries were"
    message = f"{count} {what} set aside at account {group.account} on {day}: tallyhook inbox list."
    dedupe_key = f"set_aside:{group.account}:{day}:{step_reached(count)}"
    figures = {"count": count, "day": day}
    return Notice(NoticeKind.SET_ASIDE, group.account, dedupe_key, message, now_ms, data=figures)


def external_usage(spent: ExternalUsage, now_ms: int) -> Notice:
    """Others spent credits of an account: reported again when it has grown tenfold."""
    account, credits, cycle = spent.account, spent.credits, iso_day(spent.cycle_ms)
    message = (
        f"{counted(to_json_number(credits), 'credit')} of account {account} "
        f"{agreeing(credits, 'was', 'were')} spent by others since {cycle}."
    )
    dedupe_key = f"drift:{account}:{spent.cycle_ms}:foreign:{step_reached(int(credits))}"
    figures = {"foreign": credits, "cycle": cycle}
    return Notice(NoticeKind.DRIFT, account, dedupe_key, message, now_ms, data=figures)


def unexplained_drift(account: str, credits: Decimal, now_ms: int) -> Notice:
    """An audit found credits that nobody can explain: once a day, and again when they have grown tenfold."""
    message = (
        f"The balance of account {account} differs from our ledger "
        f"by {counted(to_json_number(credits), 'credit')} that "
    )
    message += "nothing explains."
    dedupe_key = f"drift:{account}:{iso_day(now_ms)}:unexplained:{step_reached(int(abs(credits)))}"
    return Notice(NoticeKind.DRIFT, account, dedupe_key, message, now_ms, data={"unexplained": credits})


def schedule_failed(
    schedule_id: str, name: str, error: str, *, account: str, next_at_ms: int, now_ms: int
) -> Notice:
    """A schedule keeps an error: once for each reason and day of its slots."""
    reason = zlib.crc32(error.encode("utf-8", "backslashreplace"))
    dedupe_key = f"schedule:{schedule_id}:{next_at_ms // DAY_MS}:{reason:08x}"
    return Notice(
        NoticeKind.SCHEDULE_FAILED,
        account,
        dedupe_key,
        f"Schedule {name}: {error}.",
        now_ms,
        data={"schedule": name, "error": error},
    )
