"""Why a run does not send: a sentence for people, and a code for everything that is compared. Pure."""

from dataclasses import dataclass
from enum import StrEnum


class ReasonCode(StrEnum):
    """The closed set of reasons; what a program compares."""

    NO_CREDITS = "no_credits"  # paused: the provider refused for want of credits; goes on by itself
    BUDGET = "budget"  # paused: the run's own budget is used up
    PROVIDER_AWAY = "provider_away"  # paused: create calls do not reach its API; goes on by itself
    POLLS_UNANSWERED = "polls_unanswered"  # paused: all is sent, and polls do not reach its API; as above
    BY_HAND = "by_hand"  # paused by a person
    BAD_KEY = "bad_key"  # stopped: the provider refuses the API key
    KEY_COLLISION = "foreign_key"  # stopped: the provider knows a key that was never sent from here
    MONTH_BUDGET = "month_budget"  # running, and waits: the account's budget of the month is used up
    BACKLOG = "backlog"  # running, and waits: as much is at the provider as it finishes in time
    BALANCE_UNKNOWN = "balance_unknown"  # running, and waits: what the account has is not known
    ENGINES_FAIL = "engines_fail"  # running, and tasks of engines whose answers fail wait
    BALANCE_LOW = "balance_low"  # running, and waits: the balance covers no more than what is under way


@dataclass(frozen=True, slots=True)
class RunReason:
    """Why a run is paused, stopped or waits."""

    code: ReasonCode
    text: str
    """For people; may change, and nothing compares it."""


def not_allowed(code: str) -> RunReason:
    """A refusal like that for want of credits that says that it is another: treated alike, shown as it is."""
    return RunReason(ReasonCode.NO_CREDITS, f"the provider refuses the account ({code}); tried again")


NO_CREDITS = RunReason(ReasonCode.NO_CREDITS, "out of credits at the provider")
BUDGET = RunReason(ReasonCode.BUDGET, "budget reached")
MONTH_BUDGET = RunReason(ReasonCode.MONTH_BUDGET, "waiting: the account's budget of this month is reached")
BY_HAND = RunReason(ReasonCode.BY_HAND, "paused by hand")

PASSING = frozenset({ReasonCode.NO_CREDITS, ReasonCode.PROVIDER_AWAY, ReasonCode.POLLS_UNANSWERED})
"""Runs that are paused for one of these go on by themselves."""

WITHOUT_CODE = {reason.text: reason.code for reason in (NO_CREDITS, BUDGET, MONTH_BUDGET, BY_HAND)}
"""Texts as versions wrote them that kept no code; their rows may still say so."""
