"""The provider's JSON, in every edition, read tolerantly and written exactly (contract B, G, I, J).

Half of a surrogate pair, which a cut-off emoji leaves in an answer, is read as U+FFFD everywhere: JSON has
it, no text has. Unknown fields are ignored, a missing charge stays unknown, an unknown status is an error.
The answer itself (`response`) is never turned into Python objects here: it can be megabytes, and nobody here
needs it.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard, TypeVar

import msgspec

from app.domain.accounting.balances import Balance
from app.domain.credits import ACCOUNT_CREDITS_MAX, parse_credits
from app.domain.settlement import Report
from app.domain.submission import ClaimedTask
from app.domain.text import one_line, storable
from app.ports import ReportError, Slots

ID_CHARS_MAX = 200
MESSAGE_CHARS_MAX = 500
CODE_CHARS_MAX = 100
DETAILS_MAX = 20
"""Validation problems that are named; a message has room for fewer."""
WAIT_S_MAX = 3_600.0
"""The hourly limit of the oldest edition resets within this (C-B8); nothing asks for longer."""

_ABSENT = msgspec.Raw(b"null")
_ESCAPE = re.compile(
    # A whole pair, half of one, any other escape: each is passed over as one, so that none begins inside
    # another.
    rb"\\(?:u[dD][89abAB][0-9a-fA-F]{2}\\u[dD][c-fC-F][0-9a-fA-F]{2}|u[dD][89a-fA-F][0-9a-fA-F]{2}|.)",
    re.DOTALL,
)
_HALF_BYTES = len(rb"\ud83d")
_REPLACED = rb"\ufffd"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding bytes from outside may raise: bad JSON, bad UTF-8, nesting without end."""


class _Envelope(msgspec.Struct):
    task: msgspec.Raw = _ABSENT
    credits: msgspec.Raw = _ABSENT
    response: msgspec.Raw = _ABSENT
    creditsToCharge: msgspec.Raw = _ABSENT  # noqa: N815
    creditsCharged: msgspec.Raw = _ABSENT  # noqa: N815


class _Named(msgspec.Struct):
    """What is asked for of a task, or of its credits."""

    id: Any = None
    idempotencyKey: Any = None  # noqa: N815
    status: Any = None
    creditsToCharge: Any = None  # noqa: N815
    creditsCharged: Any = None  # noqa: N815


class _Wrapped(msgspec.Struct):
    success: Any = None
    result: msgspec.Raw = msgspec.Raw(b"")


class _Failure(msgspec.Struct):
    error: Any = None


D = TypeVar("D")

_anything: msgspec.json.Decoder[Any] = msgspec.json.Decoder()
_fields = msgspec.json.Decoder(dict[str, msgspec.Raw])
_envelope = msgspec.json.Decoder(_Envelope)
_named = msgspec.json.Decoder(_Named)
_wrapped = msgspec.json.Decoder(_Wrapped)
_NOTHING = _Named()
_failure = msgspec.json.Decoder(_Failure)


def path_of(task_type: str) -> str:
    """An engine's part of the path of its sync calls (C-A)."""
    return task_type.lower().replace("_", "/")


def encode_create(task: ClaimedTask, webhook_url: str | None) -> bytes:
    """The body of POST /v1/async/task (C-G.1)."""
    body: dict[str, object] = {
        "taskType": task.task_type,
        "priority": task.priority,
        "idempotencyKey": task.idempotency_key,
        "payload": msgspec.Raw(task.payload_json.encode()),
    }
    if webhook_url is not None:
        body["webhook"] = {"url": webhook_url}
    return msgspec.json.encode(body)


def decode(decoder: msgspec.json.Decoder[D], body: bytes) -> D:
    """What `decoder` makes of bytes from outside. Raises what `UNREADABLE` names."""
    try:
        return decoder.decode(body)
    except msgspec.DecodeError:
        whole = without_halves(raw := bytes(body))
        if whole is raw:
            raise
        return decoder.decode(whole)


