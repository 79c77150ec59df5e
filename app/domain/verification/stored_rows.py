"""Stored rows as verifying reads them: every one about a task, together. Data only."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from app.domain.retention import Receipts

Row = Mapping[str, Any]
"""A stored row: column name -> value, ids as text, credits as Decimal."""


@dataclass(frozen=True, slots=True)
class VerifiedRun:
    """A run to go through."""

    id: str
    account: str
    last_ordinal: int


@dataclass(frozen=True, slots=True)
class Orphan:
    """A row that belongs to nothing: its task, or what `column` says, is not there."""

    table: str
    key: str
    task_id: str
    column: str = "task_id"


@dataclass(frozen=True, slots=True)
class Misnumbered:
    """A result whose place in the order of settlement cannot be right."""

    task_id: str
    attempt: int
    seq: int | None
    should_be: str
    why: str


@dataclass(frozen=True, slots=True)
class Miscounted:
    """A figure that is kept of a run, and is not what its attempts come to."""

    run_id: str
    figure: str
    """As in "charged of CHATGPT completed matched"."""
    kept: int | Decimal
    should_be: int | Decimal


@dataclass(slots=True)
class TaskBooks:
    """Every stored row about one task."""

    task: Row
    """With `account`, `run_state`, `retained_at_ms` and `asked` (a sync call) of its run."""
    attempts: list[Row] = field(default_factory=list)
    submissions: list[Row] = field(default_factory=list)
    """In the order in which they were recorded."""
    deliveries: list[Row] = field(default_factory=list)
    """Filed under the task; `body` unpacked, or None with the reason in `fault`."""
    results: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    findings: list[Row] = field(default_factory=list)
    adjustments: list[Row] = field(default_factory=list)
    elsewhere: list[Row] = field(default_factory=list)
    """Deliveries that its rows name and that are not filed under it."""
    anothers: set[str] = field(default_factory=set)
    """Deliveries that conflict here and name an id of the provider's that another attempt has."""
    receipts: Receipts = field(default_factory=Receipts)
    """All of the database: what they cover may be gone."""
    pruned_verdicts: frozenset[str] = frozenset()
    """Verdicts of which findings of its run were pruned."""
