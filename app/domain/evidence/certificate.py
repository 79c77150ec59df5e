"""The certificate of a run: what went in, how each prompt ended, what it cost, and hashes of all of it.

Pure: pages of rows are folded, so that memory stays flat. May not do I/O, read a clock or log. The hashes
are over canonical JSON (sorted keys, no spaces, UTF-8): anybody can compute them again (docs/evidence.md).
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

from app.domain.credits import to_json_number
from app.domain.task import OPEN_STATES, Money, TaskState
from app.domain.time_format import iso_utc

UNHASHED = ("made_at", "certificate_sha256", "pruned")
"""The same books give the same hash, whenever it is made, and whatever bodies were pruned since."""
Document = dict[str, Any]


class AttemptRecord(NamedTuple):
    """One attempt as its row says, the current one of its task or one that a retry replaced."""

    ordinal: int
    task_id: str
    attempt: int
    current: bool
    state: str
    money: str
    estimate: Decimal
    to_charge: Decimal | None
    held: Decimal | None
    charged: Decimal | None
    reported: str | None
    verdict: str | None
    sends: int
    response_sha256: str | None
    """Of the stored answer, as UTF-8; None: no answer is stored."""
    in_doubt: bool = False
    """Refused after a send that nobody answered for, and closed all the same."""


class LedgerRecord(NamedTuple):
    """One entry of the ledger, or an adjustment of the account that names this run."""

    at_ms: int
    task_id: str | None
    attempt: int | None
    kind: str
    credits: Decimal
    delivery_id: str | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class RunFacts:
    """The run, and what is counted besides its tasks."""

    id: str
    name: str
    account: str
    source: str
    source_sha256: str | None
    state: str
    bad_lines: int
    begun_ms: int
    findings: Mapping[str, int]
    """Verdict -> how many."""
    entries: int
    """Ledger entries that name the run, whatever task they name."""
    set_aside: int = 0
    """Deliveries that could not be settled and name a task of the run."""
    unnamed: int = 0
    """The same, of its account since it began, whose task cannot be made out."""
    pruned: int = 0
    """Results whose bodies were pruned, and are in no archive."""
    pruned_at_ms: int | None = None
    """When the first of all that was pruned of it was."""
    pruned_sends: int = 0
    """Attempts of which the ends of their sends were pruned."""
    pruned_findings: int = 0
    """Of `findings`."""


@dataclass(slots=True)
class RunTotals:
    """Everything summed so far. Give it each page once, in the order of the source."""

    ends: Counter[str] = field(default_factory=Counter)
    verdicts: Counter[str] = field(default_factory=Counter)
    sums: dict[str, Decimal] = field(default_factory=dict)
    entries: int = 0
    retried: int = 0
    unknown: int = 0
    unidentified: int = 0
    unstored: int = 0
    unbalanced: int = 0
    contradicted: int = 0
    _results: Any = field(default_factory=hashlib.sha256)
    _ledger: Any = field(default_factory=hashlib.sha256)

    def page(self, records: Sequence[AttemptRecord], entries: Iterable[LedgerRecord]) -> None:
        """Attempts in the order of ordinal and attempt, with all their entries."""
        entries_of: dict[tuple[str | None, int | None], list[LedgerRecord]] = {}
        for entry in entries:
            entries_of.setdefault((entry.task_id, entry.attempt), []).append(entry)
        for record in records:
            # A hold before what closes it, whichever was written first.
            own = sorted(entries_of.get((record.task_id, record.attempt), ()), key=lambda e: e.kind)
            for entry in own:
                self._entry(entry)
            self.entries += len(own)
            if [entry.kind for entry in own] == ["hold"]:
                self._add("open", own[0].credits)
            self._attempt(record, own)

    def adjustments(self, entries: Iterable[LedgerRecord]) -> None:
        """At the end, in the order they were made."""
        for entry in entries:
            self._entry(entry)

    def _entry(self, entry: LedgerRecord) -> None:
        self._add(entry.kind, entry.credits)
        document = entry._asdict() | {"at": iso_utc(entry.at_ms), "credits": to_json_number(entry.credits)}
        del document["at_ms"]
        self._ledger.update(canonical(document) + b"\n")

    def _attempt(self, record: AttemptRecord, entries: Sequence[LedgerRecord]) -> None:
        self._add("estimated", record.estimate)
        self._add("to_charge", record.to_charge)
        self._add("charged", record.charged)
        self.unbalanced += not _balanced(record, entries)
        self.contradicted += record.state == TaskState.REJECTED and record.reported is not None
        self.unstored += record.reported is not None and record.response_sha256 is None
        if record.state not in OPEN_STATES:
            self._open_money(record)
        if record.verdict is not None:
            self.verdicts[record.verdict] += 1
        if not record.current:
            self.retried += 1
            return
        self.ends[record.state] += 1
        document = {
            "ordinal": record.ordinal,
            "task_id": record.task_id,
            "attempt": record.attempt,
            "state": record.state,
            "verdict": record.verdict,
            "charged": to_json_number(record.charged),
            "response_sha256": record.response_sha256,
        }
        self._results.update(canonical(document) + b"\n")

    def _open_money(self, record: AttemptRecord) -> None:
        """Work that is closed and money that is not: what it may have cost is not known."""
        if record.money == Money.HELD:
            self.unknown += 1
            self._add("unknown", record.held)
        elif record.money == Money.NONE and (record.in_doubt or _is_expired_after_a_send(record)):
            self.unidentified += 1
            self._add("unidentified", record.estimate)

    def _add(self, name: str, credits: Decimal | None) -> None:
        if credits is not None:
            self.sums[name] = self.sums.get(name, Decimal(0)) + credits

    def hashes(self) -> tuple[str, str]:
        """SHA-256 of the results and of the ledger, as they came."""
        return self._results.hexdigest(), self._ledger.hexdigest()

    def sum(self, name: str) -> Decimal:
        """Credits of one kind; 0 when there were none."""
        return self.sums.get(name, Decimal(0))


def _is_expired_after_a_send(record: AttemptRecord) -> bool:
    return record.state == TaskState.EXPIRED and record.sends > 0


def _balanced(record: AttemptRecord, entries: Sequence[LedgerRecord]) -> bool:
    """Whether the ledger says of an attempt what its row says (rule 2 of docs/architecture.md)."""
    kinds = {entry.kind: entry.credits for entry in entries}
    closing: dict[str, dict[str, Decimal | None]] = {
        Money.NONE: {},
        Money.HELD: {"hold": record.held},
        Money.POSTED: {"hold": record.held, "post": record.charged},
        Money.VOIDED: {"hold": record.held, "void": record.held},
    }
    return len(kinds) == len(entries) and kinds == closing.get(record.money)


def canonical(document: Document) -> bytes:
    """JSON in the one spelling that is hashed."""
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def certificate_sha256(document: Document) -> str:
    """The hash of a certificate, over all but the time it was made and the hash itself."""
    hashed = {name: value for name, value in document.items() if name not in UNHASHED}
    return hashlib.sha256(canonical(hashed)).hexdigest()