def without_halves(body: bytes) -> bytes:
    """JSON in which U+FFFD stands for each half of a surrogate pair, as an escape of the same length; the
    same object when there is none. Our parser takes no halves, nor does any text file or column."""
    if b"\\ud" not in body and b"\\uD" not in body:
        return body
    whole = _ESCAPE.sub(lambda found: _REPLACED if len(found[0]) == _HALF_BYTES else found[0], body)
    return body if whole == body else whole


def fields_of(raw: bytes) -> Mapping[str, msgspec.Raw]:
    """The fields of an object, each still to be read; none when it is no object. What nobody asks for may be
    anything: a number of thousands of digits, say."""
    try:
        return decode(_fields, raw)
    except UNREADABLE:
        return {}


def is_object(body: bytes) -> bool:
    """Whether this is one JSON object, in UTF-8, whatever its fields hold."""
    try:
        body.decode()
        decode(_fields, body)
    except UNREADABLE:
        return False
    return True


def read_report(body: bytes) -> Report:
    """A finished task, from a webhook body or a poll's answer (C-G.4, C-I.1).

    Raises ReportError when it is not JSON, not final, names no task, or carries a malformed charge.
    """
    envelope, response = _opened(body)
    task = _named_of(envelope.task)
    task_id, key, status = task.id, task.idempotencyKey, task.status
    if not _is_id(task_id):
        raise ReportError("task.id is missing" if fields_of(envelope.task) else "task is missing")
    if status not in ("COMPLETED", "FAILED"):
        shown = repr(status[:40]) if isinstance(status, str) else type(status).__name__
        raise ReportError(f"task.status {shown} is not final")
    code, message = (None, None) if status == "COMPLETED" else _failure_of(response)
    credits = _named_of(envelope.credits)
    return Report(
        provider_task_id=task_id,
        idempotency_key=key if isinstance(key, str) else None,
        completed=status == "COMPLETED",
        to_charge=_find_credits(envelope, credits, task, "creditsToCharge"),
        charged=_find_credits(envelope, credits, task, "creditsCharged"),
        response=response,
        error_code=code,
        error_message=message,
    )


def read_answer(body: bytes) -> bytes:
    """`response` of what `read_report` reads, and nothing else of it. Raises ReportError when it is not
    JSON."""
    return _opened(body)[1]


def _opened(body: bytes) -> tuple[_Envelope, bytes]:
    try:
        envelope = decode(_envelope, body)
        response = unwrapped(bytes(envelope.response))
        if not response.isascii():
            response.decode()  # only whether it can be: a text of it costs as much again as all else here
    except UNREADABLE as error:
        reason = "UnicodeDecodeError" if isinstance(error, UnicodeDecodeError) else error
        raise ReportError(f"not readable as JSON: {reason}") from error
    return envelope, response


def unwrapped(response: bytes) -> bytes:
    """The flat provider result, whether it came flat or as {success, result} (C-G.4)."""
    # Not by a search for the word before: that takes longer than to read what stands at the top.
    try:
        inner = decode(_wrapped, response)
    except UNREADABLE:
        return response
    if not isinstance(inner.success, bool):
        return response
    result = bytes(inner.result)
    return result if result.lstrip()[:1] == b"{" else response


def read_task_status(body: bytes) -> str | None:
    """`task.status` of a poll's answer; None when the body is not one."""
    try:
        task = decode(_envelope, body).task
    except UNREADABLE:
        return None
    status = value_of(fields_of(task).get("status"))
    return status if isinstance(status, str) else None


def read_created(body: bytes) -> tuple[str | None, Decimal | None]:
    """(task id, creditsToCharge) of a 200 to a create call (C-G.2); None for what is absent."""
    try:
        envelope = decode(_envelope, body)
    except UNREADABLE:
        return None, None
    task = _named_of(envelope.task)
    known = task.id if _is_id(task.id) else None
    try:
        return known, _find_credits(envelope, _named_of(envelope.credits), task, "creditsToCharge")
    except ReportError:
        return known, None


