"""The statement of one billing cycle; its figures always balance (C-F)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .clock import iso


@dataclass(slots=True)
class Invoice:
    """One line of money, in US cents. Nothing here is ever collected."""

    at_s: float
    what: str
    cents: int

    def as_json(self) -> dict[str, Any]:
        """The line as the books show it."""
        return {"at": iso(self.at_s), "what": self.what, "usdCents": self.cents}


@dataclass(slots=True)
class Cycle:
    """One month of an account: opening + allocation - charges - expiry + overage = closing."""

    number: int
    plan: str
    starts_s: float
    ends_s: float
    opening: int
    allocation: int  # the plan's, after an upgrade the new plan's, plus top-ups
    charges: int = 0
    expiry: int = 0  # unused at the end; lost (C-F)
    overage: int = 0  # used beyond what there was; carried by contract, or written off
    overage_billed_before: int = (
        0  # credits of the previous cycle's overage that this cycle's invoice asks for
    )
    invoices: list[Invoice] = field(default_factory=list)

    @property
    def balance(self) -> int:
        """What is left; negative while overage is running up."""
        return self.opening + self.allocation - self.charges - self.expiry + self.overage

    def as_json(self) -> dict[str, Any]:
        """The statement. In a running cycle overage is what has been overdrawn so far."""
        overage = self.overage + max(0, -self.balance)
        return {
            "cycle": self.number,
            "plan": self.plan,
            "startsAt": iso(self.starts_s),
            "endsAt": iso(self.ends_s),
            "opening": self.opening,
            "allocation": self.allocation,
            "charges": self.charges,
            "expiry": self.expiry,
            "overage": overage,
            "closing": self.balance + overage - self.overage,
            "overageBilledBefore": self.overage_billed_before,
            "invoices": [line.as_json() for line in self.invoices],
        }
