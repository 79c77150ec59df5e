"""What the ends of sync calls mean."""

import pytest

from app.domain.sync_call import SyncAnswer, SyncEnd, busy_wait_s, end_of


@pytest.mark.parametrize(
    ("status", "code", "enveloped", "left", "end"),
    [
        (429, "CONCURRENT_LIMIT_EXCEEDED", True, 0, SyncEnd.BUSY),
        (429, "CONCURRENCY_LIMIT_EXCEEDED", True, 0, SyncEnd.BUSY),
        (429, "RATE_LIMIT_EXCEEDED", True, None, SyncEnd.BUSY),
        (429, None, False, None, SyncEnd.LOST),
        (429, None, False, 0, SyncEnd.BUSY),
        (404, None, False, None, SyncEnd.LOST),
        (409, "CONCURRENCY_LIMIT_EXCEEDED", True, None, SyncEnd.BUSY),
        (409, None, True, 0, SyncEnd.BUSY),
        (409, None, True, 3, SyncEnd.REFUSED),
        (400, "VALIDATION_ERROR", True, None, SyncEnd.REFUSED),
        (401, "INVALID_OR_EXPIRED_API_KEY", True, None, SyncEnd.REFUSED),
        (403, "INSUFFICIENT_CREDITS", True, None, SyncEnd.REFUSED),
        (408, None, False, None, SyncEnd.LOST),
        (499, "REQUEST_CANCELED", True, None, SyncEnd.LOST),
        (500, "INTERNAL_SERVER_ERROR", True, None, SyncEnd.FAILED),
        (502, None, False, None, SyncEnd.LOST),
        (504, None, False, None, SyncEnd.LOST),
    ],
)
def test_ends(status: int, code: str | None, enveloped: bool, left: int | None, end: SyncEnd) -> None:
    assert end_of(status, code, enveloped=enveloped, slots_left=left) is end


def test_waits_grow_for_a_slot_and_not_for_the_rate() -> None:
    slot = SyncAnswer(SyncEnd.BUSY, slots_used=3)
    assert [busy_wait_s(n, 0.0, slot) for n in (1, 2, 3, 9)] == [0.5, 1.0, 2.0, 7.5]
    rate = SyncAnswer(SyncEnd.BUSY, code="RATE_LIMIT_EXCEEDED")
    assert [busy_wait_s(n, 0.0, rate) for n in (1, 5)] == [0.5, 0.5]
    assert busy_wait_s(1, 0.0, SyncAnswer(SyncEnd.BUSY, wait_s=30.0)) >= 30.0
    for wait_s in (0.0, 0.001):
        asked = SyncAnswer(SyncEnd.BUSY, slots_used=3, wait_s=wait_s)
        assert busy_wait_s(3, 0.0, asked) >= 2.0, "a floor under our own"
