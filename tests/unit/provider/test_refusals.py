"""Reading the answers of create calls, refusals above all, in every edition's form (C-B3 to C-B10, C-J)."""

import json
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from multidict import CIMultiDict

from app.domain.submission import ClaimedTask
from app.domain.text import storable
from app.provider.wire import encode_create, page_of, rate_limit, read_created, read_error

NOW = datetime(2026, 10, 1, 12, 0, 0, tzinfo=UTC)


def refusal(body: Any, status: int = 400, **headers: str) -> Any:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = CIMultiDict({name.replace("_", "-"): value for name, value in headers.items()})
    return read_error(status, named, raw, NOW)


AT = "2025-01-15T12:00:00.000Z"
V = "VALIDATION_ERROR"


@pytest.mark.parametrize(
    ("body", "code", "message"),
    [
        # B5, B6: an object with and without `success`, a plain string with top-level details.
        ({"success": False, "error": {"code": "NEW_CODE", "message": "m"}}, "NEW_CODE", "m"),
        ({"error": {"code": "NEW_CODE", "message": "m", "timestamp": AT}}, "NEW_CODE", "m"),
        ({"success": False, "error": "Country XX is not supported"}, None, "Country XX is not supported"),
        (
            {"error": {"code": V, "message": "m", "details": [{"field": "prompt", "message": "empty"}]}},
            V,
            "m (prompt: empty)",
        ),
        (
            {
                "error": {
                    "code": V,
                    "message": "m",
                    "details": {"errors": [{"field": "a", "message": "x"}, {"field": "b", "message": "y"}]},
                }
            },
            V,
            "m (a: x; b: y)",
        ),
        (
            {"error": "Request validation failed", "details": [{"field": "country", "message": "unknown"}]},
            None,
            "Request validation failed (country: unknown)",
        ),
        (
            {"success": False, "error": "e", "details": {"errors": [{"field": "f", "message": "m"}]}},
            None,
            "e (f: m)",
        ),
        ({"success": False, "error": {"code": "Q", "message": "m", "details": {"limit": 100000}}}, "Q", "m"),
        ({"error": {"code": V, "message": "m", "details": ["text", {"message": 4}]}}, V, "m (?: ?)"),
        ({"error": {"code": V, "message": "m", "details": "text"}}, V, "m"),
        ({"error": {"code": V}}, V, "HTTP 400"),
    ],
)
def test_every_form_of_an_error(body: Any, code: str | None, message: str) -> None:
    found = refusal(body)
    assert (found.is_own, found.code, found.message) == (True, code, message)


def test_a_429_of_either_spelling_is_the_providers_own() -> None:
    for code in ("CONCURRENT_LIMIT_EXCEEDED", "CONCURRENCY_LIMIT_EXCEEDED"):
        found = refusal({"error": {"code": code, "message": "m"}}, 429)
        assert (found.is_own, found.code) == (True, code)


@pytest.mark.parametrize(
    "body",
    [
        {"error": {}},
        {"error": ""},
        {"error": {"code": None, "message": 5}},
        {"error": ["x"]},
        [],
        b"",
        {"message": "Forbidden"},
        {"error": "Forbidden"},
        {"success": True, "error": {"code": V}},
        {"success": 0, "error": "x"},
        {"errors": [{"code": 10000}], "success": False},
        {"error": {"code": "AuthorizationFailed", "message": "m"}},
        {"error": {"code": 403, "message": "m"}},
        {"error": {"code": "RATE_LIMIT_EXCEEDED", "message": "its status is 429"}},
        {"error": "invalid_request", "error_description": "x"},
        b"<html><body>502 Bad Gateway</body></html>",
        b"\xff\xfe\x00",
        b"[" * 100_000,
        b'{"error":',
    ],
)
def test_anything_else_is_not_the_providers_word(body: Any) -> None:
    found = refusal(body)
    assert (found.is_own, found.code) == (False, None)
    assert found.message.startswith("HTTP 400, no type, ")


