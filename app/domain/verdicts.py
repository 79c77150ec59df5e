"""The verdicts, each one row of a table: what it means for people, and how findings of it are treated.

Pure data. Which verdict a report gets is decided in `credits.reconcile` and `settlement.decide_settlement`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """What reconciling `creditsToCharge` with `creditsCharged` found."""

    MATCHED = "matched"
    FREE_FAILURE = "free_failure"
    EXPLAINED = "explained"
    OVERCHARGED = "overcharged"
    UNDERCHARGED = "undercharged"
    CHARGED_FAILURE = "charged_failure"
    UNKNOWN = "unknown"
    CONFLICT = "conflict"
    REPRICED = "repriced"
    DOUBLE_CHARGED = "double_charged"
    UNMATCHED = "unmatched"
    LOST_AFTER_ACK = "lost_after_ack"  # the provider has our 2xx, and we have no delivery (P18)


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """How one verdict is treated."""

    is_quiet: bool = False
    """It needs no evidence, so it is no finding."""
    is_alongside: bool = False
    """A finding alongside the attempt's own verdict, and counted in reports as such."""
    is_derived: bool = True
    """It follows from the responses and reports about an attempt alone, so `verify` derives it again."""
    lapses: bool = False
    """It is disputed only while the money is open: a charge that is reported later answers it."""
    spans_attempts: bool = False
    """It says that all attempts of a task must be looked at together."""
    words: str = "{detail}"
    """What it means, for somebody who knows none of our words."""


VERDICTS: Mapping[str, VerdictRow] = {
    Verdict.MATCHED: VerdictRow(is_quiet=True),
    Verdict.FREE_FAILURE: VerdictRow(is_quiet=True),
    Verdict.EXPLAINED: VerdictRow(is_quiet=True),
    Verdict.OVERCHARGED: VerdictRow(
        words="The task was completed. {expected} credits were due and {actual} were charged."
    ),
    Verdict.UNDERCHARGED: VerdictRow(
        words="The task was completed. {expected} credits were due and {actual} were charged."
    ),
    Verdict.CHARGED_FAILURE: VerdictRow(
        words="The task failed, which is free, and {actual} credits were charged."
    ),
    Verdict.UNKNOWN: VerdictRow(
        lapses=True, words="The task is finished, and no report has said what was charged for it."
    ),
    Verdict.CONFLICT: VerdictRow(
        is_alongside=True, words="Two reports about one task differ: {detail}. We keep to the first one."
    ),
    Verdict.REPRICED: VerdictRow(
        is_alongside=True, words="creditsToCharge was {actual} where {expected} was expected: {detail}."
    ),
    Verdict.DOUBLE_CHARGED: VerdictRow(
        is_alongside=True,
        spans_attempts=True,
        words="Two attempts of one prompt were both charged; this one {actual} credits.",
    ),
    Verdict.UNMATCHED: VerdictRow(
        is_derived=False, words="A valid report came about a task that we never sent ({detail})."
    ),
    Verdict.LOST_AFTER_ACK: VerdictRow(
        is_alongside=True, is_derived=False, words="No credit is in dispute here: {detail}."
    ),
}

QUIET_VERDICTS = frozenset(verdict for verdict, row in VERDICTS.items() if row.is_quiet)
ALONGSIDE_VERDICTS = frozenset(verdict for verdict, row in VERDICTS.items() if row.is_alongside)
DERIVED_VERDICTS = frozenset(verdict for verdict, row in VERDICTS.items() if row.is_derived)
LAPSING_VERDICTS = frozenset(verdict for verdict, row in VERDICTS.items() if row.lapses)
SPANNING_VERDICTS = frozenset(verdict for verdict, row in VERDICTS.items() if row.spans_attempts)


def words_of(verdict: str) -> str:
    """What a verdict means; of one that a newer version found, its details alone."""
    return VERDICTS.get(verdict, VerdictRow()).words
