"""Comparing stored rows with derived ones, row by row. Pure; decides nothing and fixes nothing."""

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.answer_text import answer_chars
from app.domain.credits import to_json_number
from app.domain.task import TaskState
from app.domain.verdicts import DERIVED_VERDICTS
from app.domain.verification.derivation import (
    DerivationInput,
    Expected,
    ExpectedEntry,
    ExpectedFinding,
    OwnDecision,
)
from app.domain.verification.stored_rows import Row

CLOCK_SKEW_MAX_MS = 5_000
"""The receiver's clock and the worker's may be those of two machines."""

StoredText = Callable[[str | None], str | None]
"""The provider's text as the store keeps it: storable and bounded."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where the books are not what the evidence gives."""

    table: str
    key: str
    """The row: its id, or task id and attempt."""
    column: str
    """`row` when the whole row is missing or should not be there."""
    stands: str
    should_be: str
    why: str


@dataclass(slots=True)
class StoredAttempt:
    """The stored rows of one attempt."""

    table: str
    """tasks or attempts."""
    row: Row
    entries: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    findings: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)

    @property
    def key(self) -> str:
        return (
            str(self.row["id"]) if self.table == "tasks" else f"{self.row['task_id']}.{self.row['attempt']}"
        )


def compare(
    stored: StoredAttempt, inputs: DerivationInput, expected: Expected, stored_text: StoredText
) -> list[Difference]:
    """Every difference between the rows of an attempt and what was derived for it."""
    return [
        *_row(stored, inputs, expected, stored_text),
        *_entries(stored, expected),
        *_result(stored, expected),
        *_findings(stored, expected),
        *_effects(stored, expected),
    ]


def display(value: object) -> str:
    """A value as a person reads it; long texts by their length and hash, because they are answers."""
    if value is None:
        return "null"
    if isinstance(value, Decimal):
        return str(to_json_number(value))
    text = value.hex() if isinstance(value, bytes) else str(value)
    if len(text) <= 80:
        return text
    return f"{len(text)} characters, sha256 {hashlib.sha256(text.encode()).hexdigest()[:16]}"


def _row(
    stored: StoredAttempt, inputs: DerivationInput, expected: Expected, stored_text: StoredText
) -> Iterator[Difference]:
    row, after = stored.row, expected.after
    open_ = after.state is TaskState.SUBMITTING  # claimed or not: nothing is known of it yet
    states = (TaskState.PENDING, TaskState.SUBMITTING) if open_ else (after.state,)
    if row["state"] not in states:
        why = "what was said about the attempt, in any order, ends here"
        yield Difference(stored.table, stored.key, "state", row["state"], " or ".join(states), why)
    pairs: list[tuple[str, object, str]] = [
        ("money", after.money, "the closing entry that the reports give"),
        ("credits_held", after.held, "of the submit response, else the estimate"),
        ("credits_to_charge", after.to_charge, "of the submit response, else of the report"),
        ("credits_charged", after.charged, "creditsCharged of the report; none is unknown"),
        ("reported", after.reported, "status of the first report"),
        ("verdict", after.verdict, "reconciled again"),
        (
            "provider_task_id",
            stored_text(after.provider_task_id),
            "of the submit response, else of the report",
        ),
        ("settled_by", expected.settled_by, "how the first report came"),
    ]
    if OwnDecision.ASKED not in inputs.decisions:
        pairs.append(("submitted_at_ms", expected.submitted_at_ms, "when the submit response came"))
    if not inputs.decisions & {OwnDecision.EXPIRED, OwnDecision.GIVEN_UP}:  # their texts are ours
        pairs.append(("error_code", stored_text(expected.error_code), "of the refusal or the first report"))
        pairs.append(
            ("error_message", stored_text(expected.error_message), "of the refusal or the first report")
        )
    for column, value, why in pairs:
        if row[column] != value:
            yield Difference(stored.table, stored.key, column, display(row[column]), display(value), why)
    yield from _settled_at(stored, expected)


def _settled_at(stored: StoredAttempt, expected: Expected) -> Iterator[Difference]:
    at_ms = stored.row["settled_at_ms"]
    where = stored.table, stored.key, "settled_at_ms", display(at_ms)
    if expected.first is None:
        if at_ms is not None:
            yield Difference(*where, "null", "no report settled it")
    elif at_ms is None:
        yield Difference(*where, "a time", f"delivery {expected.first.id} settled it")
    elif at_ms < expected.first.received_at_ms - CLOCK_SKEW_MAX_MS:
        earliest = f"{expected.first.received_at_ms} or later"
        yield Difference(*where, earliest, f"when delivery {expected.first.id} was received")


