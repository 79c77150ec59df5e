"""Reading reports: every row of C-B that a client must accept, and what it must refuse."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.provider.wire import ReportError, read_report, read_task_status, unwrapped

TASK = {
    "id": "b27a21e1-7c39-4aa2-a347-23e828c426f9",
    "status": "COMPLETED",
    "idempotencyKey": "run-42:item-7",
}
FAILED = TASK | {"status": "FAILED"}
MISSING = object()


def body(task: Any = TASK, **root: Any) -> bytes:
    return json.dumps({"task": task, **root}, ensure_ascii=False).encode()


def test_the_documented_completed_body() -> None:
    report = read_report(
        body(
            credits={"creditsToCharge": 7, "creditsCharged": 7},
            response={"model": None, "text": "Café — ok", "sources": []},
        )
    )
    assert report.provider_task_id == TASK["id"]
    assert report.idempotency_key == "run-42:item-7"
    assert report.completed
    assert (report.to_charge, report.charged) == (Decimal(7), Decimal(7))
    assert json.loads(report.response) == {"model": None, "text": "Café — ok", "sources": []}
    assert (report.error_code, report.error_message) == (None, None)


def test_the_answer_is_kept_byte_for_byte() -> None:
    raw = b'{"task":{"id":"t","status":"COMPLETED"},"response": { "n" :  1.10, "text":"\\u00e9" } }'
    assert read_report(raw).response == b'{ "n" :  1.10, "text":"\\u00e9" }'


@pytest.mark.parametrize(
    ("response", "code", "message"),
    [
        ({"error": {"code": "INTERNAL_SERVER_ERROR", "message": "gone"}}, "INTERNAL_SERVER_ERROR", "gone"),
        ({"error": {"code": "X", "message": "m", "details": {"a": 1}}}, "X", "m"),
        ({"error": {"code": 5, "message": None}}, None, None),
        ({"error": "plain text of the oldest layer"}, None, "plain text of the oldest layer"),
        ({"error": ["?"]}, None, None),
        ({"text": "no error object"}, None, None),
        ({}, None, None),
        (None, None, None),
        ("a string", None, None),
        (MISSING, None, None),
    ],
)
def test_a_failed_task_with_and_without_its_error(
    response: Any, code: str | None, message: str | None
) -> None:
    root = {} if response is MISSING else {"response": response}
    report = read_report(body(FAILED, credits={"creditsCharged": 0}, **root))
    assert not report.completed
    assert (report.error_code, report.error_message) == (code, message)
    assert report.charged == 0


@pytest.mark.parametrize(
    ("root", "in_task", "charged"),
    [
        ({"credits": {"creditsToCharge": 5, "creditsCharged": 4}}, {}, 4),  # B16: the documented place
        ({}, {"creditsToCharge": 5, "creditsCharged": 4}, 4),
        ({"creditsToCharge": 5, "creditsCharged": 4}, {}, 4),
        ({"credits": {"creditsToCharge": 5}}, {"creditsCharged": 4}, 4),  # split over two places
        (
            {"credits": {"creditsToCharge": 5, "creditsCharged": 4}, "creditsCharged": 9},
            {"creditsCharged": 8},
            4,
        ),
        ({"credits": {"creditsToCharge": 5, "creditsCharged": None}}, {"creditsCharged": 3}, 3),
        ({"credits": None, "creditsToCharge": 5, "creditsCharged": 2}, {}, 2),
        ({"credits": "none", "creditsToCharge": 5}, {}, None),
    ],
)
def test_credits_are_found_wherever_an_edition_puts_them(
    root: dict[str, Any], in_task: dict[str, Any], charged: int | None
) -> None:
    report = read_report(body(TASK | in_task, **root))
    assert report.to_charge == 5
    assert report.charged == charged


@pytest.mark.parametrize("credits", [{"creditsCharged": None}, {}, None, [], MISSING])
def test_a_missing_charge_is_unknown_and_not_0(credits: Any) -> None:
    root = {} if credits is MISSING else {"credits": credits}
    assert read_report(body(**root)).charged is None


@pytest.mark.parametrize(
    ("literal", "charged"),
    [
        ("0", Decimal(0)),
        ("0.0", Decimal(0)),
        ("-0.0", Decimal(0)),
        ("7", Decimal(7)),
        ("7.0", Decimal(7)),
        ("7.1", Decimal("7.1")),
        ("0.000001", Decimal("0.000001")),
        ("1e3", Decimal(1000)),
        ("4e3", Decimal(4000)),
    ],
)
def test_a_charge_is_an_exact_number(literal: str, charged: Decimal) -> None:
    raw = f'{{"task":{json.dumps(TASK)},"credits":{{"creditsCharged":{literal}}}}}'.encode()
    assert read_report(raw).charged == charged


@pytest.mark.parametrize(
    "literal",
    [
        "true",
        "false",
        '"7"',
        '""',
        "[]",
        "{}",
        "-1",
        "-0.5",
        "1e-7",
        "0.0000001",
        "1000000000001",
        "1e300",
        "9" * 400,
        "9" * 5_000,
        "1e400",
        "NaN",
        "Infinity",
    ],
)
@pytest.mark.parametrize("name", ["creditsCharged", "creditsToCharge"])
def test_a_malformed_charge_is_refused_and_never_read_as_0(literal: str, name: str) -> None:
    raw = f'{{"task":{json.dumps(TASK)},"credits":{{"{name}":{literal}}}}}'.encode()
    with pytest.raises(ReportError):
        read_report(raw)


@pytest.mark.parametrize("status", ["QUEUED", "PROCESSING", "completed", "DONE", "", None, 1, ["COMPLETED"]])
def test_a_status_that_is_not_final_is_an_error(status: Any) -> None:
    with pytest.raises(ReportError, match="not final"):
        read_report(body(TASK | {"status": status}))


@pytest.mark.parametrize(
    "task", [None, "x", [], {}, {"status": "COMPLETED"}, TASK | {"id": ""}, TASK | {"id": 7}]
)
def test_a_report_that_names_no_task_is_refused(task: Any) -> None:
    with pytest.raises(ReportError, match=r"^task"):
        read_report(body(task))
    with pytest.raises(ReportError, match=r"task\.id"):
        read_report(body(TASK | {"id": "x" * 201}))


def test_optional_fields_may_be_missing_and_unknown_ones_are_ignored() -> None:
    report = read_report(b'{"task":{"id":"t","status":"COMPLETED"}}')
    assert report.idempotency_key is None
    assert report.response == b"null"
    assert (report.to_charge, report.charged) == (None, None)
    wide = TASK | {"priority": "high", "latencyMs": [], "new": {"deep": [1]}}
    assert read_report(body(wide, webhook=7, event="task", response=1)).idempotency_key == "run-42:item-7"


@pytest.mark.parametrize("key", [None, 5, [], {}])
def test_a_key_that_is_no_text_is_none(key: Any) -> None:
    assert read_report(body(TASK | {"idempotencyKey": key})).idempotency_key is None


@pytest.mark.parametrize(
    ("response", "flat"),
    [
        ({"success": True, "result": {"text": "a"}}, {"text": "a"}),
        ({"result": {"text": "a"}, "success": False}, {"text": "a"}),
        ({"text": "a"}, {"text": "a"}),
        ({"success": True, "result": "text"}, {"success": True, "result": "text"}),
        ({"success": "yes", "result": {}}, {"success": "yes", "result": {}}),
        ({"success": True}, {"success": True}),
        ({"text": 'says "success" twice'}, {"text": 'says "success" twice'}),
        (['"success"'], ['"success"']),
    ],
)
def test_the_flat_answer_out_of_both_forms(response: Any, flat: Any) -> None:
    assert json.loads(read_report(body(response=response)).response) == flat


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"7",
        b"<html><body>502</body></html>",
        b"{",
        b'{"task":',
        b"\xff\xfe",
        b"\x00",
        b'{"task":{"id":"t","status":"COMPLETED"}',
        b"[" * 100_000,
        b'{"task":' + b"[" * 100_000,
    ],
)
def test_bodies_that_are_no_report_are_refused(raw: bytes) -> None:
    with pytest.raises(ReportError):
        read_report(raw)
    assert read_task_status(raw) is None


def test_the_status_of_a_poll() -> None:
    assert read_task_status(body(TASK | {"status": "PROCESSING"})) == "PROCESSING"
    assert read_task_status(body(TASK | {"status": 3})) is None
    assert read_task_status(body([])) is None


def test_an_answer_that_only_looks_wrapped_is_left_alone() -> None:
    assert unwrapped(b'{"success" broken') == b'{"success" broken'


_scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from(["COMPLETED", "FAILED", "QUEUED", "id", "\x00", "\ud800", 10**400, -(10**30), 10**4200])
)
_values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                ["id", "status", "error", "code", "message", "success", "result", "creditsCharged"]
            )
            | st.text(max_size=5),
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)
_tasks = st.fixed_dictionaries(
    {"id": st.just("t") | _values, "status": st.sampled_from(["COMPLETED", "FAILED"]) | _values},
    optional={"idempotencyKey": _values, "creditsCharged": _values},
)
_bodies = st.fixed_dictionaries(
    {"task": _tasks | _values},
    optional={
        "credits": _values,
        "response": _values | st.just({"success": True, "result": {}}),
        "creditsToCharge": _values,
        "x": _values,
    },
)


@given(value=_bodies, ascii_only=st.booleans(), cut=st.integers(0, 200), noise=st.binary(max_size=8))
def test_nothing_but_a_report_error_is_raised(value: Any, ascii_only: bool, cut: int, noise: bytes) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    for mangled in (raw, raw[:cut], raw[:cut] + noise + raw[cut:]):
        _only_report_error(mangled)


@given(st.binary(max_size=300))
@example(b'{"task":{"id":"t","status":"FAILED"},"response":{"error":"\xff"}}')
@example(b'{"task":{"id":"t","status":"FAILED"},"response":{"success":true,"\xff":{}}}')
@example(b'{"task":{"id":"t","status":"FAILED"},"response":{"error":' + b"[" * 900 + b"]" * 900 + b"}}")
@example(b'{"task":{"id":"t","status":"FAILED"},"response":{"error":' + b"[" * 990 + b"]" * 990 + b"}}")
@example(b'{"task":{"id":"t","status":"FAILED","\xff":1}}')
def test_no_bytes_raise_anything_but_a_report_error(raw: bytes) -> None:
    _only_report_error(raw)


def _only_report_error(raw: bytes) -> None:
    try:
        report = read_report(raw)
    except ReportError:
        return
    finally:
        read_task_status(raw)
    assert report.charged is None or report.charged >= 0
