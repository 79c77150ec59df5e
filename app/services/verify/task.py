"""Verifying one task: every row about it against what its responses and reports give. Reads no database."""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.answer_text import answer_chars
from app.domain.delivery import ParsedDelivery
from app.domain.retention import Receipt
from app.domain.send_outcome import accounts_for
from app.domain.settlement import Effect
from app.domain.task import Money, TaskSpec, TaskState, idempotency_key, parse_idempotency_key
from app.domain.text import agreeing, counted
from app.domain.verdicts import Verdict
from app.domain.verification.comparison import Difference, StoredAttempt, compare, display
from app.domain.verification.derivation import (
    BOUGHT_NOTHING,
    EXPIRY_CODES,
    SURELY_REFUSED,
    DerivationInput,
    Expected,
    OwnDecision,
    derive,
    is_order_free,
    possible_orders,
)
from app.domain.verification.signature_checks import SignatureStatus
from app.domain.verification.stored_rows import Row, TaskBooks
from app.services.verify.closed import closed_differences, lost_finding
from app.services.verify.evidence import Evidence, Reading
from app.services.verify.sequence import task_sequence

REUSED = "reuse"
"""In tasks.settled_by: another task's result answers it."""
NOTHING = Decimal(0)


@dataclass(slots=True)
class TaskCheck:
    """What one task came to."""

    differences: list[Difference] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    sums: dict[str, Decimal] = field(default_factory=dict)
    signature_status: list[tuple[str, str, int, SignatureStatus]] = field(default_factory=list)
    """(account, delivery id, received at, what its signature says)."""
    archived: list[tuple[Receipt, Decimal]] = field(default_factory=list)
    """The same of each attempt whose report was read from the archive."""
    pruned: list[tuple[Receipt, Decimal]] = field(default_factory=list)
    """Of each attempt whose evidence is gone: the receipt, and what its row says was charged for the result,
    or the sends, that the receipt counts."""
    pruned_credits: Decimal = NOTHING
    """Charged for attempts whose evidence is gone, each once."""
    unfound: Counter[str] = field(default_factory=Counter)
    """Verdicts whose findings were pruned."""


def verify_task(books: TaskBooks, reading: Reading) -> TaskCheck:
    """Derive a task again and compare."""
    done = TaskCheck()
    evidence = Evidence(books, reading)
    try:
        done.differences += _differences(books, evidence, reading, done.counts)
        done.sums = _sums(books)
    except Exception as error:  # what stands there cannot even be read by the rules
        why = f"{type(error).__name__}: {error}"
        done.differences.append(
            Difference("tasks", books.task["id"], "row", "rows that cannot be derived", "readable rows", why)
        )
    _count(books, done.counts)
    done.signature_status = evidence.signature_status
    _note_pruned(books, evidence, done)
    return done


def _differences(
    books: TaskBooks, evidence: Evidence, reading: Reading, counts: Counter[str]
) -> Iterator[Difference]:
    number = len(books.attempts) + 1
    yield from _identity(books, number)
    yield from evidence.differences(number)
    yield from task_sequence(books)
    if books.task["reused_from"] is not None:
        counts["reused"] += 1
        yield from _reused(books, evidence)
        return
    all_expected = []
    for n in range(1, number + 1):
        counts["attempts"] += 1
        if n in evidence.broken:
            counts["underivable"] += 1
            continue
        row = books.task if n == number else books.attempts[n - 1]
        if evidence.note_sends(row) is not None or n in evidence.pruned:
            yield from _closed(books, evidence, n)
            continue
        expected, found = _attempt(books, evidence, reading, n)
        yield from found
        if expected.first is not None and not expected.order_free:
            counts["order_decided"] += 1
        all_expected.append(expected)
    if not evidence.broken and not evidence.pruned and not evidence.unsent:
        yield from _double_charges(books, all_expected)


