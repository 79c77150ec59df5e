"""What is told, how it is signed, and what becomes of a try."""

import base64
import json
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.config import ConfigError, load_settings
from app.domain.admission import send_quota
from app.domain.notices.notice import (
    RETRY_FIRST_MS,
    RETRY_MAX_MS,
    Answered,
    Notice,
    NoticeKind,
    NoticeSecretError,
    NoticeState,
    outcome_of,
    signature_of,
    signing_key,
)
from app.domain.notices.triggers import RunSnapshot, run_edge, step_reached
from app.domain.run_reason import BUDGET, MONTH_BUDGET
from app.notice_client import open_notice_client
from tests.integration.notices.receiver import verify

# The vector that the reference libraries of Standard Webhooks test with.
SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
ID, AT_S, BODY = "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
SIGNATURE = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def headers(notice_id: str, at_s: int, signature: str) -> dict[str, str]:
    return {"webhook-id": notice_id, "webhook-timestamp": str(at_s), "webhook-signature": signature}


def test_the_published_vector() -> None:
    assert signature_of([signing_key(SECRET)], ID, AT_S, BODY) == SIGNATURE
    verify(SECRET, headers(ID, AT_S, SIGNATURE), BODY, now_s=AT_S)


KEYS = st.binary(min_size=24, max_size=64)


@given(KEYS, KEYS, st.binary(max_size=200), st.integers(0, 2**33))
def test_an_independent_check_agrees(new: bytes, old: bytes, body: bytes, at_s: int) -> None:
    secrets = ["whsec_" + base64.b64encode(key).decode() for key in (new, old)]
    signed = headers("n1", at_s, signature_of([signing_key(s) for s in secrets], "n1", at_s, body))
    for secret in secrets:
        verify(secret, signed, body, now_s=at_s + 299)
        for wrong in (body + b" ", body[:-1] if body else b"x"):
            with pytest.raises(ValueError, match="no signature fits"):
                verify(secret, signed, wrong, now_s=at_s)
    with pytest.raises(ValueError, match="signed at"):
        verify(secrets[0], signed, body, now_s=at_s + 301)


