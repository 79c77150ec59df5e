"""Seeded misbehaviour, drawn from (seed, creation number): the same tasks meet the same faults in any
order (C-M)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from .randomness import draw, purpose, word

FAIL: Final = "fail"
DUPLICATE: Final = "duplicate"
DROP: Final = "drop"
OVERCHARGE: Final = "overcharge"
UNDERCHARGE: Final = "undercharge"
CHARGED_FAILURE: Final = "charged_failure"
LOSE_RESPONSE: Final = "lose_response"

_FAIL: Final = purpose("fail")
_DUPLICATE: Final = purpose("duplicate")
_DROP: Final = purpose("drop")
_WRONG_CHARGE: Final = purpose("wrong_charge")
_WRONG_KIND: Final = purpose("wrong_kind")
_LOSE_RESPONSE: Final = purpose("lose_response")
_SHUFFLE: Final = purpose("shuffle")
_INTERNAL_RETRY: Final = purpose("internal_retry")


@dataclass(slots=True, kw_only=True)
class FaultRates:
    """Shares of tasks between 0 and 1, and one span in seconds. All 0: a well-behaved provider."""

    fail: float = 0.0
    duplicate: float = 0.0
    drop: float = 0.0
    shuffle_s: float = 0.0  # real seconds, since it is the receiver's order that is meant to suffer
    wrong_charge: float = 0.0
    lose_response: float = 0.0
    internal_retry: float = 0.02  # an attempt goes back to QUEUED; the contract calls it normal (C-H)


@dataclass(frozen=True, slots=True)
class TaskFate:
    """What was decided for one task when it was created."""

    fails: bool
    drops: bool
    duplicates: bool
    loses_response: bool
    wrong_charge: bool


_WELL_BEHAVED: Final = TaskFate(False, False, False, False, False)


def fate_of(rates: FaultRates, seed: int, number: int, *, has_webhook: bool) -> TaskFate:
    """Decide a task's fate. A dropped delivery is never doubled, and its create response is never lost:
    the client would then have no way but the clock to learn of the task."""
    if not (rates.fail or rates.drop or rates.duplicate or rates.lose_response or rates.wrong_charge):
        return _WELL_BEHAVED
    drops = has_webhook and draw(seed, number, _DROP) < rates.drop
    return TaskFate(
        fails=draw(seed, number, _FAIL) < rates.fail,
        drops=drops,
        duplicates=has_webhook and not drops and draw(seed, number, _DUPLICATE) < rates.duplicate,
        loses_response=not drops and draw(seed, number, _LOSE_RESPONSE) < rates.lose_response,
        wrong_charge=draw(seed, number, _WRONG_CHARGE) < rates.wrong_charge,
    )


def wrong_charge(
    seed: int, number: int, right: int, estimate: int, *, completed: bool, variable: bool
) -> tuple[int, str]:
    """A charge that nothing in C-E.5 explains, and its kind. `variable` is AI Mode with expandProducts,
    where 0 to 6 above the estimate is legitimate, so a wrong one lies outside that span."""
    bits = word(seed, number, _WRONG_KIND)
    if not completed:
        return estimate, CHARGED_FAILURE
    if bits & 1:
        return (estimate + 7 if variable else right) + 1 + (bits >> 8) % 4, OVERCHARGE
    return 1 + (bits >> 8) % (estimate - 1), UNDERCHARGE


def delay_s(rates: FaultRates, seed: int, number: int, copy: int) -> float:
    """Real seconds by which a delivery is held back; `copy` is 0 for the first and 1 for its duplicate."""
    if not rates.shuffle_s:
        return 0.0
    return draw(seed, number, _SHUFFLE + copy) * rates.shuffle_s


def retries_internally(rates: FaultRates, seed: int, number: int, attempt: int) -> bool:
    """Whether this attempt of a healthy task goes back to the queue (C-H)."""
    return bool(rates.internal_retry) and draw(seed, number, _INTERNAL_RETRY + attempt) < rates.internal_retry
