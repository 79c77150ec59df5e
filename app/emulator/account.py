"""An organization's credits: balance, charges and the 60 s old figure that `/v1/credits` shows (C-E.4,
C-E.6)."""

from __future__ import annotations

from typing import Any, Final

from .clock import iso
from .plans import Plan

BALANCE_CACHE_S: Final = 60.0


class Account:
    """Credits of one organization on one plan. Integers only."""

    def __init__(
        self, plan: Plan, *, opening: int, slots: int | None = None, may_exceed: bool = False
    ) -> None:
        self.plan = plan
        self.slots = plan.concurrency if slots is None else slots
        self.may_exceed = may_exceed
        self.opening = opening
        self.charged = 0
        self._shown = opening
        self._shown_s = float("-inf")

    @property
    def balance(self) -> int:
        """What is left now. Work accepted in parallel can take it below zero (C-L row L8)."""
        return self.opening - self.charged

    def covers(self, credits: int) -> bool:
        """Whether work of this price may be accepted or started (C-E.4)."""
        return self.may_exceed or self.balance >= credits

    def charge(self, credits: int) -> None:
        """Deduct for work that has succeeded."""
        self.charged += credits

    def shown(self, now_s: float) -> int:
        """The balance as `/v1/credits` tells it: up to 60 s old, and never below zero unless overage is
        allowed."""
        if now_s - self._shown_s >= BALANCE_CACHE_S or now_s < self._shown_s:
            self._shown, self._shown_s = self.reported, now_s
        return self._shown

    @property
    def reported(self) -> int:
        """The fresh balance, as sync headers carry it."""
        return self.balance if self.may_exceed else max(0, self.balance)

    def statement(self, now_s: float) -> dict[str, Any]:
        """The body of `/v1/credits`; it has no `success` key (C-E.6)."""
        free = self.plan.kind == "free"
        return {
            "remaining": self.shown(now_s),
            "perCycle": None if free else self.plan.credits,
            "cycleResetsAt": None if free else iso(now_s + 30 * 86_400),
        }
