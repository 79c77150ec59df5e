"""What a dispute says: each discrepancy as a document, in plain words, and with its arithmetic.

Pure. May not do I/O, read a clock or log; what is secret is not known here.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from app.domain.credits import to_json_number
from app.domain.engines.table import EXTRA_BILLING
from app.domain.evidence.records import Discrepancy, DisputedAttempt, DisputedTask, StoredReport
from app.domain.own_columns import own_document
from app.domain.pricing import explained_extra
from app.domain.reconciliation import arithmetic
from app.domain.settlement import Source
from app.domain.stored_json import read_json
from app.domain.task import idempotency_key
from app.domain.time_format import iso_utc
from app.domain.verdicts import VERDICTS, VerdictRow

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Sums:
    """Discrepancies of one verdict. The credits are those of the ones where both figures are known."""

    count: int = 0
    expected: Decimal = Decimal(0)
    actual: Decimal = Decimal(0)

    def plus(self, found: Discrepancy) -> "Sums":
        """With one more."""
        if found.expected is None or found.actual is None:
            return Sums(self.count + 1, self.expected, self.actual)
        return Sums(self.count + 1, self.expected + found.expected, self.actual + found.actual)

    def document(self) -> Document:
        """For JSON."""
        return {
            "count": self.count,
            "expected": to_json_number(self.expected),
            "actual": to_json_number(self.actual),
            "difference": to_json_number(self.actual - self.expected),
        }


def discrepancy_document(
    found: Discrepancy, number: int, folder: str, *, sync: bool, with_metadata: bool
) -> Document:
    """One discrepancy: a line of the list, and the first file of its folder. `sync`: it was a sync call,
    which costs a surcharge (C-E.2). `with_metadata`: with the own columns of its task."""
    task, attempt = found.task, found.about()
    own = {"metadata": own_document(task.metadata if task is not None else None)} if with_metadata else {}
    return own | {
        "number": number,
        "folder": folder,
        "verdict": str(found.verdict),
        "in_words": _in_words(found),
        "found_at": iso_utc(found.at_ms),
        "expected": to_json_number(found.expected),
        "actual": to_json_number(found.actual),
        "difference": _difference(found),
        "detail": found.detail,
        "provider_task_id": attempt.provider_task_id if attempt is not None else None,
        "idempotency_key": _key(task, found.attempt),
        "request_ids": [s.request_id for s in attempt.sends if s.request_id] if attempt is not None else [],
        "task_id": task.id if task is not None else None,
        "custom_id": task.custom_id if task is not None else None,
        "sample": task.sample if task is not None else None,
        "repeats": task.repeats if task is not None else None,
        "attempt": found.attempt,
        "ordinal": task.ordinal if task is not None else None,
        "task_type": task.task_type if task is not None else None,
        "submitted_at": iso_utc(attempt.submitted_at_ms) if attempt is not None else None,
        "settled_at": iso_utc(attempt.settled_at_ms) if attempt is not None else None,
        "credits": _credits(attempt) if attempt is not None else None,
        "arithmetic": _arithmetic(task, attempt, sync=sync),
        "attempts": [a.attempt for a in task.attempts] if task is not None else [],
    }


def answers_document(attempt: DisputedAttempt) -> list[Document]:
    """How each send of an attempt ended, in order."""
    return [
        {
            "at": iso_utc(send.at_ms),
            "end": send.answer,
            "http_status": send.http_status,
            "code": send.code,
            "message": send.message,
            "X-Request-ID": send.request_id,
            "task_id": send.provider_task_id,
            "creditsToCharge": to_json_number(send.credits_to_charge),
        }
        for send in attempt.sends
    ]


def report_document(report: StoredReport, body: str | None) -> Document:
    """A report but its bytes, which are in the file `body`; None: they are withheld."""
    document: Document = {
        "id": report.id,
        "received_at": iso_utc(report.received_at_ms),
        "effect": report.effect,
        "body": body,
    }
    if report.source == Source.DELIVERY:
        document["headers"] = {
            "X-Cloro-Webhook-Id": report.webhook_id,
            "X-Cloro-Timestamp": report.signed_at,
            "X-Cloro-Signature": report.signature,
        }
    return document


def _in_words(found: Discrepancy) -> str:
    figures = {
        "expected": to_json_number(found.expected),
        "actual": to_json_number(found.actual),
        "detail": found.detail,
    }
    shown = {name: "an unknown number of" if value is None else value for name, value in figures.items()}
    row = VERDICTS.get(found.verdict, VerdictRow())
    return row.words.format(**shown)


def _difference(found: Discrepancy) -> int | str | None:
    if found.expected is None or found.actual is None:
        return None
    return to_json_number(found.actual - found.expected)


def _key(task: DisputedTask | None, attempt: int | None) -> str | None:
    return None if task is None or attempt is None else idempotency_key(task.id, attempt)


def _credits(attempt: DisputedAttempt) -> Document:
    """What each side reported."""
    return {
        "our_estimate": to_json_number(attempt.estimate),
        "creditsToCharge": to_json_number(attempt.to_charge),
        "held": to_json_number(attempt.held),
        "creditsCharged": to_json_number(attempt.charged),
    }


def _arithmetic(task: DisputedTask | None, attempt: DisputedAttempt | None, *, sync: bool) -> Document | None:
    """How the price comes about by the public list of the day it was sent; None where no price is known."""
    sent_at = None if attempt is None else attempt.submitted_at_ms or attempt.first_sent_at_ms
    if task is None or attempt is None or sent_at is None:
        return None
    payload = json.loads(task.payload_json)
    clusters = _clusters(task.task_type, payload, attempt.reports)
    price = arithmetic(task.task_type, payload, iso_utc(sent_at)[:10], sync=sync, clusters=clusters)
    return {
        "sent_on": iso_utc(sent_at)[:10],
        "prices_since": price.since,
        "lines": [{"what": line.what, "credits": to_json_number(line.credits)} for line in price.lines],
        "total": to_json_number(price.total),
        "line": str(price),
    }


def _clusters(task_type: str, payload: Mapping[str, object], reports: Sequence[StoredReport]) -> int:
    """Product clusters in the answer that was taken, where the engine bills them (C-E.1)."""
    taken = next((r for r in reports if r.effect == "settled"), None)
    if task_type not in EXTRA_BILLING or taken is None:
        return 0
    try:
        response = read_json(taken.body).get("response")
    except (ValueError, AttributeError, RecursionError):
        return 0
    if not isinstance(response, dict):
        return 0
    inner = response.get("result")
    flat = inner if isinstance(response.get("success"), bool) and isinstance(inner, dict) else response
    return int(explained_extra(task_type, payload, flat))


@dataclass(frozen=True, slots=True)
class Book:
    """The run that a dispute is about."""

    run_id: str
    name: str
    source: str
    account: str
    begun_ms: int


def readme(book: Book, verdicts: Mapping[str, Sums], *, at_ms: int, withheld: int) -> str:
    """The first page of an archive, for somebody who knows nothing of us."""
    rows = [["verdict", "count", "expected", "actual", "difference"]]
    for verdict, sums in sorted(verdicts.items()):
        figures = sums.document().values()
        rows.append([verdict, *map(str, figures)])
    table = "\n".join(f"  {first:<16}" + "".join(f"{cell:>12}" for cell in rest) for first, *rest in rows)
    note = WITHHELD_NOTE.format(count=withheld) if withheld else ""
    count = sum(sums.count for sums in verdicts.values())
    return README.format(
        count=count,
        name=book.name,
        run_id=book.run_id,
        source=book.source,
        account=book.account,
        begun=iso_utc(book.begun_ms),
        made=iso_utc(at_ms),
        table=table,
        withheld=note,
    )


WITHHELD_NOTE = """
{count} of the reports hold a secret of the account within a prompt or an answer, and are therefore left out.
"""
README = """Discrepancies between what was charged and what our books expect
=================================================================