def _identity(books: TaskBooks, number: int) -> Iterator[Difference]:
    task = books.task
    for n, row in enumerate(books.attempts, start=1):
        if row["attempt"] != n:
            where = "attempts", f"{task['id']}.{row['attempt']}", "attempt"
            yield Difference(*where, display(row["attempt"]), display(n), "numbered from 1, without gaps")
    if task["attempt"] != number:
        why = f"{number - 1} earlier attempts stand"
        yield Difference("tasks", task["id"], "attempt", display(task["attempt"]), display(number), why)
    key = idempotency_key(task["id"], number)
    if task["idempotency_key"] != key:
        where = "tasks", task["id"], "idempotency_key"
        yield Difference(*where, task["idempotency_key"], key, "made of id and attempt")
    if task["fingerprint"] is not None:
        spec = TaskSpec(task["ordinal"], task["task_type"], json.loads(task["payload"]), task["priority"])
        if (should_be := spec.fingerprint()) != task["fingerprint"]:
            why = "task_type or payload is not what was stored, or the fingerprint is not"
            yield Difference("tasks", task["id"], "fingerprint", task["fingerprint"], should_be, why)


def _attempt(
    books: TaskBooks, evidence: Evidence, reading: Reading, n: int
) -> tuple[Expected, Sequence[Difference]]:
    """What should be stored for one attempt, by the order that explains most of what is, and the
    differences."""
    stored = _stored_attempt(books, evidence, n)
    sent = [row for row in books.submissions if row["attempt"] == n]
    reports = _recorded_order(stored, evidence.reports.get(n, []))
    inputs = _derivation_input(books, stored, n, sent)
    holds = [entry["delivery_id"] for entry in stored.entries if entry["kind"] == "hold"]
    overtaken = holds[0] is not None if holds else None
    candidates = []
    for events in possible_orders(inputs, sent, reports, overtaken=overtaken):
        expected = derive(inputs, events, reading.decide)
        found = compare(stored, inputs, expected, reading.stored_text)
        candidates.append((found, expected, events))
        if not found:
            break
    found, expected, events = min(candidates, key=lambda candidate: len(candidate[0]))
    expected.order_free = is_order_free(inputs, expected, events, reading.decide)
    found += _contradicted(stored, expected)
    found += _open_sends(sent, expected)
    found += _another_task(books, n, sent, reports)
    return expected, found


def _closed(books: TaskBooks, evidence: Evidence, n: int) -> Iterator[Difference]:
    """An attempt of which evidence was pruned."""
    stored = _stored_attempt(books, evidence, n)
    verdict = lost_finding(stored)
    if verdict in books.pruned_verdicts:
        evidence.unfound[verdict] += 1
    yield from closed_differences(stored, evidence.reports.get(n, []), books.pruned_verdicts)


def _note_pruned(books: TaskBooks, evidence: Evidence, done: TaskCheck) -> None:
    charged = {row["attempt"]: row["credits_charged"] or NOTHING for row in (books.task, *books.attempts)}
    done.archived = list(_charges(books, evidence.archived, charged))
    done.pruned = list(_charges(books, evidence.pruned, charged))
    done.pruned += [(receipt, charged[n]) for n, receipt in evidence.unsent.items()]
    done.unfound = evidence.unfound
    gone = evidence.pruned.keys() | evidence.unsent.keys()
    done.pruned_credits = sum((charged.get(n, NOTHING) for n in gone), NOTHING)
    done.counts["pruned"] += bool(gone)
    done.counts["pruned_attempts"] += len(gone)
    done.counts["pruned_sends"] += len(evidence.unsent)
    done.counts["pruned_findings"] += evidence.unfound.total()


def _charges(
    books: TaskBooks, gone: Mapping[int, Receipt], charged: Mapping[int, Decimal]
) -> Iterator[tuple[Receipt, Decimal]]:
    results = {row["attempt"]: row["delivery_id"] for row in books.results}
    for n, receipt in gone.items():
        counts = n in results and books.receipts.of_body(results[n]) == receipt
        is_own = books.task["reused_from"] is None
        yield receipt, charged.get(n, NOTHING) if counts and is_own else NOTHING


def _contradicted(stored: StoredAttempt, expected: Expected) -> Iterator[Difference]:
    if not expected.order_free and not any(f.verdict is Verdict.CONFLICT for f in expected.findings):
        why = "another order of the same reports closes the money otherwise, and no conflict says so"
        yield Difference("ledger", stored.key, "row", "one closing", "the same in any order", why)


