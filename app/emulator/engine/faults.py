"""Seeded misbehaviour, drawn from (seed, number): the same tasks meet the same faults in any order (C-M)."""

from dataclasses import dataclass, fields

from app.emulator.engine.seeded_draws import draw, purpose, word

FAIL = "fail"
DUPLICATE = "duplicate"
DROP = "drop"
OVERCHARGE = "overcharge"
UNDERCHARGE = "undercharge"
CHARGED_FAILURE = "charged_failure"
LOSE_RESPONSE = "lose_response"
LATE = "late"
BAD_SIGNATURE = "bad_signature"
STALE_TIMESTAMP = "stale_timestamp"
TRUNCATED_BODY = "truncated_body"
WRAPPED_RESPONSE = "wrapped_response"
CREDITS_IN_TASK = "credits_in_task"
OVERTAKEN = "overtaken"

REQUEST_FAULTS = (
    "storm_429",
    "error_500",
    "unavailable_503",
    "html_502",
    "gateway",
    "cut_connection",
    "slow",
)

_FAIL = purpose("fail")
_DUPLICATE = purpose("duplicate")
_DROP = purpose("drop")
_WRONG_CHARGE = purpose("wrong_charge")
_WRONG_KIND = purpose("wrong_kind")
_LOSE_RESPONSE = purpose("lose_response")
_SHUFFLE = purpose("shuffle")
_LATE = purpose("late")
_FIRST_ATTEMPT = purpose("first_attempt")
_WRAPPED = purpose("wrapped_response")
_CREDITS = purpose("credits_in_task")
_INTERNAL_RETRY = purpose("internal_retry")
_REQUEST = purpose("request")
_STRING_ERROR = purpose("string_error")
_JITTER = purpose("jitter")
_OVERTAKEN = purpose("overtaken")


@dataclass(slots=True, kw_only=True)
class FaultRates:
    """Shares between 0 and 1, and a few spans in seconds. All 0: a well-behaved provider."""

    seed: int | None = None
    """None: the process's seed."""

    # Of tasks and their deliveries.
    fail: float = 0.0
    duplicate: float = 0.0
    drop: float = 0.0
    shuffle_s: float = 0.0
    """Real seconds, since it is the receiver's order that is meant to suffer."""
    late: float = 0.0
    late_s: float = 900.0
    """Emulated seconds."""
    wrong_charge: float = 0.0
    lose_response: float = 0.0
    internal_retry: float = 0.02
    """An attempt goes back to QUEUED; the contract calls it normal (C-H)."""
    bad_signature: float = 0.0
    """First webhook attempt only; the next one is sound, as is the case for the two below."""
    stale_timestamp: float = 0.0
    truncated_body: float = 0.0
    wrapped_response: float = 0.0
    """`response` as {success, result} (C-L row L6)."""
    credits_in_task: float = 0.0
    """creditsCharged inside `task` (row B16)."""
    overtaken: float = 0.0
    """The create answer is held back until the webhook has been acknowledged (C-I.5, race)."""

    # Of requests to /v1, before they have any effect.
    storm_429: float = 0.0
    error_500: float = 0.0
    unavailable_503: float = 0.0
    retry_after_s: int = 2
    html_502: float = 0.0
    gateway: float = 0.0
    """An intermediary answers instead of the provider, each of its pages in turn."""
    cut_connection: float = 0.0
    slow: float = 0.0
    slow_s: float = 1.0
    """Real seconds."""
    string_errors: float = 0.0
    """Of error answers: the oldest layer's form."""

    @property
    def disturbs_requests(self) -> bool:
        """Whether any of the request faults is on."""
        return any(getattr(self, name) > 0 for name in REQUEST_FAULTS)

    def active(self) -> dict[str, float]:
        """What is on: shares, and the spans that belong to one of them."""
        rates = {field.name: getattr(self, field.name) for field in fields(self) if field.name != "seed"}
        return {name: rate for name, rate in rates.items() if rate and rates[_SHARE_OF.get(name, name)]}


_SHARE_OF = {"late_s": "late", "slow_s": "slow", "retry_after_s": "unavailable_503"}
"""Whose span each of these is."""
_SECONDS = frozenset({"shuffle_s", "late_s", "slow_s", "retry_after_s"})
_SECONDS_MAX = 1e7


def refuse_rate(name: str, value: float) -> None:
    """Raises ValueError, with the reason, for what the rate or span of that name cannot be."""
    if name == "seed":
        if not -(2**63) <= value < 2**63:
            raise ValueError("seed has 64 bits")
    elif not value >= 0:  # so that not a number is none of them
        raise ValueError(f"{name} must be a number that is not negative")
    elif name in _SECONDS and value > _SECONDS_MAX:
        raise ValueError(f"{name} is {_SECONDS_MAX:,.0f} seconds at most")
    elif name not in _SECONDS and value > 1:
        raise ValueError(f"{name} is a share between 0 and 1")