CODES: Mapping[str, tuple[int, ...]] = {
    "VALIDATION_ERROR": (400, 422),
    "MISSING_API_KEY": (401,),
    "INVALID_API_KEY_FORMAT": (401,),
    "INVALID_OR_EXPIRED_API_KEY": (401,),
    "INSUFFICIENT_CREDITS": (402, 403),
    "INSUFFICIENT_PERMISSIONS": (403,),
    "RESOURCE_NOT_FOUND": (404,),
    "RESOURCE_ALREADY_EXISTS": (409,),
    "RATE_LIMIT_EXCEEDED": (429,),
    "CONCURRENCY_LIMIT_EXCEEDED": (429, 409),
    "CONCURRENT_LIMIT_EXCEEDED": (429, 409),
    "QUEUE_LIMIT_EXCEEDED": (429,),
    "REQUEST_CANCELED": (499,),
    "INTERNAL_SERVER_ERROR": (500,),
    "EXTERNAL_SERVICE_ERROR": (502, 504),
    "SERVICE_UNAVAILABLE": (503,),
}
"""Codes that the provider is known to use, with their statuses (C-J.2)."""
OLD_STRINGS = frozenset(
    {
        "Request validation failed",
        "Invalid or missing API key",
        "Request was canceled",
        "Maximum retries exceeded",
    }
)
"""Errors of the oldest layer that were also met without `success` next to them (C-J.2)."""
_CODE = re.compile(r"[A-Z][A-Z0-9]*(_[A-Z0-9]+)*")
"""How the provider writes a code, one that is new included; clouds and gateways write theirs otherwise."""
_SECRET = re.compile(r"(?i)(bearer\s+|\bsk_)[^\s\"'<>&,;]+")
PAGE_BYTES = 2_048
PAGE_CHARS_MAX = 100
TYPE_CHARS_MAX = 60


@dataclass(frozen=True, slots=True)
class WireError:
    """A refusal, normalised from every edition (C-J.3)."""

    code: str | None
    message: str
    wait_s: float | None
    is_own: bool = True
    """The body is the provider's own error. Otherwise something else answered: `message` describes it."""
    is_route: bool = False
    """It does not know the path, and says nothing of a task."""

    def describe(self, status: int) -> str:
        """For people, who do not know the status yet; a line that no terminal obeys."""
        return excerpt(f"HTTP {status}, {self.code or 'no code'}: {self.message}", PAGE_CHARS_MAX * 2)


def is_own_error(status: int, body: bytes) -> bool:
    """Whether an error answer is the provider's, in the form of any edition (C-J.1): an object `error` with a
    code, or the string of the oldest layer, which says `success: false` next to it."""
    return not 300 <= status < 400 and _is_envelope(status, _object(body))


def _is_envelope(status: int, root: Mapping[str, Any]) -> bool:
    error, success = root.get("error"), root.get("success")
    if success is not None and success is not False:
        return False
    if isinstance(error, str):
        return error in OLD_STRINGS or (bool(error) and success is False)
    if not isinstance(error, Mapping):
        return False
    code = error.get("code")
    if not isinstance(code, str) or _CODE.fullmatch(code) is None:
        return False
    return status in CODES.get(code, ()) or success is False or isinstance(error.get("timestamp"), str)


def page_of(status: int, headers: Mapping[str, str], body: bytes) -> str:
    """What answered in the provider's place, for people: status, type, where it redirects to, and the first
    characters of it; nothing that a terminal obeys, and no key that it may echo."""
    kind = excerpt(headers.get("Content-Type", "").partition(";")[0], TYPE_CHARS_MAX) or "no type"
    to = ""
    if 300 <= status < 400 and (location := headers.get("Location")):
        # Without its query, which may carry what nobody else should see.
        bare = re.sub("//[^/@]*@", "//", re.split("[?#]", location)[0])
        to = f" to {excerpt(bare, PAGE_CHARS_MAX)}"
    text = excerpt(body[:PAGE_BYTES].decode("utf-8", "replace"), PAGE_CHARS_MAX)
    return f"HTTP {status}{to}, {kind}, {text}" if text else f"HTTP {status}{to}, {kind}, empty"


