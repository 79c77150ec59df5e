"""Our side of a history: what both kinds of books can do, and what is read from them in the end."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Protocol

from app.domain.credits import ExplanationCode
from app.domain.settlement import Source
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import Money, TaskSpec, TaskState
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


class Books(Protocol):
    """What a history asks of either kind. Moments are UTC milliseconds."""

    def load(self, specs: Sequence[tuple[TaskSpec, Decimal]], now_ms: int) -> None: ...

    def claim(self, limit: int, now_ms: int) -> list[ClaimedTask]: ...

    def record(self, ended: Submission) -> None: ...

    def receive(self, bodies: Sequence[bytes], source: Source, now_ms: int) -> None:
        """Commit raw reports and settle them, all in one batch."""

    def give_up(self, key: str) -> None:
        """The provider no longer knows the task: the work is closed, the money stays open."""

    def retry(self, task_id: str, now_ms: int) -> None: ...

    def rows(self) -> Rows: ...
