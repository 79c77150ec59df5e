"""The answer of a batch: each item for itself, and nothing taken for granted (S6)."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.provider.batch import encode_batch, read_batch


def claimed(n: int) -> ClaimedTask:
    return ClaimedTask(
        f"task-{n}", "run", 1, f"key-{n}", "CHATGPT", '{"prompt":"é"}', 1, Decimal(5), 1, 0, "claim"
    )


def accepted(index: int, **changes: Any) -> dict[str, Any]:
    task = {"id": f"p-{index}", "status": "QUEUED", "idempotencyKey": f"key-{index}"}
    return {
        "success": True,
        "index": index,
        "task": task | changes,
        "credits": {"creditsToCharge": 5, "creditsCharged": None},
    }


def refused(index: int, code: str | None) -> dict[str, Any]:
    return {"success": False, "index": index, "error": {"code": code, "message": "no"} if code else "no"}


def read(results: Any, count: int) -> list[Answer]:
    body = json.dumps({"success": True, "results": results}).encode()
    return [answer.answer for answer in read_batch([claimed(n) for n in range(count)], 200, body, None)]


def test_a_batch_is_a_bare_array_of_create_bodies() -> None:
    body = json.loads(encode_batch([claimed(0), claimed(1)], "https://receiver.example/hook"))
    assert [item["idempotencyKey"] for item in body] == ["key-0", "key-1"]
    assert body[0]["payload"] == {"prompt": "é"}


@pytest.mark.parametrize(
    ("code", "answer"),
    [
        ("RESOURCE_ALREADY_EXISTS", Answer.EXISTS),
        ("INSUFFICIENT_CREDITS", Answer.NO_CREDITS),
        ("VALIDATION_ERROR", Answer.REJECTED),
        ("QUEUE_LIMIT_EXCEEDED", Answer.QUEUE_FULL),
        ("SOMETHING_NEW", Answer.UNAVAILABLE),
        (None, Answer.UNAVAILABLE),
    ],
)
def test_s6_each_code_is_one_item_s_answer(code: str | None, answer: Answer) -> None:
    assert read([accepted(0), refused(1, code), accepted(2)], 3) == [Answer.ACCEPTED, answer, Answer.ACCEPTED]


def test_s6_missing_repeated_and_unknown_items_are_lost() -> None:
    results = [accepted(0), accepted(2), accepted(2), accepted(3, idempotencyKey="key-0"), accepted(9)]
    assert read(results, 5) == [Answer.ACCEPTED, Answer.LOST, Answer.LOST, Answer.LOST, Answer.LOST]


def test_results_in_any_order_go_to_their_index() -> None:
    body = json.dumps({"results": [accepted(1), accepted(0)]}).encode()
    answers = read_batch([claimed(0), claimed(1)], 200, body, "request")
    assert [answer.provider_task_id for answer in answers] == ["p-0", "p-1"]
    assert [answer.credits_to_charge for answer in answers] == [Decimal(5), Decimal(5)]


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)
items = st.fixed_dictionaries(
    {},
    optional={
        "success": json_values,
        "index": st.integers(-2, 4) | json_values,
        "task": json_values,
        "credits": json_values,
        "error": json_values,
    },
)


@given(st.lists(items | json_values, max_size=6) | json_values)
def test_s6_whatever_the_answer_says_each_task_gets_one(results: Any) -> None:
    assert len(read(results, 3)) == 3


@given(st.binary(max_size=50))
def test_an_unreadable_answer_loses_all_of_them(body: bytes) -> None:
    answers = read_batch([claimed(0), claimed(1)], 200, body, None)
    assert {answer.answer for answer in answers} == {Answer.LOST}
