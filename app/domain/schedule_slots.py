"""The slots of a schedule: equal steps on a line of time. Times are UTC milliseconds."""

from typing import NamedTuple


class DueSlot(NamedTuple):
    """The slot to run now."""

    slot_ms: int
    next_ms: int
    """The slot after it."""
    skipped: int
    """Slots before it that nobody ran; they are not caught up on."""


def due_slot(next_at_ms: int, every_ms: int, now_ms: int) -> DueSlot | None:
    """The latest slot that has come, `next_at_ms` being the first that was not run; None: none has."""
    if now_ms < next_at_ms:
        return None
    skipped = (now_ms - next_at_ms) // every_ms
    slot_ms = next_at_ms + skipped * every_ms
    return DueSlot(slot_ms, slot_ms + every_ms, skipped)


def next_slot(next_at_ms: int, every_ms: int, now_ms: int) -> int:
    """The first slot on the same line that is still to come."""
    due = due_slot(next_at_ms, every_ms, now_ms)
    return next_at_ms if due is None else due.next_ms