def excerpt(text: str, chars_max: int) -> str:
    """One line of printable characters, without what looks like a secret."""
    return _SECRET.sub(lambda found: found[1] + "…", one_line(text))[:chars_max]


def read_error(
    status: int, headers: Mapping[str, str], body: bytes, now: datetime | None = None
) -> WireError:
    """Any error answer: object or string `error`, top-level or inner details, HTML, or nothing at all."""
    root = _object(body)
    wait_s = _wait_s(headers, root, now or datetime.now(UTC))
    if not is_own_error(status, body):
        return WireError(None, page_of(status, headers, body), wait_s, is_own=False)
    return _own_error(status, root, wait_s)


def _own_error(status: int, root: Mapping[str, Any], wait_s: float | None = None) -> WireError:
    error = root.get("error")
    inner = error if isinstance(error, dict) else {}
    code = inner.get("code")
    text = inner.get("message") if inner else error
    message = text if isinstance(text, str) and text else f"HTTP {status}"
    details = _details(inner.get("details", root.get("details")))
    return WireError(
        code=storable(code, CODE_CHARS_MAX) if isinstance(code, str) else None,
        message=storable(message + details, MESSAGE_CHARS_MAX),
        wait_s=wait_s,
        is_route=_is_route(message, inner.get("details", root.get("details"))),
    )


def _is_route(message: str, details: object) -> bool:
    """Its 404 has one code for an unknown path and for an unknown task; what it names tells (C-J.2). The
    oldest layer names nothing."""
    named = details.get("id") if isinstance(details, Mapping) else None
    return named.startswith("/") if isinstance(named, str) else message.casefold().startswith("route ")


def read_item_error(item: Mapping[str, Any], status: int) -> WireError:
    """The refusal of one item of a batch: the provider's word, because the whole answer is."""
    return _own_error(status, item)


def is_own_create(body: bytes) -> bool:
    """Whether a 2xx to a create call is the provider's at all, be it readable or not."""
    fields = fields_of(body)
    return bytes(fields.get("task", b""))[:1] == b"{" or bytes(fields.get("results", b""))[:1] == b"["


def rate_limit(headers: Mapping[str, str]) -> tuple[int | None, int | None]:
    """(limit, remaining) of the X-RateLimit headers (C-D.2); None for what is absent or not a number."""
    return _integer(headers.get("X-RateLimit-Limit")), _integer(headers.get("X-RateLimit-Remaining"))


def _is_id(value: object) -> TypeGuard[str]:
    # Printable, because it goes into a path and into the database.
    return isinstance(value, str) and 0 < len(value) <= ID_CHARS_MAX and value.isprintable()


def _find_credits(envelope: _Envelope, credits: _Named, task: _Named, name: str) -> Decimal | None:
    # C-B16: where the credits of a task sit differs by edition.
    value = getattr(credits, name)
    if value is None:
        value = getattr(task, name)
    if value is None:
        value = value_of(getattr(envelope, name))
    try:
        return parse_credits(value, name)
    except ValueError as error:
        raise ReportError(str(error)) from error


def _named_of(raw: msgspec.Raw) -> _Named:
    """The fields of an object, as `value_of` has them; none of what is no object."""
    if raw is _ABSENT:
        return _NOTHING
    try:
        return _named.decode(raw)
    except UNREADABLE:
        # One of them cannot be read, say, or half a surrogate pair stands in it: each by itself.
        fields = fields_of(raw)
        return _Named(**{name: value_of(fields.get(name)) for name in _Named.__struct_fields__})


def value_of(raw: msgspec.Raw | None) -> Any:
    """A field as Python has it; an ellipsis for one that cannot be: a number of thousands of digits, say."""
    try:
        return None if raw is None else _anything.decode(raw)
    except UNREADABLE:
        return ...


