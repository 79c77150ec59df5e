"""The course of a task as events in the order of their times: what happened, when, what shows it. Pure."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.api.fields import exact
from app.api.native.books import Finding, LedgerEntry
from app.domain.evidence.records import DisputedAttempt, Send, StoredReport
from app.domain.send_outcome import Answer
from app.domain.text import counted
from app.page.parts.words import found
from app.page.task.reading import TaskView

ORDER = ("stored", "sent", "accepted", "hold", "delivered", "swept", "answered", "settled", "found")
"""Of events of the same millisecond."""
_SENT = {
    Answer.ACCEPTED: ("done", "accepted"),
    Answer.EXISTS: ("done", "accepted before: an earlier send had arrived"),
    Answer.REJECTED: ("wrong", "refused for good"),
    Answer.DEFERRED: ("waiting", "not sent: the account paused meanwhile"),
    Answer.LOST: ("doubt", "no answer: sent again with the same key"),
}
_SOURCES = {
    "delivery": ("delivered", "Delivered by webhook"),
    "poll": ("swept", "Asked for, as no webhook had come"),
    "sync": ("answered", "Answered at once"),
}
_BOOKED = {
    "hold": ("waiting", "Held"),
    "post": ("done", "Settled: posted"),
    "void": ("over", "Settled: voided"),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened."""

    kind: str
    """One of ORDER."""
    at_ms: int
    tone: str
    """A shape of parts.badge."""
    title: str
    attempt: int | None
    details: tuple[tuple[str, str], ...] = ()
    """Names and values, as text."""
    report: StoredReport | None = None
    """The bytes that show it."""


def timeline(view: TaskView) -> list[Event]:
    """All of it, the oldest first."""
    events = [_stored(view), *_booked(view.task.ledger), *map(_found, view.task.findings)]
    for attempt in view.attempts:
        events += _of_attempt(attempt)
    return sorted(events, key=lambda event: (event.at_ms, event.attempt or 0, ORDER.index(event.kind)))


def _stored(view: TaskView) -> Event:
    # Its id is a UUIDv7, which begins with the time at which it was made.
    at_ms = uuid.UUID(view.task.id).int >> 80
    details = (("run", view.run.name), ("place in its source", f"{view.task.ordinal:,}"))
    return Event("stored", at_ms, "waiting", "Stored", None, details)


def _of_attempt(attempt: DisputedAttempt) -> Iterator[Event]:
    for number, send in enumerate(attempt.sends, 1):
        yield _sent(attempt, send, number)
    if attempt.submitted_at_ms is not None and not any(s.answer == Answer.ACCEPTED for s in attempt.sends):
        yield Event(
            "accepted",
            attempt.submitted_at_ms,
            "done",
            "Accepted, as its report or a repeated send shows",
            attempt.attempt,
            _given(("provider task", attempt.provider_task_id)),
        )
    for report in attempt.reports:
        yield _reported(report)


def _sent(attempt: DisputedAttempt, send: Send, number: int) -> Event:
    known = next((words for answer, words in _SENT.items() if answer == send.answer), None)
    tone, words = known or ("doubt", f"{send.answer.replace('_', ' ')}: to be sent again")
    status = "no response" if send.http_status is None else str(send.http_status)
    details = _given(
        ("HTTP status", status),
        ("code", send.code),
        ("message", send.message),
        ("request id", send.request_id),
        ("provider task", send.provider_task_id),
        ("creditsToCharge", _amount(send.credits_to_charge)),
    )
    again = "" if number == 1 else f" again ({number})"
    return Event("sent", send.at_ms, tone, f"Sent{again}: {words}", attempt.attempt, details)


def _reported(report: StoredReport) -> Event:
    kind, title = _SOURCES.get(report.source, ("delivered", report.source))
    details = _given(
        ("effect", report.effect),
        ("X-Cloro-Webhook-Id", report.webhook_id),
        ("X-Cloro-Timestamp", report.signed_at),
        ("X-Cloro-Signature", report.signature),
        ("body", counted(len(report.body), "byte")),
        ("delivery", report.id),
    )
    tone = "doubt" if report.effect in ("conflict", "unmatched") else "done"
    return Event(kind, report.received_at_ms, tone, title, report.attempt, details, report)


def _booked(entries: Sequence[LedgerEntry]) -> Iterator[Event]:
    for entry in entries:
        tone, title = _BOOKED[entry.kind]
        kind = "hold" if entry.kind == "hold" else "settled"
        details = _given(
            ("ledger entry", str(entry.id)), ("by delivery", entry.delivery_id), ("why", entry.reason)
        )
        words = f"{title} {counted(exact(entry.credits), 'credit')}"
        yield Event(kind, entry.at, tone, words, entry.attempt, details)


def _found(finding: Finding) -> Event:
    details = (("what", found(finding)), ("finding", str(finding.id)))
    title = f"Found: {finding.verdict.replace('_', ' ')}"
    return Event("found", finding.at, "wrong", title, finding.attempt, details)


def _amount(credits: Decimal | None) -> str | None:
    return None if credits is None else exact(credits)


def _given(*details: tuple[str, str | None]) -> tuple[tuple[str, str], ...]:
    return tuple((name, value) for name, value in details if value)
