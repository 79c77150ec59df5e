"""Half a surrogate pair, and other JSON that no text has, in every answer of the provider's that is read."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.send_outcome import Answer
from app.domain.stored_json import read_json
from app.domain.submission import ClaimedTask
from app.domain.sync_call import SyncEnd
from app.ports import ReportError
from app.provider import wire
from app.provider.batch import read_batch
from app.provider.sync import encode_sync_report, read_sync
from app.provider.webhook_state import read_acknowledged

HALF = "a \ud83d b"
WHOLE = "a \ufffd b"
LONG = "9" * 5_000
BESIDE = f'"note":"{json.dumps(HALF)[1:-1]}","huge":{LONG}'
TASK = f'"task":{{"id":"pt","status":"COMPLETED","idempotencyKey":"k",{BESIDE}}}'
PAID = f'"credits":{{"creditsToCharge":5,"creditsCharged":5,{BESIDE}}}'


def answered(root: str) -> bytes:
    return f"{{{root},{BESIDE}}}".encode()


PIECES = ["\ud83d", "\ude00", "\ud83d\ude00", "\\", "u", "d83d", '"', "é", "\x00", "x"]
TEXTS = st.lists(st.sampled_from(PIECES), max_size=12).map("".join)


@given(TEXTS, st.sampled_from([str.lower, str.upper]))
def test_what_json_can_say_of_a_text_is_read_as_a_text(text: str, case: Any) -> None:
    raw = json.dumps({"text": text, text: 1})
    for escape in ("\\ud83d", "\\ude00"):
        raw = raw.replace(escape, "\\u" + case(escape[2:]))
    whole = wire.without_halves(raw.encode())
    assert len(whole) == len(raw)
    expected = json.loads(raw)["text"].encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    read = wire.decode(wire._anything, raw.encode())
    assert read == json.loads(whole)
    assert read["text"].replace("\ufffd", "") == expected.replace("\ufffd", "")
    read["text"].encode()


@pytest.mark.parametrize(
    ("escaped", "read"),
    [
        (r"\ud83d", "\ufffd"),
        (r"\ude00", "\ufffd"),
        (r"\ude00\ud83d", "\ufffd\ufffd"),
        (r"\uD83D\ude00", "\U0001f600"),
        (r"\\ud83d", r"\ud83d"),
        (r"\\\ud83d", "\\\ufffd"),
        (r"\ud83d\ud83d\ude00", "\ufffd\U0001f600"),
        (r"\ud83d\n", "\ufffd\n"),
        (r"\ud83dx", "\ufffdx"),
        (r"\u00e9\ud83d", "é\ufffd"),
    ],
)
def test_each_half_is_one_replacement(escaped: str, read: str) -> None:
    assert json.loads(wire.without_halves(f'"{escaped}"'.encode())) == read


def test_a_body_without_halves_is_left_as_it_is() -> None:
    for body in (b'{"text":"\\ud83d\\ude00"}', b'{"text":"\\u00e9"}', b"{}"):
        assert wire.without_halves(body) is body


def test_a_report_with_half_an_emoji_and_a_long_number() -> None:
    report = wire.read_report(answered(f'{TASK},{PAID},"response":{{"text":"\\ud83d",{BESIDE}}}'))
    assert (report.provider_task_id, report.idempotency_key) == ("pt", "k")
    assert (report.to_charge, report.charged) == (Decimal(5), Decimal(5))
    answer = read_json(report.response)
    assert (answer["text"], answer["note"], answer["huge"]) == ("\ufffd", WHOLE, Decimal(LONG))
    assert LONG.encode() in report.response


def test_the_answer_may_be_wrapped() -> None:
    body = answered(f'{TASK},{PAID},"response":{{"success":true,"result":{{"text":"\\ud83d"}}}}')
    assert wire.read_report(body).response == b'{"text":"\\ufffd"}'


def test_a_failure_says_why() -> None:
    failed = TASK.replace("COMPLETED", "FAILED")
    error = '{"error":{"code":"X","message":"half \\ud83d"}}'
    report = wire.read_report(answered(f'{failed},{PAID},"response":{error}'))
    assert (report.error_code, report.error_message) == ("X", "half \ufffd")


def test_a_key_or_an_id_that_is_cut_is_no_key_of_ours() -> None:
    task = '"task":{"id":"p\\ud83d","status":"FAILED","idempotencyKey":"k\\ud83d"}'
    report = wire.read_report(answered(task))
    assert (report.provider_task_id, report.idempotency_key) == ("p\ufffd", "k\ufffd")


@pytest.mark.parametrize("charge", [LONG, "1e999", '"5"', "true", "-1", "100000.5", "[]", '"\\ud83d"'])
def test_a_charge_that_is_none_is_named(charge: str) -> None:
    with pytest.raises(ReportError, match="creditsCharged"):
        wire.read_report(answered(f'{TASK},"credits":{{"creditsCharged":{charge}}}'))


def test_every_other_reader_takes_it() -> None:
    assert wire.read_task_status(answered(TASK)) == "COMPLETED"
    assert wire.read_created(answered(f"{TASK},{PAID}")) == ("pt", Decimal(5))
    assert wire.unwrapped(b'{"success":true,"result":{"t":"\\ud83d"}}') == b'{"t":"\\ufffd"}'
    error = wire.read_error(400, {}, b'{"error":{"code":"VALIDATION_ERROR","message":"half \\ud83d"}}')
    assert (error.code, error.message) == ("VALIDATION_ERROR", "half \ufffd")
    slots = wire.read_slots(f'{{"queuedTasks":1,"concurrency":{{"max":3,"used":1}},{BESIDE}}}'.encode())
    assert slots is not None and slots.concurrency == 3
    balance = wire.read_balance(f'{{"remaining":7,{BESIDE}}}'.encode(), 0)
    assert balance is not None and balance.remaining == 7
    acknowledged = read_acknowledged(
        f'{{"task":{{"id":"pt",{BESIDE}}},"webhook":{{"delivered":true,"url":"https://x/\\ud83d"}}}}'.encode()
    )
    assert acknowledged is not None and (acknowledged.provider_task_id, acknowledged.url) == (
        "pt",
        "https://x/\ufffd",
    )


def test_a_batch_with_half_an_emoji_is_accepted() -> None:
    task = ClaimedTask("t", "r", 1, "k", "CHATGPT", "{}", 1, Decimal(5), 1, 0, "claim")
    item = '{"success":true,"index":0,"task":{"id":"pt","idempotencyKey":"k","note":"\\ud83d"}}'
    [answer] = read_batch([task], 200, f'{{"results":[{item}],{BESIDE}}}'.encode(), None)
    assert (answer.answer, answer.provider_task_id) == (Answer.ACCEPTED, "pt")


@pytest.mark.parametrize("wrapped", [True, False])
def test_a_sync_answer_with_half_an_emoji_is_an_answer(wrapped: bool) -> None:
    answer = f'{{"text":"\\ud83d","huge":{LONG}}}'
    body = f'{{"success":true,"result":{answer}}}' if wrapped else answer
    end = read_sync(200, {"X-Credits-Charged": "7"}, body.encode())
    assert end.end is SyncEnd.ANSWERED
    report = wire.read_report(encode_sync_report("k", end))
    assert (read_json(report.response)["text"], report.charged) == ("\ufffd", Decimal(7))


def test_a_sync_refusal_with_half_an_emoji_is_the_providers() -> None:
    end = read_sync(500, {}, b'{"error":{"code":"INTERNAL_SERVER_ERROR","message":"\\ud83d"}}')
    assert (end.end, end.message) == (SyncEnd.FAILED, "\ufffd")