{count} discrepancies of the run "{name}" ({run_id}, from {source}, account {account}, begun
{begun}). State of our books on {made}.

{table}

Credits; of the discrepancies where both figures are known. What each verdict means is said in plain words in
the field in_words of each discrepancy.

What is in this archive
-----------------------
  discrepancies.jsonl, .csv    one line for each discrepancy
  discrepancies/<number>-<verdict>/
    discrepancy.json           the same line, and how the price comes about
    attempt-<n>/request.json   method, path and the file of the body
    attempt-<n>/request.body   the body: made again from the stored prompt and idempotency key by the code
                               that sent it. The webhook's address is today's. Of a batch it is one element.
    attempt-<n>/answers.json   how each send ended: status, code, message, X-Request-ID
    attempt-<n>/deliveries/    webhook deliveries: the exact bytes (.body), and the headers that sign them
    attempt-<n>/polls/         answers of GET /v1/async/task/<id>: the exact bytes; the provider signs none
    attempt-<n>/answers/       answers of sync calls, in the form of a report
  manifest.json                SHA-256 and size of every other file

A report about a task that we never sent has no attempt; its delivery is directly in its folder.

How to check it
---------------
The manifest gives the SHA-256 of every file. The signature of a delivery is
HMAC-SHA-256(webhook secret, X-Cloro-Timestamp + "." + body) in hexadecimal, with the whole secret as the key.
A script that does both and needs nothing but Python comes with Tallyhook: examples/verify_dispute.py.

Please note
-----------
Prompts and answers are in this archive of necessity: they are what was signed and what was priced. API keys
and webhook secrets are not in it.
{withheld}"""