def _open_sends(sent: Sequence[Row], expected: Expected) -> Iterator[Difference]:
    for row in sent:
        should_be = expected.open_sends.get(row["id"])
        if should_be is not None and row["open_sends"] != should_be:
            why = "sends of the attempt before this refusal that nobody had answered for"
            where = "submissions", display(row["id"]), "open_sends"
            yield Difference(*where, display(row["open_sends"]), display(should_be), why)


def _another_task(
    books: TaskBooks, n: int, sent: Sequence[Row], reports: Sequence[ParsedDelivery]
) -> Iterator[Difference]:
    """A report without our key is about the attempt whose provider id it names, if somebody else named it."""
    keyed = {d.id for d in reports if parse_idempotency_key(d.report.idempotency_key or "")}
    named = {row["provider_task_id"] for row in sent}
    named |= {d.report.provider_task_id for d in reports if d.id in keyed}
    for report in reports:
        if report.id not in keyed and report.report.provider_task_id not in named:
            why = f"it names provider task {report.report.provider_task_id}, which attempt {n} is not"
            yield Difference("deliveries", report.id, "task_id", books.task["id"], "another or none", why)


def _stored_attempt(books: TaskBooks, evidence: Evidence, n: int) -> StoredAttempt:
    current = n == len(books.attempts) + 1
    entries, results, findings = (
        [row for row in rows if row["attempt"] == n] for rows in (books.ledger, books.results, books.findings)
    )
    return StoredAttempt(
        "tasks" if current else "attempts",
        books.task if current else books.attempts[n - 1],
        entries,
        results,
        findings,
        [evidence.rows[d.id] for d in evidence.reports.get(n, [])],
    )


def _derivation_input(
    books: TaskBooks, stored: StoredAttempt, n: int, sent: Sequence[Row]
) -> DerivationInput:
    task, row = books.task, stored.row
    decisions = set()
    is_sync = bool(task["asked"]) and n == 1
    if is_sync:
        decisions.add(OwnDecision.ASKED)
    if row["state"] == TaskState.EXPIRED and row["error_code"] in EXPIRY_CODES:
        decisions.add(OwnDecision.EXPIRED)
    refused = all(
        s["answer"] in SURELY_REFUSED or accounts_for(s["answer"], s["http_status"], s["code"]) for s in sent
    )
    if row["state"] == TaskState.CANCELLED and task["run_state"] == "cancelled" and refused:
        decisions.add(OwnDecision.CANCELLED)
    if is_sync and row["state"] == TaskState.REJECTED and (not sent or sent[-1]["answer"] in BOUGHT_NOTHING):
        decisions.add(OwnDecision.GIVEN_UP)
    return DerivationInput(
        task["id"],
        task["run_id"],
        n,
        stored.table == "tasks",
        task["task_type"],
        task["payload"],
        row["credits_estimate"],
        any(f["verdict"] == Verdict.DOUBLE_CHARGED for f in stored.findings),
        frozenset(decisions),
        row["sends"],
    )


def _double_charges(books: TaskBooks, all_expected: Sequence[Expected]) -> Iterator[Difference]:
    charged = sum(1 for expected in all_expected if expected.after.charged)
    noted = sum(
        1 for expected in all_expected for f in expected.findings if f.verdict is Verdict.DOUBLE_CHARGED
    )
    if noted != max(charged - 1, 0):
        why = (
            f"{counted(charged, 'attempt')} {agreeing(charged, 'was', 'were')} "
            f"charged; each after the first is double"
        )
        should_be = f"{counted(max(charged - 1, 0), 'finding')} double_charged"
        where = "findings", books.task["id"], "row"
        yield Difference(*where, f"{counted(noted, 'finding')} double_charged", should_be, why)


