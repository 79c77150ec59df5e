"""What an answer of the provider means for an attempt, and how long to wait before the next send.

Four kinds of error, closed set: reject the task, retry, stop the run, bug. Sources: C-J.2, C-J.3, P16, P21.
"""

import re
from enum import StrEnum


class Answer(StrEnum):
    """The closed set of outcomes of one create call."""

    ACCEPTED = "accepted"  # 200: the task exists and has an id
    EXISTS = "exists"  # 409: an earlier send of this key was accepted
    KEY_COLLISION = "foreign"  # 409 to a key that was never sent before: somebody else uses our keys (S8)
    REJECTED = "rejected"  # 400, 413, 422, 451: this task, for good
    MISDIRECTED = "misdirected"  # its own 404, 405, 410 and the like: the address is wrong, not the task
    RATE_LIMITED = "rate_limited"  # 429 of any kind but the queue's: slow down, send again
    QUEUE_FULL = "queue_full"  # 429 QUEUE_LIMIT_EXCEEDED: minutes, not seconds
    UNAVAILABLE = "unavailable"  # its own 5xx, or no connection: send again with the same key
    GATEWAY = "gateway"  # something else answered in its place: absence, send again with the same key
    LOST = "lost"  # no response: perhaps stored, send again with the same key
    NO_CREDITS = "no_credits"  # 403: pause the run
    BAD_KEY = "bad_key"  # 401: stop the run
    DEFERRED = "deferred"  # claimed but not sent, because the account paused meanwhile


RETRIED = frozenset(
    {
        Answer.RATE_LIMITED,
        Answer.QUEUE_FULL,
        Answer.UNAVAILABLE,
        Answer.GATEWAY,
        Answer.LOST,
        Answer.MISDIRECTED,
    }
)
"""Answers after which the same key is sent again."""


NOT_TAKEN = "SERVICE_UNAVAILABLE"
"""The one code of its own 5xx that says that the request was not taken. Behind any other, and behind a
request that it gave up itself (408, 499), the task may stand all the same."""


def accounts_for(answer: str, http_status: int | None, code: str | None) -> bool:
    """Whether this end of a send shows that the provider does not have the task: its own refusal, or no
    connection. The end LOST does not, nor does trouble of its own, a page of something in between, or a claim
    without an end."""
    if answer == Answer.UNAVAILABLE:
        # Before pages had an answer of their own they were this one, with a status and without a code.
        return http_status is None or code == NOT_TAKEN
    return answer in (Answer.REJECTED, Answer.RATE_LIMITED, Answer.QUEUE_FULL)


BACKOFF_FIRST_S = 1.0
BACKOFF_MAX_S = 60.0
QUEUE_FULL_WAIT_S = 60.0
WAIT_MAX_S = 3_600.0
"""Nothing is put off for longer, whatever the provider asked for: it is asked again then."""


_BY_CODE = {
    "RESOURCE_ALREADY_EXISTS": Answer.EXISTS,
    "INSUFFICIENT_CREDITS": Answer.NO_CREDITS,
    "INSUFFICIENT_PERMISSIONS": Answer.NO_CREDITS,
    "QUEUE_LIMIT_EXCEEDED": Answer.QUEUE_FULL,
    "RATE_LIMIT_EXCEEDED": Answer.RATE_LIMITED,
    "CONCURRENCY_LIMIT_EXCEEDED": Answer.RATE_LIMITED,
    "CONCURRENT_LIMIT_EXCEEDED": Answer.RATE_LIMITED,
    "MISSING_API_KEY": Answer.BAD_KEY,
    "INVALID_API_KEY_FORMAT": Answer.BAD_KEY,
    "INVALID_OR_EXPIRED_API_KEY": Answer.BAD_KEY,
    "RESOURCE_NOT_FOUND": Answer.MISDIRECTED,
    "REQUEST_CANCELED": Answer.UNAVAILABLE,
    "INTERNAL_SERVER_ERROR": Answer.UNAVAILABLE,
    "EXTERNAL_SERVICE_ERROR": Answer.UNAVAILABLE,
    NOT_TAKEN: Answer.UNAVAILABLE,
}
_BY_STATUS = {
    401: Answer.BAD_KEY,
    402: Answer.NO_CREDITS,
    403: Answer.NO_CREDITS,
    408: Answer.UNAVAILABLE,
    409: Answer.EXISTS,
    425: Answer.UNAVAILABLE,
    429: Answer.RATE_LIMITED,
    499: Answer.UNAVAILABLE,
    501: Answer.MISDIRECTED,
    505: Answer.MISDIRECTED,
}
_ABOUT_THE_TASK = frozenset({400, 413, 422, 451})
_OF_THE_REQUEST = re.compile(r"(.*_)?(API_KEY|(API|UNSUPPORTED)_VERSION|ENDPOINT|ROUTE|METHOD)(_.*)?")
"""Codes that nobody has met yet and that speak of how it was asked, not of what."""


def classify(status: int, code: str | None) -> Answer:
    """The meaning of an HTTP status and `error.code` of an answer that is the provider's own; the code
    decides where both are known (P21). What a gateway says in its place is GATEWAY, whatever its status.

    Only what is about the task itself closes it. Any other refusal meets every task alike: a wrong address,
    method, version or key."""
    if 200 <= status < 300:
        return Answer.ACCEPTED
    if code in _BY_CODE:
        return _BY_CODE[code]
    if code == "VALIDATION_ERROR" and 400 <= status < 500:
        return Answer.REJECTED
    if status in _BY_STATUS:
        return _BY_STATUS[status]
    if not 400 <= status < 500:
        # Unknown 5xx is transient (C-B20); anything else is no HTTP answer of this API.
        return Answer.UNAVAILABLE
    is_about_it = status in _ABOUT_THE_TASK and _OF_THE_REQUEST.fullmatch(code or "") is None
    return Answer.REJECTED if is_about_it else Answer.MISDIRECTED


def backoff_s(sends: int, jitter: float, wait_s: float | None = None) -> float:
    """Seconds until send number `sends + 1`: exponential from 1 s to 60 s, full jitter in its upper half.

    `jitter` is in [0, 1). `wait_s`, what the provider asked for by Retry-After or retry_after, is a floor
    under our own wait and never shortens it: 0, or a date just past, asks for nothing.
    """
    ceiling = min(BACKOFF_FIRST_S * 2.0 ** min(max(sends - 1, 0), 10), BACKOFF_MAX_S)
    own = ceiling * (0.5 + jitter / 2)
    return own if wait_s is None else max(own, wait_s + own * 0.1)