def _entries(stored: StoredAttempt, expected: Expected) -> Iterator[Difference]:
    for kinds in (("hold",), ("post", "void")):
        found = sorted((e for e in stored.entries if e["kind"] in kinds), key=lambda e: int(e["id"]))
        due_entries = [entry for entry in expected.entries if entry.kind in kinds]
        for entry in due_entries[len(found) :]:
            why = "deleted, or never written: " + _origin(entry)
            yield Difference(
                "ledger", stored.key, "row", "missing", _entry_text(entry.kind, entry.credits), why
            )
        for row in found[len(due_entries) :]:
            why = f"the attempt has {len(found)} of {'/'.join(kinds)}; what was said gives {len(due_entries)}"
            yield Difference(
                "ledger", display(row["id"]), "row", _entry_text(row["kind"], row["credits"]), "none", why
            )
        for row, entry in zip(found, due_entries, strict=False):
            yield from _entry(stored, expected, row, entry)
    for row in stored.entries:
        if row["kind"] not in ("hold", "post", "void"):
            yield Difference(
                "ledger", display(row["id"]), "kind", row["kind"], "hold, post or void", "no such kind"
            )


def _entry(stored: StoredAttempt, expected: Expected, row: Row, entry: ExpectedEntry) -> Iterator[Difference]:
    pairs = [("kind", entry.kind), ("credits", entry.credits), ("delivery_id", entry.delivery_id)]
    if row["reason"] is not None:  # null on entries that are older than reasons
        pairs.append(("reason", entry.reason))
    for column, value in pairs:
        if row[column] != value:
            where = "ledger", display(row["id"]), column
            yield Difference(*where, display(row[column]), display(value), _origin(entry))
    settled = stored.row["settled_at_ms"]
    same_time = expected.first is not None and entry.delivery_id == expected.first.id and settled is not None
    if same_time and row["at_ms"] != settled:
        why = "written when the attempt was settled"
        yield Difference("ledger", display(row["id"]), "at_ms", display(row["at_ms"]), display(settled), why)


def _result(stored: StoredAttempt, expected: Expected) -> Iterator[Difference]:
    first, found = expected.first, stored.results
    if first is None:
        for _ in found:
            yield Difference(
                "results", _attempt_key(stored), "row", "a result", "none", "no report was taken"
            )
        return
    if not found:
        why = f"deleted, or never written: the answer of delivery {first.id}"
        yield Difference(
            "results", _attempt_key(stored), "row", "missing", f"a result, {expected.after.reported}", why
        )
        return
    row, settled = found[0], stored.row["settled_at_ms"]
    for column, value in (
        ("delivery_id", first.id),
        ("status", expected.after.reported),
        ("answer_bytes", len(first.report.response)),
        ("answer_sha256", hashlib.sha256(first.report.response).digest()),
        ("answer_chars", answer_chars(first.report.response)),
        ("stored_at_ms", row["stored_at_ms"] if settled is None else settled),
    ):
        if row[column] != value and not (row[column] is None and column.startswith("answer_")):
            why = f"of delivery {first.id}, which settled the attempt"
            yield Difference(
                "results", _attempt_key(stored), column, display(row[column]), display(value), why
            )


def _findings(stored: StoredAttempt, expected: Expected) -> Iterator[Difference]:
    stored_findings = [row for row in stored.findings if row["verdict"] in DERIVED_VERDICTS]
    same: dict[ExpectedFinding, list[Row]] = {}
    for row in reversed(stored_findings):
        same.setdefault(_finding(row), []).append(row)
    missing = [wanted for wanted in expected.findings if not same.get(wanted) or not same[wanted].pop()]
    left = {id(row) for rows in same.values() for row in rows}
    surplus = [row for row in stored_findings if id(row) in left]
    of_delivery: dict[str | None, list[Row]] = {}
    for row in reversed(surplus):
        of_delivery.setdefault(row["delivery_id"], []).append(row)
    for wanted in missing:
        found = "missing"
        if altered := of_delivery.get(wanted.delivery_id):
            row = altered.pop()
            left.discard(id(row))
            found = f"finding {row['id']}: {_finding_text(_finding(row))}"
        why = f"of delivery {wanted.delivery_id}" if wanted.delivery_id else "found at submit"
        yield Difference("findings", _attempt_key(stored), "row", found, _finding_text(wanted), why)
    surplus = [row for row in surplus if id(row) in left]
    for row in surplus:
        why = "nothing that was said about the attempt gives it"
        yield Difference("findings", display(row["id"]), "row", _finding_text(_finding(row)), "none", why)


def _effects(stored: StoredAttempt, expected: Expected) -> Iterator[Difference]:
    for row in stored.deliveries:
        effect = expected.effects.get(row["id"])
        if effect is not None and row["effect"] != effect:
            why = "settled again, in the recorded order"
            yield Difference("deliveries", row["id"], "effect", display(row["effect"]), display(effect), why)


def _finding(row: Row) -> ExpectedFinding:
    return ExpectedFinding(row["verdict"], row["expected"], row["actual"], row["delivery_id"])


def _attempt_key(stored: StoredAttempt) -> str:
    row = stored.row
    return f"{row['id'] if stored.table == 'tasks' else row['task_id']}.{row['attempt']}"


def _origin(entry: ExpectedEntry) -> str:
    return f"of delivery {entry.delivery_id}" if entry.delivery_id else "of the submit response"


def _entry_text(kind: str, credits: Decimal | None) -> str:
    return f"{kind} of {display(credits)}"


def _finding_text(finding: ExpectedFinding) -> str:
    return f"{finding.verdict}, expected {display(finding.expected)}, actual {display(finding.actual)}"
