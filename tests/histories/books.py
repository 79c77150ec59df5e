"""What is read from our books at the end of a history."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.credits import ExplanationCode
from app.domain.task import Money, TaskState
from app.domain.verdicts import Verdict

SAFE_MS = 20 * 3_600_000
"""A key first sent longer ago is not sent again: the provider may have forgotten it (P2)."""


@dataclass(frozen=True)
class AttemptRow:
    """One attempt as the books know it."""

    key: str
    task_id: str
    state: TaskState
    money: Money
    task_type: str
    estimate: Decimal
    held: Decimal | None
    to_charge: Decimal | None
    charged: Decimal | None
    verdict: Verdict | None
    provider_task_id: str | None
    first_sent_ms: int | None


@dataclass(frozen=True)
class LedgerRow:
    """One entry."""

    key: str
    kind: str
    credits: Decimal
    at_ms: int
    reason: ExplanationCode | None


@dataclass(frozen=True)
class FindingRow:
    """One finding; key None: about no attempt of ours."""

    key: str | None
    verdict: Verdict
    detail: str


@dataclass(frozen=True)
class Rows:
    """Everything, at one moment."""

    attempts: Sequence[AttemptRow]
    ledger: Sequence[LedgerRow]
    findings: Sequence[FindingRow]

    def attempt(self, key: str) -> AttemptRow:
        return next(row for row in self.attempts if row.key == key)