def test_a_redirect_is_never_its_word() -> None:
    assert not refusal({"success": False, "error": {"code": V, "message": "m"}}, 307).is_own


def test_what_is_shown_of_a_page_is_clean() -> None:
    hostile = "\x1b[2J\u202egnp\u200b\r\n\t<b>Blocked</b>\x00 key sk_live_0123 Bearer abc.def " + "x" * 500
    page = page_of(403, CIMultiDict({"Content-Type": "text/html\x1b; charset=utf-8"}), hostile.encode())
    assert page.startswith("HTTP 403, text/html, [2J gnp <b>Blocked</b> key sk_… Bearer … xxx")
    assert page.isprintable() and len(page) < 200
    moved = page_of(302, {"Location": "https://user:secret@portal.example/login?token=secret#x"}, b"")
    assert moved == "HTTP 302 to https://portal.example/login, no type, empty"
    assert page_of(404, {}, b"\xff\xfe<\x00") == "HTTP 404, no type, \ufffd\ufffd<"


@pytest.mark.parametrize(
    ("header", "body", "wait_s"),
    [
        ("7", {}, 7.0),
        ("0", {}, 0.0),
        ("1.5", {}, 1.5),
        (None, {"retry_after": 900}, 900.0),
        (None, {"retry_after": 0.25}, 0.25),
        ("3", {"retry_after": 900}, 3.0),  # B9: the header first
        ("soon", {"retry_after": 900}, 900.0),
        ("-1", {"retry_after": 900}, 900.0),
        (None, {}, None),
        ("", {}, None),
        ("nan", {}, None),
        ("inf", {}, None),
        ("-5", {}, None),
        ("1e400", {}, None),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", {}, None),
        ("Foo, 99 Bar 2026 00:00:00 GMT", {}, None),
        (None, {"retry_after": True}, None),
        (None, {"retry_after": "60"}, None),
        (None, {"retry_after": -1}, None),
        (None, {"retry_after": None}, None),
        ("86400", {}, 3_600.0),  # nothing asks for more than the hour of B8
        (None, {"retry_after": 10**400}, None),
    ],
)
def test_how_long_to_wait(header: str | None, body: dict[str, Any], wait_s: float | None) -> None:
    headers = {} if header is None else {"Retry_After": header}
    assert refusal({"error": "slow down"} | body, 429, **headers).wait_s == wait_s


@pytest.mark.parametrize(("offset_s", "wait_s"), [(90, 90.0), (0, 0.0), (-600, 0.0), (7_200, 3_600.0)])
def test_a_wait_given_as_a_date(offset_s: int, wait_s: float) -> None:
    time = datetime.fromtimestamp(NOW.timestamp() + offset_s, UTC)
    assert refusal({}, 503, Retry_After=format_datetime(time, usegmt=True)).wait_s == wait_s
    without_zone = time.strftime("%a, %d %b %Y %H:%M:%S -0000")
    assert refusal({}, 503, Retry_After=without_zone).wait_s == wait_s


def test_header_names_in_any_case() -> None:
    assert read_error(503, CIMultiDict({"rEtRy-aFtEr": "4"}), b"").wait_s == 4
    assert rate_limit(CIMultiDict({"x-ratelimit-limit": "500", "X-RATELIMIT-REMAINING": "0"})) == (500, 0)


@pytest.mark.parametrize("value", ["", "many", "-5", "1.5", "٣", "9" * 5_000, "1_000"])
def test_a_limit_that_is_no_number_is_none(value: str) -> None:
    assert rate_limit({"X-RateLimit-Limit": value}) == (None, None)
    assert rate_limit({}) == (None, None)


def test_texts_are_bounded_and_fit_every_database() -> None:
    found = refusal(
        b'{"success":false,"error":{"code":"A' + b"B" * 500 + b'","message":"\\u0000' + b"m" * 5_000 + b'"}}'
    )
    assert found.code.startswith("AB") and len(found.code) <= 101
    assert "\x00" not in found.message and len(found.message) <= 501
    assert storable("a\ud800b", 10) == "a\\ud800b"


