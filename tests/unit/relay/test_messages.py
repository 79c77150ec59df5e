"""How a message is worded and signed, and when it is tried again."""

import json
from decimal import Decimal
from typing import Any

import pytest
from standardwebhooks import Webhook

from app.domain.notices.notice import Answered
from app.domain.relay.ladder import FAILURES_MAX, TRIES_MAX, Health, after_post, step_ms
from app.domain.relay.message import Message, Scheme, new_secret
from app.domain.relay.payload import ANSWER_BYTES_MAX, body_of, credits_text
from app.domain.relay.signing import headers_of

TASK = "01a0f4c2-c400-75e7-ad1a-8e822bcd30a4"
ABOUT = {
    "run_name": "monday",
    "custom_id": "row-7",
    "metadata": '{"n":1.10}',
    "task_type": "CHATGPT",
    "priority": 1,
    "verdict": "matched",
    "credits_estimate": Decimal(5),
    "credits_to_charge": Decimal(5),
    "credits_charged": Decimal("5.000001"),
    "submitted_at_ms": 1_000,
    "settled_at_ms": 42_230,
    "error_code": None,
    "error_message": None,
    "answer_sha256": "00",
    "response_note": None,
    "response": '{"n": 1.10, "text": "é"}',
}


def message(kind: str = "completed", **about: Any) -> Message:
    return Message(1, kind, 50_000, "run", TASK, 1, 0, {**ABOUT, **about})


def test_an_answer_is_posted_byte_for_byte() -> None:
    body = body_of(message(), Scheme.STANDARD)
    assert ABOUT["response"].encode() in body  # type: ignore[attr-defined]
    data = json.loads(body)["data"]
    assert (data["credits_charged"], data["custom_id"], data["task"]) == ("5.000001", "row-7", TASK)


def test_an_answer_that_is_too_long_is_left_out_and_said_to_be() -> None:
    data = json.loads(body_of(message(response='"' + "x" * ANSWER_BYTES_MAX + '"'), Scheme.STANDARD))["data"]
    assert data["answer"] is None
    assert "more than" in data["answer_left_out"]


@pytest.mark.parametrize(
    ("amount", "text"),
    [
        (None, None),
        (Decimal(0), "0"),
        (Decimal("0E+2"), "0"),
        (Decimal("1E+2"), "100"),
        (Decimal("1.50"), "1.5"),
    ],
)
def test_credits_are_exact_decimals(amount: Decimal | None, text: str | None) -> None:
    assert credits_text(amount) == text


def test_an_unknown_charge_is_null() -> None:
    assert (
        json.loads(body_of(message(credits_charged=None), Scheme.STANDARD))["data"]["credits_charged"] is None
    )


@pytest.mark.parametrize("kind", ["rejected", "expired", "cancelled"])
def test_in_the_providers_words_whatever_was_not_answered_has_failed(kind: str) -> None:
    gone = message(kind, response=None, credits_charged=None, settled_at_ms=None)
    document = json.loads(body_of(gone, Scheme.PROVIDER))
    assert document["task"]["status"] == "FAILED"
    assert document["response"]["error"]["message"]
    assert document["credits"]["creditsCharged"] == (None if kind == "expired" else 0)


def test_the_providers_body_has_its_members_and_their_types() -> None:
    document = json.loads(body_of(message(), Scheme.PROVIDER))
    assert list(document) == ["task", "credits", "response"]
    assert document["task"] == {
        "id": TASK,
        "taskType": "CHATGPT",
        "status": "COMPLETED",
        "priority": 1,
        "createdAt": "2026-10-01T00:00:00.000Z",
        "latencyMs": 41_230,
        "idempotencyKey": "row-7",
    }


def test_the_providers_signature_is_the_one_of_its_contract() -> None:
    """Vector V4 of C-I.4."""
    headers = headers_of(message(), Scheme.PROVIDER, ("whsec_abc",), 1_700_000_000, b'{"a":1}')
    digest = "3b843bacfb18cc5554542fdcc84d815b399c52758e508a6fcecf0a2af4efea2b"
    assert headers["X-Cloro-Signature"] == f"v1={digest}"
    assert headers["X-Cloro-Timestamp"] == "1700000000"
    assert headers["X-Cloro-Webhook-Id"] == f"{TASK}-1"


def test_each_secret_signs_while_it_is_changed() -> None:
    import time

    secrets = new_secret(), new_secret()
    headers = headers_of(message(), Scheme.STANDARD, secrets, int(time.time()), b"{}")
    for secret in secrets:
        assert Webhook(secret).verify(b"{}", headers) == {}


def test_an_id_has_no_dot_which_would_make_two_messages_sign_alike() -> None:
    assert "." not in message().webhook_id


def test_the_ladder_is_climbed_with_jitter_and_ends() -> None:
    failed = Answered(500)
    waits = [after_post(failed, tries=n, jitter=0.999).wait_ms for n in range(1, TRIES_MAX)]
    assert [round((w or 0) / 1000) for w in waits[:5]] == [5, 30, 120, 600, 3598]
    assert after_post(failed, tries=TRIES_MAX, jitter=0.5).wait_ms is None
    assert step_ms(1, 0.0) == 2_500
    assert step_ms(100, 0.0) == 6 * 3_600_000


@pytest.mark.parametrize("status", [301, 302, 307, 400, 404, 500, None])
def test_whatever_is_no_2xx_is_tried_again(status: int | None) -> None:
    assert not after_post(Answered(status), tries=1, jitter=0).is_taken


def test_retry_after_is_a_floor_within_a_day() -> None:
    assert after_post(Answered(503, 60_000), tries=1, jitter=0).wait_ms == 60_000
    assert after_post(Answered(503, 10**12), tries=1, jitter=0).wait_ms == 24 * 3_600_000


def test_an_endpoint_rests_after_failures_in_a_row_and_sooner_once_it_has_rested() -> None:
    health = Health(rests=0, failing_since_ms=None)
    for _ in range(FAILURES_MAX - 1):
        health.note(Answered(500), 1_000)
    assert not health.must_rest
    health.note(Answered(204), 2_000)
    assert health.is_proven
    for n in range(FAILURES_MAX):
        health.note(Answered(500), 3_000 + n)
    assert health.must_rest
    assert health.failing_since_ms == 3_000
    again = Health(rests=1, failing_since_ms=3_000)
    again.note(Answered(None), 9_000)
    assert again.must_rest
    assert not again.is_set_aside(9_000, 10_000)
    assert again.is_set_aside(13_000, 10_000)