@dataclass(frozen=True, slots=True)
class TaskFate:
    """What was decided for one task when it was created."""

    fails: bool
    drops: bool
    duplicates: bool
    loses_response: bool
    wrong_charge: bool
    first_attempt: str | None = None
    """What is wrong with the first webhook attempt."""
    late_s: float = 0.0
    wrapped: bool = False
    credits_in_task: bool = False
    overtaken: bool = False

    def names(self) -> list[str]:
        """Those that are certain at creation, as the books name them."""
        decided = (
            (FAIL, self.fails),
            (DROP, self.drops),
            (DUPLICATE, self.duplicates),
            (LATE, self.late_s > 0),
            (self.first_attempt or "", self.first_attempt is not None),
            (WRAPPED_RESPONSE, self.wrapped),
            (CREDITS_IN_TASK, self.credits_in_task),
            (OVERTAKEN, self.overtaken),
        )
        return [name for name, yes in decided if yes]


_WELL_BEHAVED = TaskFate(False, False, False, False, False)


def fate_of(rates: FaultRates, seed: int, number: int, *, has_webhook: bool) -> TaskFate:
    """Decide a task's fate. A dropped delivery is never doubled, and its create response is never lost: the
    client would then have no way but the clock to learn of the task."""

    def happens(salt: int, rate: float) -> bool:
        return rate > 0 and draw(seed, number, salt) < rate

    drops = has_webhook and happens(_DROP, rates.drop)
    delivered = has_webhook and not drops
    wrong = happens(_WRONG_CHARGE, rates.wrong_charge)
    # A quarter of the wrong charges are for a failure, so that this kind is met without waiting for a
    # coincidence.
    charged_failure = wrong and word(seed, number, _WRONG_KIND) % 4 == 0
    fate = TaskFate(
        fails=charged_failure or happens(_FAIL, rates.fail),
        drops=drops,
        duplicates=delivered and happens(_DUPLICATE, rates.duplicate),
        loses_response=not drops and happens(_LOSE_RESPONSE, rates.lose_response),
        wrong_charge=wrong,
        first_attempt=_first_attempt(rates, seed, number) if delivered else None,
        late_s=rates.late_s if delivered and happens(_LATE, rates.late) else 0.0,
        wrapped=happens(_WRAPPED, rates.wrapped_response),
        credits_in_task=happens(_CREDITS, rates.credits_in_task),
        overtaken=delivered and happens(_OVERTAKEN, rates.overtaken),
    )
    return _WELL_BEHAVED if fate == _WELL_BEHAVED else fate


def _first_attempt(rates: FaultRates, seed: int, number: int) -> str | None:
    """At most one of three, so that their shares add up."""
    if not (rates.bad_signature or rates.stale_timestamp or rates.truncated_body):
        return None
    point = draw(seed, number, _FIRST_ATTEMPT)
    for name, rate in (
        (BAD_SIGNATURE, rates.bad_signature),
        (STALE_TIMESTAMP, rates.stale_timestamp),
        (TRUNCATED_BODY, rates.truncated_body),
    ):
        if point < rate:
            return name
        point -= rate
    return None


def wrong_charge(
    seed: int, number: int, right: int, estimate: int, *, completed: bool, variable: bool
) -> tuple[int, str]:
    """A charge that nothing in C-E.5 explains, and its kind. `variable` is AI Mode with expandProducts,
    where 0 to 6 above the estimate is legitimate, so a wrong one lies outside that span."""
    bits = word(seed, number, _WRONG_KIND)
    if not completed:
        return max(1, estimate), CHARGED_FAILURE
    if bits & 16 or estimate < 2:
        return (estimate + 7 if variable else right) + 1 + (bits >> 8) % 4, OVERCHARGE
    return 1 + (bits >> 8) % (estimate - 1), UNDERCHARGE


def delay_s(rates: FaultRates, seed: int, number: int, copy: int) -> float:
    """Real seconds by which a delivery is held back; `copy` is 0 for the first and 1 for its duplicate."""
    if not rates.shuffle_s:
        return 0.0
    return draw(seed, number, _SHUFFLE + copy) * rates.shuffle_s


def retries_internally(rates: FaultRates, seed: int, number: int, attempt: int) -> bool:
    """Whether this attempt of a healthy task goes back to the queue (C-H)."""
    return rates.internal_retry > 0 and draw(seed, number, _INTERNAL_RETRY + attempt) < rates.internal_retry


def request_fault(rates: FaultRates, seed: int, number: int) -> str | None:
    """What happens to a request before it has any effect, if anything; one at most."""
    point = draw(seed, number, _REQUEST)
    for name in REQUEST_FAULTS:
        rate: float = getattr(rates, name)
        if point < rate:
            return name
        point -= rate
    return None


def string_error(rates: FaultRates, seed: int, number: int) -> bool:
    """Whether an error answer takes the oldest form."""
    return rates.string_errors > 0 and draw(seed, number, _STRING_ERROR) < rates.string_errors


def jittered(wait_s: float, jitter: float, seed: int, number: int, attempt: int) -> float:
    """A rung of the ladder, moved by up to the given share either way (C-L row L18)."""
    return wait_s * (1.0 + jitter * (2.0 * draw(seed, number, _JITTER + attempt) - 1.0)) if jitter else wait_s
