"""How much an account may have at the provider at once (P1, P11, P17, S20). Pure.

A task that waits in the provider's queue for longer than its retention can only be learnt from its webhook,
and one that no credits cover fails when it is picked up; so neither is sent.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal

from app.domain.run_reason import MONTH_BUDGET, ReasonCode, RunReason
from app.domain.text import counted
from app.domain.time_format import utc

QUEUE_MAX = 100_000
"""Tasks that may wait in the provider's queue, per organization (C-D.1)."""
QUEUE_MARGIN = 1_000
"""Kept free for what other users of the organization queue meanwhile."""
SECONDS_PER_TASK = 60.0
"""Before anything was measured: the slow end of what AI answers take (C-H)."""
CONCURRENCY_UNKNOWN = 10
"""Slots of the smallest paid plan (C-F), where the provider does not say."""

TASK_CREDITS_MIN = Decimal(3)
TASK_CREDITS_MAX = Decimal(25)
"""No task costs less or more (C-E.3). Near the end of the credits tasks go one by one, and the provider's own
check has the last word."""


@dataclass(frozen=True, slots=True)
class SendQuota:
    """How many more tasks may be sent now, and why no more."""

    tasks: int
    reason: RunReason | None = None
    """Set when `tasks` is 0."""


def backlog_max(*, concurrency: int | None, finished_per_s: float | None, drain_target_s: float) -> int:
    """Tasks that the provider finishes within `drain_target_s`, at the measured rate, or as many as its slots
    should finish while nothing is measured."""
    slots = concurrency if concurrency else CONCURRENCY_UNKNOWN
    rate = finished_per_s if finished_per_s else slots / SECONDS_PER_TASK
    # The slots themselves may always be filled twice: an idle slot finishes nothing.
    return min(max(int(rate * drain_target_s), 2 * slots), QUEUE_MAX - QUEUE_MARGIN)


def send_quota(
    *,
    outstanding_tasks: int,
    backlog: int,
    remaining: Decimal | None,
    outstanding_credits: Decimal,
    budget_left: Decimal | None = None,
    unknown: RunReason | None = None,
) -> SendQuota:
    """How many tasks may go now. `remaining` None: the edition does not report its balance. `budget_left`:
    what the account may still cost this month, less what is on its way; None: it has no budget. `unknown`:
    the balance should be known and is not, and nothing is to be sent meanwhile."""
    free = backlog - outstanding_tasks
    if free <= 0:
        text = (
            f"waiting: {counted(outstanding_tasks, 'task')} at the provider, as many as it finishes in time"
        )
        return SendQuota(0, RunReason(ReasonCode.BACKLOG, text))
    if budget_left is not None:
        if budget_left < TASK_CREDITS_MIN:
            return SendQuota(0, MONTH_BUDGET)
        free = min(free, max(int(budget_left // TASK_CREDITS_MAX), 1))
    if unknown is not None:
        return SendQuota(0, unknown)
    if remaining is None:
        return SendQuota(free)
    available = remaining - outstanding_credits
    if available < TASK_CREDITS_MIN:
        text = f"waiting: {counted(remaining, 'credit')} left, {outstanding_credits} of them outstanding"
        return SendQuota(0, RunReason(ReasonCode.BALANCE_LOW, text))
    return SendQuota(min(free, max(int(available // TASK_CREDITS_MAX), 1)))


def month_start_ms(now_ms: int) -> int:
    """The first millisecond of the calendar month of `now_ms`, UTC."""
    now = utc(now_ms)
    return int(datetime(now.year, now.month, 1, tzinfo=UTC).timestamp() * 1000)