@pytest.mark.parametrize(
    ("body", "task_id", "to_charge"),
    [
        ({"success": True, "task": {"id": "t"}, "credits": {"creditsToCharge": 7}}, "t", Decimal(7)),
        ({"task": {"id": "t", "creditsToCharge": 5}}, "t", Decimal(5)),
        ({"task": {"id": "t"}, "creditsToCharge": 4}, "t", Decimal(4)),
        ({"task": {"id": "t"}}, "t", None),
        ({"task": {"id": "t"}, "credits": {"creditsToCharge": "7"}}, "t", None),
        ({"task": {"id": "t"}, "credits": {"creditsToCharge": -1}}, "t", None),
        ({"task": {"id": 5}, "credits": {"creditsToCharge": 7}}, None, Decimal(7)),
        ({"task": {"id": 5}, "credits": {"creditsToCharge": True}}, None, None),
        ({"task": {"id": ""}}, None, None),
        ({"task": {"id": "a\x00b"}}, None, None),
        ({"task": {"id": "x" * 201}}, None, None),
        ({"task": None}, None, None),
        ({"success": True}, None, None),
        ([], None, None),
    ],
)
def test_what_an_accepted_create_says(body: Any, task_id: str | None, to_charge: Decimal | None) -> None:
    assert read_created(json.dumps(body).encode()) == (task_id, to_charge)


@pytest.mark.parametrize("raw", [b"", b"<html>", b"\xff", b"{", b"[" * 100_000])
def test_a_success_that_is_no_json_says_nothing(raw: bytes) -> None:
    assert read_created(raw) == (None, None)


_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([10**400, -(10**5), "\x00", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(
                [
                    "error",
                    "code",
                    "message",
                    "details",
                    "errors",
                    "field",
                    "retry_after",
                    "task",
                    "id",
                    "credits",
                ]
            ),
            inner,
            max_size=6,
        )
    ),
    max_leaves=15,
)


@given(
    value=_json, header=st.none() | st.text(max_size=40), status=st.integers(100, 599), cut=st.integers(0, 80)
)
def test_reading_an_answer_never_raises(value: Any, header: str | None, status: int, cut: int) -> None:
    raw = json.dumps(value).encode(errors="surrogatepass")
    headers = {} if header is None else {"Retry-After": header, "X-RateLimit-Limit": header}
    for mangled in (raw, raw[:cut]):
        found = read_error(status, headers, mangled, NOW)
        assert found.wait_s is None or 0 <= found.wait_s <= 3_600
        found.message.encode()
        task_id, to_charge = read_created(mangled)
        assert task_id is None or task_id.isprintable()
        assert to_charge is None or to_charge >= 0
    rate_limit(headers)


@given(st.binary(max_size=200))
@example(b'{"error":{"message":"\xff"}}')
def test_reading_any_bytes_never_raises(raw: bytes) -> None:
    read_error(500, {}, raw, NOW)
    read_created(raw)


def _task(payload: str) -> ClaimedTask:
    return ClaimedTask(
        "id", "run", 1, "id.1", "CHATGPT", payload, 5, Decimal(5), 1, first_sent_at_ms=0, claim="c"
    )


def test_the_body_of_a_create_call() -> None:
    payload = '{"prompt":"Wo? \\"é\\"","country":"DE","n":1.10}'
    raw = encode_create(_task(payload), "https://receiver.example/webhooks/cloro")
    assert json.loads(raw) == {
        "taskType": "CHATGPT",
        "priority": 5,
        "idempotencyKey": "id.1",
        "payload": json.loads(payload),
        "webhook": {"url": "https://receiver.example/webhooks/cloro"},
    }
    assert payload.encode() in raw, "the payload is sent as it was stored"
    assert "webhook" not in json.loads(encode_create(_task("{}"), None))
