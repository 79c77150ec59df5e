"""What the commands say about accounts, as JSON documents; tables on a terminal are drawn from the same ones.

Credits are exact: an integer, or the decimal as text. Times are ISO 8601, UTC.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.domain.accounting.balances import Balance
from app.domain.accounting.billing import (
    ZERO,
    AccountEntry,
    CreditExposure,
    Cycle,
    CyclePosition,
    EntryKind,
    EntryReason,
    Statement,
)
from app.domain.accounting.drift import Drift, Interval
from app.domain.credits import to_json_number
from app.domain.time_format import iso_utc
from app.services.audit import Audited
from app.views.runs import Document

Burned = tuple[str, str, int, Decimal]
"""Engine, country, posts, credits."""


def cycle_document(cycle: Cycle) -> Document:
    """A billing month."""
    return {"starts_at": iso_utc(cycle.starts_ms), "ends_at": iso_utc(cycle.ends_ms)}


def plan_document(
    found: CyclePosition, balance: Balance | None, burned: Sequence[Burned], *, burn_hours: int, now_ms: int
) -> Document:
    """The state of an account in its running cycle."""
    books, exposure = found.statement, found.exposure
    per_day = Decimal(24) / burn_hours
    return {
        "account": books.account,
        "cycle": cycle_document(books.cycle) | {"days_left": books.cycle.days_left(now_ms)},
        "allocation": to_json_number(books.allocation + books.adjusted),
        "used": to_json_number(books.used),
        "foreign": to_json_number(books.external_usage),
        "held": {"tasks": exposure.held_tasks, "credits": to_json_number(exposure.held)},
        "unknown": {"tasks": exposure.unknown_tasks, "credits": to_json_number(exposure.unknown)},
        "remaining": to_json_number(books.remaining),
        "available": to_json_number(found.available),
        "overage": to_json_number(books.overage),
        "audited": bool(books.entries),
        "provider": None
        if balance is None
        else {"remaining": to_json_number(balance.remaining), "at": iso_utc(balance.at_ms)},
        "burn": {
            "hours": burn_hours,
            "credits_per_day": to_json_number(_rounded(sum((b[3] for b in burned), ZERO) * per_day)),
            "by": [
                {
                    "task_type": engine,
                    "country": country,
                    "tasks": count,
                    "credits": to_json_number(credits),
                    "credits_per_day": to_json_number(_rounded(credits * per_day)),
                }
                for engine, country, count, credits in burned
            ],
        },
    }


def statement_document(books: Statement) -> Document:
    """A cycle line by line, each with the balance after it, and its sums."""
    return {
        "account": books.account,
        "cycle": cycle_document(books.cycle),
        "closed": books.closed,
        "lines": statement_lines(books),
        "totals": {
            "allocation": to_json_number(books.allocation),
            "adjusted": to_json_number(books.adjusted),
            "used": to_json_number(books.used),
            "foreign": to_json_number(books.external_usage),
            "expired": to_json_number(books.expired),
            "overage": to_json_number(books.overage),
            "closing": to_json_number(books.closing),
        },
    }


def statement_lines(books: Statement) -> list[Document]:
    """Every line in order of time: what is granted before what is spent, and the end last."""
    lines: list[tuple[str, int, Decimal, Document]] = []
    for entry in books.entries:
        gain = entry.credits if entry.kind in _GRANTS else -entry.credits
        order = _ORDER.index(entry.kind)
        # The end of the cycle belongs to the next one's day; its line is this one's last.
        day = "9" if _is_end(entry) else (iso_utc(entry.at_ms) or "")[:10]
        lines.append((day, order, gain, {"day": (iso_utc(entry.at_ms) or "")[:10], **_entry_line(entry)}))
    for post in books.posts:
        line = {
            "day": post.day,
            "what": "posts",
            "task_type": post.task_type,
            "mode": "sync" if post.sync else "async",
            "count": post.count,
        }
        lines.append((post.day, len(_ORDER), -post.credits, line))
    lines.sort(key=lambda line: line[:2])
    if books.overage:
        end = (iso_utc(books.cycle.ends_ms) or "")[:10]
        lines.append(("9", 0, books.overage, {"day": end, "what": "overage"}))
    documents: list[Document] = []
    balance = ZERO
    for _, _, gain, line in lines:
        balance += gain
        documents.append({**line, "credits": to_json_number(gain), "balance": to_json_number(balance)})
    return documents


def audit_document(found: Audited) -> Document:
    """An audit: the balance now, what it added to the books, and every change, explained or not."""
    balance, position = found.balance, found.position
    exposure = CreditExposure() if position is None else position.exposure
    return {
        "account": found.account,
        "at": iso_utc(found.at_ms),
        "balance": None if balance is None else to_json_number(balance.remaining),
        "books": None if position is None else to_json_number(position.statement.remaining),
        "cycle": None if position is None else cycle_document(position.statement.cycle),
        "explained": found.drift.explained,
        "unexplained": to_json_number(found.drift.unexplained),
        "foreign": {
            "lowest": to_json_number(found.drift.external_lowest),
            "highest": to_json_number(found.drift.external_highest),
        },
        "unknown_exposure": {
            "tasks": exposure.held_tasks + exposure.unknown_tasks,
            "credits": to_json_number(found.drift.exposure),
        },
        "unjudged": found.drift.unjudged,
        "booked": [
            {"at": iso_utc(e.at_ms), **_entry_line(e), "credits": to_json_number(e.credits)}
            for e in found.booked
        ],
        "intervals": [_interval(interval) for interval in found.drift.intervals],
        "resets": _resets(found.drift),
    }


def _interval(interval: Interval) -> Document:
    figures = {
        "before": interval.before,
        "granted": interval.granted,
        "after": interval.after,
        "actual": interval.actual,
        "ours_lowest": interval.ours_lowest,
        "ours_highest": interval.ours_highest,
        "exposure": interval.exposure,
        "foreign": interval.external,
        "unexplained": interval.unexplained,
    }
    times: dict[str, Any] = {"from": iso_utc(interval.from_ms), "to": iso_utc(interval.to_ms)}
    return times | {name: to_json_number(credits) for name, credits in figures.items()}


def _resets(drift: Drift) -> list[Document]:
    figures = ("allocation", "expired_lowest", "expired_highest", "overdrawn")
    return [
        {"at": iso_utc(reset.at_ms), **{name: to_json_number(getattr(reset, name)) for name in figures}}
        for reset in drift.resets
    ]


def _entry_line(entry: AccountEntry) -> Document:
    return {"what": entry.kind.value, "reason": entry.reason}


def _is_end(entry: AccountEntry) -> bool:
    return entry.kind is EntryKind.EXPIRY or entry.cause == EntryReason.LATE_REPORT


def _rounded(credits: Decimal) -> Decimal:
    return credits.quantize(Decimal("0.1"))


_GRANTS = (EntryKind.ALLOCATION, EntryKind.ADJUSTMENT)
_ORDER = (EntryKind.ALLOCATION, EntryKind.ADJUSTMENT, EntryKind.EXTERNAL_USAGE, EntryKind.EXPIRY)