@pytest.mark.parametrize(
    ("secret", "message"),
    [
        ("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "does not begin with whsec_"),
        ("whsec_!!!", "not base64"),
        ("whsec_c2hvcnQ=", "has 5 bytes"),
        ("whsec_" + base64.b64encode(b"x" * 65).decode(), "has 65 bytes"),
    ],
)
def test_a_secret_that_cannot_be_used_is_not_quoted(secret: str, message: str) -> None:
    with pytest.raises(NoticeSecretError, match=message) as caught:
        signing_key(secret)
    assert secret not in str(caught.value) and "24 to 64 random bytes" in str(caught.value)


def test_a_document_says_what_happened_when() -> None:
    notice = Notice(
        NoticeKind.RUN_FINISHED,
        "default",
        "run:1:1",
        "It is done.",
        1_790_812_800_123,
        "1",
        {"charged": Decimal("12"), "half": Decimal("0.5"), "states": {"completed": 2}},
    )
    assert json.loads(notice.body()) == {
        "type": "run.finished",
        "timestamp": "2026-10-01T00:00:00.123Z",
        "data": {
            "account": "default",
            "run_id": "1",
            "message": "It is done.",
            "charged": 12,
            "half": "0.5",
            "states": {"completed": 2},
        },
    }


@pytest.mark.parametrize(
    ("state", "is_open", "last_kind", "expected"),
    [
        ("loading", True, None, None),
        ("loading", False, None, None),
        ("running", True, None, None),
        ("running", True, "run.paused", NoticeKind.RUN_RESUMED),
        ("running", True, "budget.reached", NoticeKind.RUN_RESUMED),
        ("running", True, "run.finished", NoticeKind.RUN_RESUMED),
        ("running", True, "run.resumed", None),
        ("running", False, None, NoticeKind.RUN_FINISHED),
        ("running", False, "run.resumed", NoticeKind.RUN_FINISHED),
        ("running", False, "run.finished", None),
        ("paused", True, None, NoticeKind.RUN_PAUSED),
        ("paused", True, "run.paused", None),
        ("paused", True, "run.resumed", NoticeKind.RUN_PAUSED),
        ("paused", True, "run.finished", NoticeKind.RUN_PAUSED),
        ("paused", False, "run.paused", NoticeKind.RUN_FINISHED),
        ("stopped", True, None, NoticeKind.RUN_STOPPED),
        ("stopped", True, "run.paused", NoticeKind.RUN_STOPPED),
        ("stopped", True, "run.stopped", None),
        ("cancelled", True, None, None),
        ("cancelled", True, "run.paused", None),
        ("cancelled", False, None, NoticeKind.RUN_FINISHED),
    ],
)
def test_edges_of_a_run(
    state: str, is_open: bool, last_kind: str | None, expected: NoticeKind | None
) -> None:
    run = RunSnapshot("r", "monday", "default", "f.csv", state, None, None, 0, is_open, last_kind, 1)
    assert run_edge(run) is expected
    assert run_edge(replace(run, source="ask")) is None


def test_the_words_of_others_are_still_theirs() -> None:
    run = RunSnapshot("r", "m", "default", "-", "paused", BUDGET.text, BUDGET.code, 0, True, None, 0)
    assert run_edge(run) is NoticeKind.BUDGET_REACHED
    full = send_quota(
        outstanding_tasks=0, backlog=9, remaining=None, outstanding_credits=Decimal(0), budget_left=Decimal(0)
    )
    assert full.reason == MONTH_BUDGET


@given(st.integers(1, 10**9))
def test_steps(count: int) -> None:
    step = step_reached(count)
    assert step <= count < 10 * step


def outcome(answered: Answered, tries: int = 1, jitter: float = 0.0, tries_max: int = 12) -> Any:
    return outcome_of(answered, tries=tries, tries_max=tries_max, jitter=jitter)


@pytest.mark.parametrize("status", [200, 204, 299])
def test_every_2xx_is_taken(status: int) -> None:
    assert outcome(Answered(status)).state is NoticeState.SENT


@pytest.mark.parametrize("status", [100, 301, 302, 308, 400, 401, 404, 429, 500, 502, 503, None])
def test_everything_else_is_tried_again_and_given_up(status: int | None) -> None:
    first = outcome(Answered(status, error=None if status else "TimeoutError"))
    assert (first.state, first.wait_ms) == (NoticeState.NEW, RETRY_FIRST_MS / 2)
    last = outcome(Answered(status, error=None if status else "TimeoutError"), tries=12)
    assert last.state is NoticeState.FAILED and "given up after 12 tries" in last.error


def test_gone_is_final() -> None:
    assert outcome(Answered(410)).state is NoticeState.FAILED


@given(st.integers(1, 29), st.floats(0, 0.999), st.none() | st.integers(0, 10**8))
def test_waits_grow_within_bounds_and_respect_retry_after(
    tries: int, jitter: float, asked: int | None
) -> None:
    now = outcome(Answered(503, asked), tries, jitter, 30)
    ceiling = min(RETRY_FIRST_MS * 4 ** (tries - 1), RETRY_MAX_MS)
    assert now.wait_ms >= (asked or 0) and now.wait_ms >= ceiling // 2
    assert now.wait_ms <= max(ceiling, asked or 0)


def test_twelve_tries_take_28_to_56_hours() -> None:
    for jitter, hours in ((0.0, 27.8), (1.0, 55.6)):
        waits = [outcome(Answered(500), tries, jitter).wait_ms for tries in range(1, 12)]
        assert sum(waits) / 3_600_000 == pytest.approx(hours, abs=0.1)


@pytest.mark.parametrize(
    ("url", "secret", "message"),
    [
        ("ftp://host/x", SECRET, "TALLYHOOK_NOTICE_URL"),
        ("https://", SECRET, "TALLYHOOK_NOTICE_URL"),
        ("http://[::1", SECRET, "TALLYHOOK_NOTICE_URL"),
        ("https://user:pass@host/x", SECRET, "TALLYHOOK_NOTICE_URL"),
        ("https://host/x", "", "TALLYHOOK_NOTICE_SECRET is not set"),
        ("https://host/x", "whsec_short", "TALLYHOOK_NOTICE_SECRET"),
        ("", SECRET, "TALLYHOOK_NOTICE_URL is not"),
    ],
)
def test_settings_that_cannot_work_are_named(url: str, secret: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        open_notice_client(load_settings(_env_file=None, notice_url=url, notice_secret=secret))


def test_without_a_url_there_is_nothing_to_open() -> None:
    assert open_notice_client(load_settings(_env_file=None)) is None
    assert open_notice_client(load_settings(_env_file=None, notice_url="https://h/x", notice_secret=SECRET))
