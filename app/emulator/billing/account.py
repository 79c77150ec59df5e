"""A subscription: plan, billing cycles, charges, and the 60 s old balance that `/v1/credits` shows (C-E,
C-F)."""

import calendar
from collections import deque
from datetime import UTC, datetime
from typing import Any

from app.emulator.billing.cycle import ChargeLine, Cycle, Invoice
from app.emulator.billing.pricing import Plan
from app.emulator.data.editions import Edition
from app.emulator.engine.clock import iso

BALANCE_CACHE_S = 60.0
CLOSED_CYCLES_MAX = 120
"""Ten years."""


class BillingError(Exception):
    """A change of subscription that the rules of C-F forbid."""


class Account:
    """Credits on one plan, shared by every organization on it. Integers only."""

    def __init__(
        self,
        name: str,
        plan: Plan,
        edition: Edition,
        *,
        subscribed_s: float,
        now_s: float,
        credits: int | None = None,
    ) -> None:
        self.name = name
        self.plan = plan
        self.edition = edition  # whose billing rules hold, whatever edition a key speaks
        self.slots = plan.concurrency
        self.subscribed_s = subscribed_s
        self.charged_ever = 0
        self.closed: deque[Cycle] = deque(maxlen=CLOSED_CYCLES_MAX)
        self.next_plan: Plan | None = None  # a downgrade, from the next cycle on
        self.canceled = False  # ends with the running cycle
        self.ended = False
        self._months = 0
        while months_after(subscribed_s, self._months + 1) <= now_s:
            self._months += 1
        allocation = plan.credits if credits is None else credits
        self.cycle = self._open(1, 0, allocation, months_after(subscribed_s, self._months))
        self._shown = 0
        self._shown_s = float("-inf")

    def _open(self, number: int, overage: int, allocation: int, starts_s: float) -> Cycle:
        ends_s = months_after(self.subscribed_s, self._months + 1)
        cycle = Cycle(number, self.plan.name, starts_s, ends_s, 0, 0)
        if allocation:
            cycle.grant(starts_s, f"plan {self.plan.name}", allocation)
        if self.plan.usd and not self.ended:
            cycle.invoices.append(Invoice(starts_s, f"plan {self.plan.name}", self.plan.usd * 100))
        if overage:
            cycle.overage_billed_before = overage
            cents = round(overage * self.plan.usd * 100 / self.plan.credits)  # the contracted rate per credit
            cycle.invoices.append(Invoice(starts_s, f"overage of {overage} credits", cents))
        return cycle

    @property
    def balance(self) -> int:
        """What is left now. Work accepted in parallel can take it below zero (C-L row L8)."""
        return self.cycle.balance

    @property
    def may_exceed(self) -> bool:
        """Whether this plan runs into overage instead of stopping (row B41)."""
        return self.plan.kind in self.edition.overage_kinds and not self.ended

    def covers(self, credits: int) -> bool:
        """Whether work of this price may be accepted or started (C-E.4)."""
        return self.cycle.balance >= credits or self.may_exceed

    def charge(self, credits: int, line: ChargeLine | None = None) -> None:
        """Deduct for work that has succeeded; None: the statement has no line for it."""
        if line is None:
            self.cycle.charges += credits
        else:
            self.cycle.charge(line, credits)
        self.charged_ever += credits

    def renew(self) -> None:
        """End the cycle: unused credits expire, overage is carried to the next statement, the plan
        allocates anew."""
        ending = self.cycle
        left = ending.balance
        ending.expiry, ending.overage = max(0, left), max(0, -left)
        billed = (
            ending.overage if self.may_exceed else 0
        )  # elsewhere an overdraft of the last calls is written off
        self.closed.append(ending)
        self._months += 1
        if self.canceled:
            self.ended = True
        elif self.next_plan is not None:
            self.plan, self.slots = self.next_plan, self.next_plan.concurrency
            self.next_plan = None
        allocation = 0 if self.ended else self.plan.credits
        self.cycle = self._open(ending.number + 1, billed, allocation, ending.ends_s)

    def upgrade(self, plan: Plan, now_s: float) -> None:
        """At once: the new allocation less what this cycle has used, the price difference for the days
        left (B40)."""
        if plan.credits <= self.plan.credits:
            raise BillingError(
                f"{plan.name} is not above {self.plan.name}; downgrades start with the next cycle"
            )
        if self.ended:
            raise BillingError("the subscription has ended")
        cycle = self.cycle
        share_left = (cycle.ends_s - now_s) / (cycle.ends_s - cycle.starts_s)
        cents = round((plan.usd - self.plan.usd) * 100 * max(0.0, min(1.0, share_left)))
        cycle.invoices.append(Invoice(now_s, f"upgrade {self.plan.name} to {plan.name}", cents))
        cycle.grant(now_s, f"upgrade {self.plan.name} to {plan.name}", plan.credits - self.plan.credits)
        self.plan, cycle.plan = plan, plan.name
        self.next_plan, self.canceled = None, False

    def downgrade(self, plan: Plan) -> None:
        """From the next cycle on, no proration (C-F)."""
        if plan.credits >= self.plan.credits:
            raise BillingError(f"{plan.name} is not below {self.plan.name}; upgrades are immediate")
        self.next_plan, self.canceled = plan, False

    def cancel(self) -> None:
        """Service and credits stay until the end of the cycle; nothing is refunded (C-F)."""
        self.canceled, self.next_plan = True, None

    def top_up(self, credits: int, now_s: float) -> None:
        """Extra credits for this cycle (row B43: only where the edition knows it)."""
        if credits <= 0:
            raise BillingError("a top-up is a positive number of credits")
        self.cycle.grant(now_s, "top-up", credits)

    @property
    def reported(self) -> int:
        """The fresh balance, as sync headers carry it; below zero only where overage is allowed (L8, L9)."""
        return self.balance if self.may_exceed else max(0, self.balance)

    def as_credits(self, now_s: float) -> dict[str, Any]:
        """The body of `/v1/credits`: up to 60 s old, and without a `success` key (C-E.6)."""
        if now_s - self._shown_s >= BALANCE_CACHE_S or now_s < self._shown_s:
            self._shown, self._shown_s = self.reported, now_s
        free = self.plan.kind == "free"
        return {
            "remaining": self._shown,
            "perCycle": None if free else self.plan.credits,
            "cycleResetsAt": None if free else iso(self.cycle.ends_s),
        }


def months_after(anchor_s: float, months: int) -> float:
    """The anchor day `months` later, in Unix seconds (C-F, C-L row L31). Counted from the anchor each time,
    never from the month before: the 31st becomes the 28th in February and is the 31st again in March."""
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    month = anchor.month - 1 + months
    year, month = anchor.year + month // 12, month % 12 + 1
    day = min(anchor.day, calendar.monthrange(year, month)[1])
    return anchor.replace(year=year, month=month, day=day).timestamp()
