"""What an answer means, and how long to wait."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.send_outcome import BACKOFF_MAX_S, RETRIED, Answer, backoff_s, classify


@pytest.mark.parametrize(
    ("status", "code", "answer"),
    [
        (200, None, Answer.ACCEPTED),
        (201, None, Answer.ACCEPTED),
        (400, "VALIDATION_ERROR", Answer.REJECTED),
        (422, "VALIDATION_ERROR", Answer.REJECTED),
        (401, "MISSING_API_KEY", Answer.BAD_KEY),
        (401, "INVALID_API_KEY_FORMAT", Answer.BAD_KEY),
        (401, "INVALID_OR_EXPIRED_API_KEY", Answer.BAD_KEY),
        (401, None, Answer.BAD_KEY),
        (402, None, Answer.NO_CREDITS),
        (403, "INSUFFICIENT_CREDITS", Answer.NO_CREDITS),
        (403, "INSUFFICIENT_PERMISSIONS", Answer.NO_CREDITS),
        (403, None, Answer.NO_CREDITS),
        (404, None, Answer.MISDIRECTED),
        (408, None, Answer.UNAVAILABLE),
        (409, "RESOURCE_ALREADY_EXISTS", Answer.EXISTS),
        (409, None, Answer.EXISTS),
        (410, None, Answer.MISDIRECTED),
        (425, None, Answer.UNAVAILABLE),
        (429, "RATE_LIMIT_EXCEEDED", Answer.RATE_LIMITED),
        (429, "CONCURRENCY_LIMIT_EXCEEDED", Answer.RATE_LIMITED),
        (429, "CONCURRENT_LIMIT_EXCEEDED", Answer.RATE_LIMITED),
        (429, None, Answer.RATE_LIMITED),
        (429, "QUEUE_LIMIT_EXCEEDED", Answer.QUEUE_FULL),
        (499, None, Answer.UNAVAILABLE),
        (500, "INTERNAL_SERVER_ERROR", Answer.UNAVAILABLE),
        (502, None, Answer.UNAVAILABLE),
        (503, None, Answer.UNAVAILABLE),
        (599, "SOMETHING_NEW", Answer.UNAVAILABLE),
        (418, "SOMETHING_NEW", Answer.MISDIRECTED),
        (302, None, Answer.UNAVAILABLE),
        # About the task itself, and nothing else closes one.
        (400, "SOMETHING_NEW", Answer.REJECTED),
        (413, None, Answer.REJECTED),
        (451, "SOMETHING_NEW", Answer.REJECTED),
        (404, "VALIDATION_ERROR", Answer.REJECTED),
        # A wrong address, method, version or key, whatever status it comes with.
        (404, "RESOURCE_NOT_FOUND", Answer.MISDIRECTED),
        (400, "RESOURCE_NOT_FOUND", Answer.MISDIRECTED),
        (405, "METHOD_NOT_ALLOWED", Answer.MISDIRECTED),
        (400, "UNSUPPORTED_API_VERSION", Answer.MISDIRECTED),
        (400, "UNSUPPORTED_VERSION", Answer.MISDIRECTED),
        (400, "API_KEY_EXPIRED", Answer.MISDIRECTED),
        (400, "UNSUPPORTED_MODEL_VERSION", Answer.REJECTED),
        (410, "ENDPOINT_GONE", Answer.MISDIRECTED),
        (415, "UNSUPPORTED_MEDIA_TYPE", Answer.MISDIRECTED),
        (426, None, Answer.MISDIRECTED),
        (431, None, Answer.MISDIRECTED),
        (501, None, Answer.MISDIRECTED),
        (505, "SOMETHING_NEW", Answer.MISDIRECTED),
        (400, "INVALID_API_KEY_FORMAT", Answer.BAD_KEY),
        (400, "INVALID_OR_EXPIRED_API_KEY", Answer.BAD_KEY),
        # The code decides.
        (409, "CONCURRENCY_LIMIT_EXCEEDED", Answer.RATE_LIMITED),
        (400, "RATE_LIMIT_EXCEEDED", Answer.RATE_LIMITED),
        (400, "SERVICE_UNAVAILABLE", Answer.UNAVAILABLE),
        (400, "INTERNAL_SERVER_ERROR", Answer.UNAVAILABLE),
    ],
)
def test_each_status_has_one_meaning(status: int, code: str | None, answer: Answer) -> None:
    assert classify(status, code) is answer


@given(st.integers(100, 599), st.none() | st.text(max_size=30))
def test_no_answer_is_left_without_a_meaning(status: int, code: str | None) -> None:
    answer = classify(status, code)
    assert answer not in (Answer.LOST, Answer.DEFERRED)
    # What is paid for is never thrown away: only a refusal for good ends an attempt.
    assert answer is not Answer.REJECTED or 400 <= status < 500


def test_only_what_may_pass_is_sent_again() -> None:
    assert set(RETRIED) == {
        Answer.RATE_LIMITED,
        Answer.QUEUE_FULL,
        Answer.UNAVAILABLE,
        Answer.GATEWAY,
        Answer.LOST,
        Answer.MISDIRECTED,
    }


@pytest.mark.parametrize(
    ("sends", "low", "high"), [(0, 0.5, 1), (1, 0.5, 1), (2, 1, 2), (3, 2, 4), (7, 30, 60), (500, 30, 60)]
)
def test_waits_double_up_to_a_minute(sends: int, low: float, high: float) -> None:
    assert backoff_s(sends, 0.0) == low
    assert low <= backoff_s(sends, 0.999) < high


@given(st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.none() | st.floats(0, 7_200))
def test_a_wait_is_bounded_and_never_shorter_than_asked(
    sends: int, jitter: float, asked_s: float | None
) -> None:
    wait_s = backoff_s(sends, jitter, asked_s)
    assert (asked_s or 0) <= wait_s <= (asked_s or 0) + BACKOFF_MAX_S
    assert wait_s >= backoff_s(sends, jitter), "a floor under our own"
    assert wait_s > 0
