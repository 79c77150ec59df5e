"""Billing months: an anchor day, clamped in short months and returned to afterwards (C-F, C-L row L31)."""

import calendar
from datetime import UTC, datetime


def months_after(anchor_s: float, months: int) -> float:
    """The anchor moment so many months later. Counted from the anchor each time, never from the month
    before: the 31st becomes the 28th in February and is the 31st again in March."""
    anchor = datetime.fromtimestamp(anchor_s, UTC)
    month = anchor.month - 1 + months
    year, month = anchor.year + month // 12, month % 12 + 1
    day = min(anchor.day, calendar.monthrange(year, month)[1])
    return anchor.replace(year=year, month=month, day=day).timestamp()
