"""The statement of one billing cycle; its figures always balance (C-F)."""

from dataclasses import dataclass, field
from typing import Any

from app.emulator.engine.clock import iso


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
class Grant:
    """Credits that a cycle was given: at its start, by an upgrade, by a top-up."""

    at_s: float
    what: str
    credits: int

    def as_json(self) -> dict[str, Any]:
        """The line as the statement shows it."""
        return {"at": iso(self.at_s), "what": self.what, "credits": self.credits}


@dataclass(frozen=True, slots=True, order=True)
class ChargeLine:
    """What is charged together on a statement: an engine's calls of one day and one kind."""

    day: str
    """UTC, of the charge."""
    organization: str
    task_type: str
    sync: bool


@dataclass(slots=True)
class Cycle:
    """One month of an account: opening + allocation - charges - expiry + overage = closing. Its grants add up
    to the allocation, its lines to the charges."""

    number: int
    plan: str
    starts_s: float
    ends_s: float
    opening: int
    allocation: int
    """The plan's, after an upgrade the new plan's, plus top-ups."""
    charges: int = 0
    expiry: int = 0
    """Unused at the end; lost (C-F)."""
    overage: int = 0
    """Used beyond what there was; carried by contract, or written off."""
    overage_billed_before: int = 0
    """Credits of the previous cycle's overage that this cycle invoices."""
    invoices: list[Invoice] = field(default_factory=list)
    grants: list[Grant] = field(default_factory=list)
    lines: dict[ChargeLine, list[int]] = field(default_factory=dict)
    """Count and credits."""

    def grant(self, at_s: float, what: str, credits: int) -> None:
        """Add credits to the allocation."""
        self.allocation += credits
        self.grants.append(Grant(at_s, what, credits))

    def charge(self, line: ChargeLine, credits: int) -> None:
        """Deduct, and count it on its line."""
        self.charges += credits
        sums = self.lines.setdefault(line, [0, 0])
        sums[0] += 1
        sums[1] += credits

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
            "grants": [line.as_json() for line in self.grants],
            "lines": [
                {
                    "day": line.day,
                    "organization": line.organization,
                    "taskType": line.task_type,
                    "sync": line.sync,
                    "count": count,
                    "credits": credits,
                }
                for line, (count, credits) in sorted(self.lines.items())
            ],
        }