def _failure_of(response: bytes) -> tuple[str | None, str | None]:
    try:
        error: Any = decode(_failure, response).error
    except UNREADABLE:
        return None, None
    if isinstance(error, str):
        return None, error
    if not isinstance(error, dict):
        return None, None
    code, message = error.get("code"), error.get("message")
    return (code if isinstance(code, str) else None), (message if isinstance(message, str) else None)


def _details(details: object) -> str:
    """`field: message` of each validation problem, whatever shape the edition gives them (C-J.4)."""
    if isinstance(details, dict):
        details = details.get("errors")
    if not isinstance(details, list):
        return ""
    parts = [
        f"{_word(item.get('field'))}: {_word(item.get('message'))}"
        for item in details[:DETAILS_MAX]
        if isinstance(item, dict)
    ]
    return f" ({'; '.join(parts)})" if parts else ""


def _word(value: object) -> str:
    return value if isinstance(value, str) else "?"


def _wait_s(headers: Mapping[str, str], root: Mapping[str, object], now: datetime) -> float | None:
    """The first that makes sense: Retry-After in seconds or as a date, then `retry_after` (C-B9)."""
    header = headers.get("Retry-After")
    in_body = root.get("retry_after")
    for wait in (
        None if header is None else _number(header),
        None if header is None else _until(header, now),
        _number(in_body) if isinstance(in_body, int | float) and not isinstance(in_body, bool) else None,
    ):
        if wait is not None and math.isfinite(wait) and wait >= 0:
            return min(wait, WAIT_S_MAX)
    return None


def _number(value: str | float) -> float | None:
    try:
        return float(value)
    except (ValueError, OverflowError):
        return None


def _until(http_date: str, now: datetime) -> float | None:
    time = _http_time(http_date)
    return None if time is None else max((time - now).total_seconds(), 0.0)


def dated_ms(headers: Mapping[str, str]) -> int | None:
    """The header Date: UTC milliseconds, of a whole second; None where there is none that can be read."""
    time = _http_time(headers.get("Date", ""))
    return None if time is None else round(time.timestamp()) * 1000


def _http_time(http_date: str) -> datetime | None:
    try:
        time = parsedate_to_datetime(http_date)
    except (ValueError, TypeError, OverflowError):
        return None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _integer(text: str | None) -> int | None:
    return int(text) if text is not None and len(text) <= 9 and text.isascii() and text.isdigit() else None


def read_slots(body: bytes) -> Slots | None:
    """GET /v1/async/status; None when it is not one."""
    root = _object(body)
    if not isinstance(root.get("queuedTasks"), int):
        return None
    concurrency = root.get("concurrency")
    figures = concurrency if isinstance(concurrency, Mapping) else {}
    most, used = figures.get("max"), figures.get("used")
    return Slots(
        most if isinstance(most, int) and not isinstance(most, bool) and most > 0 else None,
        used if isinstance(used, int) and not isinstance(used, bool) and used >= 0 else None,
    )


def read_balance(body: bytes, now_ms: int) -> Balance | None:
    """GET /v1/credits (C-E.6); None when it is not one. `remaining` may be negative under a contract."""
    root = _object(body)
    remaining = root.get("remaining")
    if isinstance(remaining, bool) or not isinstance(remaining, int | float):
        return None
    resets_at = root.get("cycleResetsAt")
    try:
        per_cycle = parse_credits(root.get("perCycle"), "perCycle", ACCOUNT_CREDITS_MAX)
        amount = parse_credits(abs(remaining), "remaining", ACCOUNT_CREDITS_MAX) or Decimal(0)
        time = datetime.fromisoformat(resets_at) if isinstance(resets_at, str) else None
    except ValueError:
        return None
    resets_at_ms = round(time.timestamp() * 1000) if time is not None else None
    return Balance(now_ms, -amount if remaining < 0 else amount, per_cycle, resets_at_ms)


def _object(body: bytes) -> Mapping[str, Any]:
    return {name: value_of(raw) for name, raw in fields_of(body).items()}
