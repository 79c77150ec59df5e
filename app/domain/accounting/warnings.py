"""Warnings at set thresholds: the provider's own (C-D.3), and what the forecast shows to come. Pure.

May not do I/O, read a clock or log.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.accounting.forecast import Forecast, RunForecast
from app.domain.credits import to_json_number
from app.domain.notices.notice import Notice, NoticeKind
from app.domain.text import agreeing, counted
from app.domain.time_format import iso_day

CREDITS_LEFT_MIN = Decimal(100)
SLOTS_SHARE_MAX = 0.8
REQUESTS_LEFT_MIN = 50
"""What the provider advises to be alarmed at: fewer credits, more slots, fewer requests left in a second."""


@dataclass(frozen=True, slots=True)
class LimitUsage:
    """How an account's limits are used just now; None: not known."""

    slots: int | None = None
    slots_used: int | None = None
    rate_per_s: float | None = None
    busiest_second: int | None = None
    """Create calls of ours in the busiest of the last seconds."""


@dataclass(frozen=True, slots=True)
class LimitWarning:
    """One warning."""

    kind: NoticeKind
    dedupe_key: str
    """It is reported once for each."""
    message: str
    is_sure: bool = True
    """False: only at the far end of the range. Shown, but nobody is called for it."""
    run_id: str | None = None
    figures: Mapping[str, object] = field(default_factory=dict)

    def notice(self, account: str, now_ms: int) -> Notice:
        """As it is reported."""
        return Notice(self.kind, account, self.dedupe_key, self.message, now_ms, self.run_id, self.figures)


def warnings_of(found: Forecast, use: LimitUsage) -> list[LimitWarning]:
    """Everything that is worth a warning now, gravest first."""
    return [*_credits(found), *_late_runs(found), *_limits(found, use)]


def _credits(found: Forecast) -> Iterator[LimitWarning]:
    if found.available is None:
        return
    has, needs = found.available, found.queued_cost
    cycle = iso_day(found.resets_at_ms) if found.resets_at_ms else iso_day(found.now_ms)[:7]
    until = f" until the reset on {cycle}" if found.resets_at_ms else ""
    if has.likely < CREDITS_LEFT_MIN:
        yield LimitWarning(
            NoticeKind.CREDITS_LOW,
            f"credits.low:{found.account}:{cycle}:{_plan(found)}",
            f"Account {found.account} has {counted(to_json_number(has.likely), 'credit')} left{until}.",
            figures={"available": has.likely},
        )
    if found.queued and needs.high > has.low:
        is_sure = needs.likely > has.likely
        newest = found.runs[-1].run.id if found.runs else "-"
        yield LimitWarning(
            NoticeKind.CREDITS_SHORT,
            f"credits.short:{found.account}:{cycle}:{newest}",
            f"{counted(to_json_number(has.likely), 'credit')} "
            f"{'will' if is_sure else 'may'} not suffice for the "
            f"{counted(found.queued, 'task')} that "
            f"{agreeing(found.queued, 'is queued: it', 'are queued: they')} "
            f"will cost {to_json_number(needs.low)} "
            f"to {to_json_number(needs.high)}.",
            is_sure,
            figures={
                "available": has.likely,
                "queued": found.queued,
                "cost_low": needs.low,
                "cost_likely": needs.likely,
                "cost_high": needs.high,
            },
        )


def _plan(found: Forecast) -> object:
    """So that an upgrade within the cycle is a new key."""
    return to_json_number(found.balance.per_cycle) if found.balance else None


def _late_runs(found: Forecast) -> Iterator[LimitWarning]:
    reset = found.resets_at_ms
    if reset is None:
        return
    for late in found.runs:
        if late.why_not is None and _is_late(late.ends.high, reset):
            # While nothing is measured the likely end is no more than a guess.
            is_sure = found.is_measured and _is_late(late.ends.likely, reset)
            yield _late(late, reset, is_sure)


def _late(run: RunForecast, reset: int, is_sure: bool) -> LimitWarning:
    return LimitWarning(
        NoticeKind.RUN_LATE,
        f"run.late:{run.run.id}:{iso_day(reset)}",
        f"Run {run.run.name} {'will' if is_sure else 'may'} not finish before the reset on {iso_day(reset)}: "
        f"{counted(run.open, 'task')} {agreeing(run.open)} open.",
        is_sure,
        run.run.id,
        {"run": run.run.name, "open": run.open},
    )


def _is_late(ends_ms: int | None, reset_ms: int) -> bool:
    return ends_ms is None or ends_ms > reset_ms


def _limits(found: Forecast, use: LimitUsage) -> Iterator[LimitWarning]:
    account, day = found.account, iso_day(found.now_ms)
    if use.slots and use.slots_used is not None and use.slots_used > SLOTS_SHARE_MAX * use.slots:
        yield LimitWarning(
            NoticeKind.SLOTS_HIGH,
            f"slots.high:{account}:{day}",
            f"{use.slots_used} of {counted(use.slots, 'slot')} of account "
            f"{account} {agreeing(use.slots_used)} in use: what is queued waits.",
            figures={"used": use.slots_used, "slots": use.slots},
        )
    if use.rate_per_s is None or use.busiest_second is None:
        return
    left = max(int(use.rate_per_s) - use.busiest_second, 0)
    if left < REQUESTS_LEFT_MIN and use.busiest_second:
        yield LimitWarning(
            NoticeKind.REQUESTS_HIGH,
            f"requests.high:{account}:{day}",
            f"Account {account} had {counted(left, 'request')} "
            f"left in its busiest second; ours wait for their turn, "
            "those of others beside us are refused.",
            figures={"left": left, "per_second": use.busiest_second},
        )
