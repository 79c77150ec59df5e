"""What the commands say about accounts, as JSON documents; tables on a terminal are drawn from the same ones.

Credits are exact: an integer, or the decimal as text. Times are ISO 8601, UTC.
"""

from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.domain.accounting.balances import Snapshot
from app.domain.accounting.billing import (
    ZERO,
    AccountEntry,
    Cycle,
    EntryKind,
    Exposure,
    Reason,
    Standing,
    Statement,
)
from app.domain.accounting.drift import Drift, Interval
from app.domain.credits import plain
from app.services.audit import Audited
from app.views.runs import Document, iso

Burned = tuple[str, str, int, Decimal]
"""Engine, country, posts, credits."""


def cycle_document(cycle: Cycle) -> Document:
    """A billing month."""
    return {"starts_at": iso(cycle.starts_ms), "ends_at": iso(cycle.ends_ms)}


def plan_document(
    found: Standing, balance: Snapshot | None, burned: Sequence[Burned], *, burn_hours: int, now_ms: int
) -> Document:
    """Where an account stands in its running cycle."""
    books, exposure = found.statement, found.exposure
    per_day = Decimal(24) / burn_hours
    return {
        "account": books.account,
        "cycle": cycle_document(books.cycle) | {"days_left": books.cycle.days_left(now_ms)},
        "allocation": plain(books.allocation + books.adjusted),
        "used": plain(books.used),
        "foreign": plain(books.foreign),
        "held": {"tasks": exposure.held_tasks, "credits": plain(exposure.held)},
        "unknown": {"tasks": exposure.unknown_tasks, "credits": plain(exposure.unknown)},
        "remaining": plain(books.remaining),
        "available": plain(found.available),
        "overage": plain(books.overage),
        "audited": bool(books.entries),
        "provider": None if balance is None else {
            "remaining": plain(balance.remaining), "at": iso(balance.at_ms),
        },
        "burn": {
            "hours": burn_hours,
            "credits_per_day": plain(_rounded(sum((b[3] for b in burned), ZERO) * per_day)),
            "by": [
                {
                    "task_type": engine, "country": country, "tasks": count, "credits": plain(credits),
                    "credits_per_day": plain(_rounded(credits * per_day)),
                }
                for engine, country, count, credits in burned
            ],
        },
    }  # fmt: skip


def statement_document(books: Statement) -> Document:
    """A cycle line by line, each with the balance after it, and its sums."""
    return {
        "account": books.account,
        "cycle": cycle_document(books.cycle),
        "closed": books.closed,
        "lines": statement_lines(books),
        "totals": {
            "allocation": plain(books.allocation), "adjusted": plain(books.adjusted),
            "used": plain(books.used), "foreign": plain(books.foreign), "expired": plain(books.expired),
            "overage": plain(books.overage), "closing": plain(books.closing),
        },
    }  # fmt: skip


def statement_lines(books: Statement) -> list[Document]:
    """Every line in order of time: what is granted before what is spent, and the end last."""
    lines: list[tuple[str, int, Decimal, Document]] = []
    for entry in books.entries:
        gain = entry.credits if entry.kind in _GRANTS else -entry.credits
        order = _ORDER.index(entry.kind)
        # The end of the cycle belongs to the next one's day; its line is this one's last.
        day = "9" if _is_end(entry) else (iso(entry.at_ms) or "")[:10]
        lines.append((day, order, gain, {"day": (iso(entry.at_ms) or "")[:10], **_entry_line(entry)}))
    for post in books.posts:
        line = {
            "day": post.day, "what": "posts", "task_type": post.task_type,
            "mode": "sync" if post.sync else "async", "count": post.count,
        }  # fmt: skip
        lines.append((post.day, len(_ORDER), -post.credits, line))
    lines.sort(key=lambda line: line[:2])
    if books.overage:
        end = (iso(books.cycle.ends_ms) or "")[:10]
        lines.append(("9", 0, books.overage, {"day": end, "what": "overage"}))
    told: list[Document] = []
    balance = ZERO
    for _, _, gain, line in lines:
        balance += gain
        told.append({**line, "credits": plain(gain), "balance": plain(balance)})
    return told


def audit_document(found: Audited) -> Document:
    """An audit: the balance now, what it added to the books, and every change, explained or not."""
    balance, standing = found.balance, found.standing
    exposure = Exposure() if standing is None else standing.exposure
    return {
        "account": found.account,
        "at": iso(found.at_ms),
        "balance": None if balance is None else plain(balance.remaining),
        "books": None if standing is None else plain(standing.statement.remaining),
        "cycle": None if standing is None else cycle_document(standing.statement.cycle),
        "explained": found.drift.explained,
        "unexplained": plain(found.drift.unexplained),
        "foreign": {
            "lowest": plain(found.drift.foreign_lowest), "highest": plain(found.drift.foreign_highest),
        },
        "unknown_exposure": {
            "tasks": exposure.held_tasks + exposure.unknown_tasks, "credits": plain(found.drift.exposure),
        },
        "unjudged": found.drift.unjudged,
        "booked": [{"at": iso(e.at_ms), **_entry_line(e), "credits": plain(e.credits)} for e in found.booked],
        "intervals": [_interval(interval) for interval in found.drift.intervals],
        "resets": _resets(found.drift),
    }  # fmt: skip


def _interval(interval: Interval) -> Document:
    figures = (
        "before", "granted", "after", "actual", "ours_lowest", "ours_highest", "exposure", "foreign",
        "unexplained",
    )  # fmt: skip
    times: dict[str, Any] = {"from": iso(interval.from_ms), "to": iso(interval.to_ms)}
    return times | {name: plain(getattr(interval, name)) for name in figures}


def _resets(drift: Drift) -> list[Document]:
    figures = ("allocation", "expired_lowest", "expired_highest", "overdrawn")
    return [
        {"at": iso(reset.at_ms), **{name: plain(getattr(reset, name)) for name in figures}}
        for reset in drift.resets
    ]


def _entry_line(entry: AccountEntry) -> Document:
    return {"what": entry.kind.value, "reason": entry.reason}


def _is_end(entry: AccountEntry) -> bool:
    return entry.kind is EntryKind.EXPIRY or entry.cause == Reason.LATE_REPORT


def _rounded(credits: Decimal) -> Decimal:
    return credits.quantize(Decimal("0.1"))


_GRANTS = (EntryKind.ALLOCATION, EntryKind.ADJUSTMENT)
_ORDER = (EntryKind.ALLOCATION, EntryKind.ADJUSTMENT, EntryKind.FOREIGN, EntryKind.EXPIRY)
