"""The slots of a schedule."""

from hypothesis import given
from hypothesis import strategies as st

from app.domain.schedule_slots import DueSlot, due_slot, next_slot

TIMES = st.integers(0, 10**13)


def test_only_the_latest_of_missed_slots_is_due() -> None:
    assert due_slot(1_000, 100, 999) is None
    assert due_slot(1_000, 100, 1_000) == DueSlot(1_000, 1_100, 0)
    assert due_slot(1_000, 100, 1_099) == DueSlot(1_000, 1_100, 0)
    assert due_slot(1_000, 100, 1_350) == DueSlot(1_300, 1_400, 3)


@given(TIMES, st.integers(1, 10**10), TIMES)
def test_slots_stay_on_their_line(next_at: int, every: int, now: int) -> None:
    due = due_slot(next_at, every, now)
    if due is not None:
        assert due.slot_ms <= now < due.next_ms
        assert due.next_ms == due.slot_ms + every
        assert due.slot_ms == next_at + due.skipped * every
    coming = next_slot(next_at, every, now)
    assert coming > now or coming == next_at
    assert (coming - next_at) % every == 0