def _reused(books: TaskBooks, evidence: Evidence) -> Iterator[Difference]:
    """Answered by another task's result: never sent, known to cost nothing."""
    task = books.task
    where = "tasks", task["id"]
    for column, value in (
        ("state", TaskState.COMPLETED),
        ("money", Money.NONE),
        ("settled_by", REUSED),
        ("reported", None),
        ("verdict", None),
        ("credits_held", None),
        ("credits_charged", NOTHING),
    ):
        if task[column] != value:
            why = f"task {task['reused_from']} answers it, for nothing"
            yield Difference(*where, column, display(task[column]), display(value), why)
    sent = [("ledger", books.ledger), ("submissions", books.submissions), ("deliveries", books.deliveries)]
    for table, row in ((table, row) for table, rows in sent for row in rows):
        yield Difference(table, display(row["id"]), "row", "a row", "none", "the task was never sent")
    where = "results", f"{task['id']}.1"
    if not books.results:
        yield Difference(*where, "row", "missing", "a result", f"of task {task['reused_from']}")
    for result in books.results:
        origin = evidence.rows.get(result["delivery_id"])
        parsed = None if origin is None else evidence.parse(origin)[0]
        if origin is None or parsed is None:
            continue  # reported where it is missing, or where it is filed
        for column, stored, should_be in (
            ("delivery_id", origin["task_id"], task["reused_from"]),
            ("answer_bytes", result["answer_bytes"], len(parsed.report.response)),
            ("answer_sha256", result["answer_sha256"], hashlib.sha256(parsed.report.response).digest()),
            ("answer_chars", result["answer_chars"], answer_chars(parsed.report.response)),
        ):
            if stored != should_be and not (stored is None and column.startswith("answer_")):
                why = f"copied from task {task['reused_from']}"
                yield Difference(*where, column, display(stored), display(should_be), why)


def _recorded_order(stored: StoredAttempt, reports: Sequence[ParsedDelivery]) -> list[ParsedDelivery]:
    """The order in which reports were taken, as far as the books show it: what settled first, conflicts that
    were found while the charge was unknown, what filled it in, the rest. Where what settled had the charge,
    such a conflict came before it: it named another task as well."""
    effects = {row["id"]: row["effect"] for row in stored.deliveries}
    settled = {i for i, effect in effects.items() if effect == Effect.SETTLED}
    settled = settled or {row["delivery_id"] for row in stored.results}
    conflicts = [f for f in stored.findings if f["verdict"] == Verdict.CONFLICT]
    early = {f["delivery_id"] for f in conflicts if f["expected"] is None}
    is_charge_known = any(d.id in settled and d.report.charged is not None for d in reports)

    def rank(delivery: ParsedDelivery) -> tuple[int, str]:
        if delivery.id in settled:
            return 1, delivery.id
        if effects[delivery.id] == Effect.FILLED:
            return 3, delivery.id
        if delivery.id in early:
            return (0 if is_charge_known else 2), delivery.id
        return 4, delivery.id

    return sorted(reports, key=rank)


def _sums(books: TaskBooks) -> dict[str, Decimal]:
    """Credits of the ledger, and of the attempts that it must agree with."""
    closed = {entry["attempt"] for entry in books.ledger if entry["kind"] != "hold"}
    sums = dict.fromkeys(("hold", "post", "void", "open_holds", "charged", "held", "adjusted"), NOTHING)
    for entry in books.ledger:
        sums[entry["kind"]] = sums.get(entry["kind"], NOTHING) + entry["credits"]
        if entry["kind"] == "hold" and entry["attempt"] not in closed:
            sums["open_holds"] += entry["credits"]
    for row in (books.task, *books.attempts):
        sums["charged"] += row["credits_charged"] or NOTHING
        if row["money"] == Money.HELD:
            sums["held"] += row["credits_held"] or NOTHING
    sums["adjusted"] = sum((row["credits"] for row in books.adjustments), NOTHING)
    return sums


def _count(books: TaskBooks, counts: Counter[str]) -> None:
    counts["tasks"] += 1
    counts["settled"] += sum(row["reported"] is not None for row in (books.task, *books.attempts))
    for row in books.deliveries:
        counts[f"from_{row['source']}"] += 1
    for name in ("submissions", "results", "ledger", "findings", "adjustments"):
        counts[name] += len(getattr(books, name))
