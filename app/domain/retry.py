"""What an answer of the provider means for an attempt, and how long to wait before the next send.

Four kinds of error, closed set: reject the task, retry, stop the run, bug (DESIGN section 9). Sources: C-J.2,
C-J.3, P16, P20.
"""

from enum import StrEnum


class Answer(StrEnum):
    """The closed set of outcomes of one create call."""

    ACCEPTED = "accepted"  # 200: the task exists and has an id
    EXISTS = "exists"  # 409: an earlier send of this key was accepted
    FOREIGN = "foreign"  # 409 to a key that was never sent before: somebody else uses our keys (S8)
    REJECTED = "rejected"  # 400, 422, other permanent 4xx: this task, for good
    RATE_LIMITED = "rate_limited"  # 429 of any kind but the queue's: slow down, send again
    QUEUE_FULL = "queue_full"  # 429 QUEUE_LIMIT_EXCEEDED: minutes, not seconds
    UNAVAILABLE = "unavailable"  # its own 5xx, or no connection: send again with the same key
    GATEWAY = "gateway"  # something else answered in its place: absence, send again with the same key
    LOST = "lost"  # no response: perhaps stored, send again with the same key
    NO_CREDITS = "no_credits"  # 403: pause the run
    BAD_KEY = "bad_key"  # 401: stop the run
    DEFERRED = "deferred"  # claimed but not sent, because the account paused meanwhile


RETRIED = frozenset({Answer.RATE_LIMITED, Answer.QUEUE_FULL, Answer.UNAVAILABLE, Answer.GATEWAY, Answer.LOST})
"""Answers after which the same key is sent again."""


NOT_TAKEN = "SERVICE_UNAVAILABLE"
"""The one code of its own 5xx that says that the request was not taken. Behind any other, and behind a
request that it gave up itself (408, 499), the task may stand all the same."""


def accounts_for(answer: str, http_status: int | None, code: str | None) -> bool:
    """Whether this end of a send tells that the provider does not have the task: its own refusal, or no
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


def classify(status: int, code: str | None) -> Answer:
    """The meaning of an HTTP status and `error.code` of an answer that is the provider's own; the code
    decides where both are known (P21). What a gateway says in its place is GATEWAY, whatever its status."""
    if 200 <= status < 300:
        return Answer.ACCEPTED
    by_code = {
        "RESOURCE_ALREADY_EXISTS": Answer.EXISTS,
        "INSUFFICIENT_CREDITS": Answer.NO_CREDITS,
        "QUEUE_LIMIT_EXCEEDED": Answer.QUEUE_FULL,
        "INSUFFICIENT_PERMISSIONS": Answer.NO_CREDITS,
    }
    if code in by_code:
        return by_code[code]
    by_status = {
        401: Answer.BAD_KEY,
        402: Answer.NO_CREDITS,
        403: Answer.NO_CREDITS,
        408: Answer.UNAVAILABLE,
        409: Answer.EXISTS,
        425: Answer.UNAVAILABLE,
        429: Answer.RATE_LIMITED,
        499: Answer.UNAVAILABLE,
    }
    if status in by_status:
        return by_status[status]
    # Unknown 4xx is permanent, unknown 5xx transient (C-B20); anything else is no HTTP answer of this API.
    return Answer.REJECTED if 400 <= status < 500 else Answer.UNAVAILABLE


def backoff_s(sends: int, jitter: float, wait_s: float | None = None) -> float:
    """Seconds until send number `sends + 1`: exponential from 1 s to 60 s, full jitter in its upper half.

    `jitter` is in [0, 1). `wait_s`, what the provider asked for by Retry-After or retry_after, is a floor
    under our own wait and never shortens it: 0, or a date just past, asks for nothing.
    """
    ceiling = min(BACKOFF_FIRST_S * 2.0 ** min(max(sends - 1, 0), 10), BACKOFF_MAX_S)
    own = ceiling * (0.5 + jitter / 2)
    return own if wait_s is None else max(own, wait_s + own * 0.1)
