"""Checking an attempt whose evidence was pruned: its rows against each other. Reads no database.

What the reports said cannot be derived again. That ledger, result and findings are of one piece with the row
can still be told, and the sum of charges is in the receipt.
"""

import hashlib
from collections.abc import Collection, Iterator, Sequence
from decimal import Decimal

from app.domain.delivery import ParsedDelivery
from app.domain.task import Money
from app.domain.verdicts import QUIET_VERDICTS, Verdict
from app.domain.verification.comparison import Difference, StoredAttempt, display


def closed_differences(
    stored: StoredAttempt, reports: Sequence[ParsedDelivery] = (), pruned_verdicts: Collection[str] = ()
) -> Iterator[Difference]:
    """What does not go together in the rows of a closed attempt. `reports`: those of it that stand.
    `pruned_verdicts`: of its run, of which findings were pruned."""
    yield from _entries(stored)
    yield from _result(stored)
    yield from _reported(stored, {report.id: report for report in reports})
    yield from _verdict(stored)
    if (verdict := lost_finding(stored)) is not None and verdict not in pruned_verdicts:
        where, should_be = (stored.table, stored.key, "verdict"), "one with its finding"
        why = "a finding goes with it; its evidence is pruned"
        yield Difference(*where, display(verdict), should_be, why)


def lost_finding(stored: StoredAttempt) -> str | None:
    """The verdict of a closed attempt, where the finding that goes with it is not there."""
    verdict: str | None = stored.row["verdict"]
    has_finding = any(finding["verdict"] == verdict for finding in stored.findings)
    return None if verdict is None or verdict in QUIET_VERDICTS or has_finding else verdict


def _entries(stored: StoredAttempt) -> Iterator[Difference]:
    row = stored.row
    held, charged = row["credits_held"], row["credits_charged"]
    due: dict[str, dict[str, Decimal | None]] = {
        Money.NONE: {},
        Money.HELD: {"hold": held},
        Money.POSTED: {"hold": held, "post": charged},
        Money.VOIDED: {"hold": held, "void": held},
    }
    found = sorted((entry["kind"], entry["credits"]) for entry in stored.entries)
    should_be = sorted(due.get(row["money"], {}).items())
    if found != should_be:
        why = f"the money of its row is {row['money']}; its evidence is pruned"
        yield Difference("ledger", stored.key, "row", _listed(found), _listed(should_be), why)


def _listed(entries: list[tuple[str, Decimal | None]]) -> str:
    return ", ".join(f"{kind} of {display(credits)}" for kind, credits in entries) or "none"


def _result(stored: StoredAttempt) -> Iterator[Difference]:
    row = stored.row
    where = "results", f"{row['id'] if stored.table == 'tasks' else row['task_id']}.{row['attempt']}"
    if (row["reported"] is not None) != bool(stored.results):
        found, should_be = ("a result", "none") if stored.results else ("missing", "a result")
        why = f"reported is {display(row['reported'])}; its evidence is pruned"
        yield Difference(*where, "row", found, should_be, why)
        return
    for result in stored.results:
        if result["answer_sha256"] is None or result["answer_bytes"] is None:
            why = "no body is dropped before its answer is hashed"
            yield Difference(*where, "answer_sha256", "null", "a hash", why)
        pairs = [("status", row["reported"]), ("stored_at_ms", row["settled_at_ms"])]
        for column, value in pairs:
            if result[column] != value:
                why = "as the row of the attempt says; its evidence is pruned"
                yield Difference(*where, column, display(result[column]), display(value), why)


def _reported(stored: StoredAttempt, reports: dict[str, ParsedDelivery]) -> Iterator[Difference]:
    """The result against its report, where only the sends are gone."""
    for result in stored.results:
        if (delivery := reports.get(result["delivery_id"])) is None:
            continue
        report, where = delivery.report, ("results", f"{result['task_id']}.{result['attempt']}")
        sha256 = hashlib.sha256(report.response).digest()
        if result["answer_sha256"] not in (None, sha256):
            should_be, why = display(sha256), "of the answer in its report"
            yield Difference(*where, "answer_sha256", display(result["answer_sha256"]), should_be, why)
        charged = stored.row["credits_charged"]
        if report.charged not in (None, charged):
            of_row = stored.table, stored.key, "credits_charged"
            yield Difference(*of_row, display(charged), display(report.charged), "as its report says")


def _verdict(stored: StoredAttempt) -> Iterator[Difference]:
    row, verdict = stored.row, stored.row["verdict"]
    where = stored.table, stored.key, "verdict", display(verdict)
    # A sync answer says no more than what was charged.
    due = row["credits_estimate"] if row["credits_to_charge"] is None else row["credits_to_charge"]
    facts = {Verdict.MATCHED: ("completed", due), Verdict.FREE_FAILURE: ("failed", Decimal(0))}
    if verdict in facts and (row["reported"], row["credits_charged"]) != facts[verdict]:
        should_be = f"another: {display(row['reported'])}, charged {display(row['credits_charged'])}"
        yield Difference(*where, should_be, "reconciled from the row; its evidence is pruned")
