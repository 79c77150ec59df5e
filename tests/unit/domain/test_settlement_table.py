"""Every pair of an attempt's state and a report, with its outcome written down. The products are enumerated:
a pair that is not in the tables, or twice, fails.
"""

import json
from dataclasses import dataclass, replace
from decimal import Decimal
from itertools import product

import pytest
from msgspec import structs

from app.domain.credits import ExplanationCode
from app.domain.pricing import explained_extra
from app.domain.settlement import Attempt, Circumstances, Effect, Settlement, decide_settlement
from app.domain.task import OPEN_STATES, Money, TaskState, new_id
from app.domain.verdicts import Verdict
from app.provider.wire import read_report

# What an attempt can have gone through, by state, money and the report taken for it. A dash: cannot be.
SITUATIONS = """
state       money     no-report  completed  failed
pending     none      unheld     -          -
pending     held      -          -          -
pending     posted    -          -          -
pending     voided    -          -          -
submitting  none      unheld     -          -
submitting  held      -          -          -
submitting  posted    -          -          -
submitting  voided    -          -          -
submitted   none      -          -          -
submitted   held      held       -          -
submitted   posted    -          -          -
submitted   voided    -          -          -
completed   none      closed     -          -
completed   held      -          blank      -
completed   posted    -          posted     -
completed   voided    -          -          -
failed      none      -          -          -
failed      held      -          -          blank
failed      posted    -          -          posted
failed      voided    -          -          voided
rejected    none      unheld     -          -
rejected    held      -          blank      blank
rejected    posted    -          posted     posted
rejected    voided    closed     -          voided
expired     none      unheld     -          -
expired     held      held       blank      blank
expired     posted    -          posted     posted
expired     voided    -          -          voided
cancelled   none      unheld     -          -
cancelled   held      -          blank      blank
cancelled   posted    -          posted     posted
cancelled   voided    -          -          voided
"""

# What a report then does. First the situation and the report that was taken before; then what comes now, and
# whether its answer equals the stored one; then, for each way of charging, the outcome.
OUTCOMES = """
situation before     now        answer   missing  null     zero     equal    less     more     clusters price
unheld    -          completed  equal    unknown  unknown  under    matched  under    over     clusters price
unheld    -          completed  other    unknown  unknown  under    matched  under    over     clusters price
unheld    -          failed     equal    unknown  unknown  free     charged  charged  charged  charged  charged
unheld    -          failed     other    unknown  unknown  free     charged  charged  charged  charged  charged
held      -          completed  equal    unknown  unknown  under    matched  under    over     clusters price
held      -          completed  other    unknown  unknown  under    matched  under    over     clusters price
held      -          failed     equal    unknown  unknown  free     charged  charged  charged  charged  charged
held      -          failed     other    unknown  unknown  free     charged  charged  charged  charged  charged
closed    -          completed  equal    conflict conflict conflict conflict conflict conflict conflict conflict
closed    -          completed  other    conflict conflict conflict conflict conflict conflict conflict conflict
closed    -          failed     equal    nothing  nothing  nothing  conflict conflict conflict conflict conflict
closed    -          failed     other    nothing  nothing  nothing  conflict conflict conflict conflict conflict
blank     completed  completed  equal    nothing  nothing  under!   matched! under!   over!    clusters! price!
blank     completed  completed  other    conflict conflict under!!  matched!! under!! over!!   clusters!! price!!
blank     completed  failed     equal    conflict conflict conflict conflict conflict conflict conflict conflict
blank     completed  failed     other    conflict conflict conflict conflict conflict conflict conflict conflict
blank     failed     failed     equal    nothing  nothing  free!    charged! charged! charged! charged! charged!
blank     failed     failed     other    conflict conflict free!!   charged!! charged!! charged!! charged!! charged!!
blank     failed     completed  equal    conflict conflict conflict conflict conflict conflict conflict conflict
blank     failed     completed  other    conflict conflict conflict conflict conflict conflict conflict conflict
posted    completed  completed  equal    nothing  nothing  conflict nothing  conflict conflict conflict conflict
posted    completed  completed  other    conflict conflict conflict conflict conflict conflict conflict conflict
posted    completed  failed     equal    conflict conflict conflict conflict conflict conflict conflict conflict
posted    completed  failed     other    conflict conflict conflict conflict conflict conflict conflict conflict
posted    failed     failed     equal    nothing  nothing  conflict nothing  conflict conflict conflict conflict
posted    failed     failed     other    conflict conflict conflict conflict conflict conflict conflict conflict
posted    failed     completed  equal    conflict conflict conflict conflict conflict conflict conflict conflict
posted    failed     completed  other    conflict conflict conflict conflict conflict conflict conflict conflict
voided    failed     failed     equal    nothing  nothing  nothing  conflict conflict conflict conflict conflict
voided    failed     failed     other    conflict conflict conflict conflict conflict conflict conflict conflict
voided    failed     completed  equal    conflict conflict conflict conflict conflict conflict conflict conflict
voided    failed     completed  other    conflict conflict conflict conflict conflict conflict conflict conflict
"""  # noqa: E501


@dataclass(frozen=True)
class Outcome:
    """What one word of the table means."""

    effect: Effect
    verdict: Verdict | None = None
    close: Money | None = None
    reason: ExplanationCode | None = None
    found: tuple[Verdict, ...] = ()


def taken(
    verdict: Verdict, close: Money | None, reason: ExplanationCode | None = None, *, loud: bool = True
) -> Outcome:
    return Outcome(Effect.SETTLED, verdict, close, reason, (verdict,) if loud else ())


WORDS = {
    "matched": taken(Verdict.MATCHED, Money.POSTED, loud=False),
    "clusters": taken(Verdict.EXPLAINED, Money.POSTED, ExplanationCode.AI_MODE_CLUSTERS, loud=False),
    "price": taken(Verdict.EXPLAINED, Money.POSTED, ExplanationCode.PRICE_CHANGE, loud=False),
    "under": taken(Verdict.UNDERCHARGED, Money.POSTED),
    "over": taken(Verdict.OVERCHARGED, Money.POSTED),
    "unknown": taken(Verdict.UNKNOWN, None),
    "free": taken(Verdict.FREE_FAILURE, Money.VOIDED, loud=False),
    "charged": taken(Verdict.CHARGED_FAILURE, Money.POSTED),
    "nothing": Outcome(Effect.DUPLICATE),
    "conflict": Outcome(Effect.CONFLICT, found=(Verdict.CONFLICT,)),
}
"""One exclamation mark: the charge is filled in after the work was settled. Two: the answer differs as well,
which is kept as a conflict."""


def outcome(word: str) -> Outcome:
    meant = WORDS[word.rstrip("!")]
    marks = word.count("!")
    found = meant.found + ((Verdict.CONFLICT,) if marks == 2 else ())
    return replace(meant, effect=Effect.FILLED, found=found) if marks else meant


def rows_of(table: str, keys: int) -> dict[tuple[str, ...], str]:
    """Cells by their row's first words and their column's name; fails for a row that stands there twice."""
    header, *lines = [line.split() for line in table.strip().splitlines()]
    cells: dict[tuple[str, ...], str] = {}
    for line in lines:
        assert len(line) == len(header), line
        for name, word in zip(header[keys:], line[keys:], strict=True):
            key = (*line[:keys], name)
            assert key not in cells, f"twice: {key}"
            cells[key] = word
    return cells


SITUATION_OF = rows_of(SITUATIONS, 2)
OUTCOME_OF = rows_of(OUTCOMES, 4)
BEFORE = {"no-report": "-", "completed": "completed", "failed": "failed"}
CHARGES = ("missing", "null", "zero", "equal", "less", "more", "clusters", "price")
CASES = [
    (state, money, reported, current, status, answer, charge)
    for state, money, reported, current, status, answer, charge in product(
        TaskState, Money, BEFORE, (True, False), ("completed", "failed"), ("equal", "other"), CHARGES
    )
    if SITUATION_OF.get((state, money, reported)) != "-"
]

# A task read in under the old price list, its report under the new one: both days are part of the price.
MADE_MS, REPORTED_MS = 1_787_000_000_000, 1_788_500_000_000  # 2026-08-17, 2026-09-04
TASK_ID = new_id(MADE_MS, random_bits=1)
QUESTIONS = {
    "clusters": ("AIMODE", {"include": {"expandProducts": True}}, 4),
    "price": ("PERPLEXITY", {"state": "CA"}, 5),
}
PLAIN = ("CHATGPT", {"include": {"ads": True}}, 7)
CLUSTERS = 3


def charged_by(charge: str, promised: int) -> object:
    return {
        "null": None,
        "zero": 0,
        "equal": promised,
        "less": promised - 1,
        "more": promised + 1,
        "clusters": promised + CLUSTERS,
        "price": promised + 1,
    }[charge]


def attempt_in(state: TaskState, money: Money, reported: str, *, current: bool, charge: str) -> Attempt:
    task_type, payload, promised = QUESTIONS.get(charge, PLAIN)
    held = Decimal(promised) if money is not Money.NONE else None
    charged = {Money.POSTED: Decimal(promised), Money.VOIDED: Decimal(0)}.get(money)
    if SITUATION_OF[state, money, reported] == "closed":
        charged = Decimal(0)
    return Attempt(
        task_id=TASK_ID,
        run_id="r",
        attempt=1,
        current=current,
        state=state,
        money=money,
        task_type=task_type,
        payload_json=json.dumps(payload),
        estimate=Decimal(promised),
        held=held,
        to_charge=held,
        charged=charged,
        provider_task_id=None,
        verdict=None,
        reported=None if reported == "no-report" else TaskState(reported),
    )


def decide(attempt: Attempt, status: str, answer: str, charge: str) -> Settlement:
    """The report goes the way of a delivery: as JSON, through the parser."""
    promised = int(attempt.estimate)
    credits = {"creditsToCharge": promised}
    if charge != "missing":
        credits["creditsCharged"] = charged_by(charge, promised)  # type: ignore[assignment]
    response = {"productResults": [{}] * CLUSTERS} if charge == "clusters" else {"text": "an answer"}
    body = {"task": {"id": "p", "status": status.upper()}, "credits": credits, "response": response}
    report = read_report(json.dumps(body).encode())
    extra = Decimal(0)
    if report.completed:
        extra = explained_extra(attempt.task_type, json.loads(attempt.payload_json), response)  # type: ignore[arg-type]
    return decide_settlement(
        attempt,
        report,
        extra=extra,
        same_response=answer == "equal",
        circumstances=Circumstances(reported_ms=REPORTED_MS),
    )


def test_every_situation_is_listed() -> None:
    assert set(SITUATION_OF) == set(product(TaskState, Money, BEFORE))


def test_every_outcome_is_listed() -> None:
    possible = {
        (situation, BEFORE[reported])
        for (_, _, reported), situation in SITUATION_OF.items()
        if situation != "-"
    }
    answers = product(("completed", "failed"), ("equal", "other"), CHARGES)
    assert set(OUTCOME_OF) == {(*one, *rest) for one, rest in product(possible, answers)}
    assert {word.rstrip("!") for word in OUTCOME_OF.values()} == set(WORDS)


def test_every_pair_has_the_outcome_that_is_written_down() -> None:
    wrong = []
    for state, money, reported, current, status, answer, charge in CASES:
        attempt = attempt_in(state, money, reported, current=current, charge=charge)
        situation = SITUATION_OF[state, money, reported]
        word = OUTCOME_OF[situation, BEFORE[reported], status, answer, charge]
        expected, found = outcome(word), decide(attempt, status, answer, charge)
        case = (state, money, reported, status, answer, charge)
        kept = expected.effect in (Effect.DUPLICATE, Effect.CONFLICT)
        if (
            found.effect is not expected.effect
            or tuple(one.verdict for one in found.findings) != expected.found
            or (found.close, found.reason) != (expected.close, expected.reason)
            or found.stores_result is not (expected.effect is Effect.SETTLED)
            or (found.hold is not None) is not (situation == "unheld")
            or found.after.current is not current
            or (found.after != attempt if kept else found.after.verdict is not expected.verdict)
        ):
            wrong.append((case, word, found))
    assert not wrong, f"{len(wrong)} of {len(CASES)}, first: {wrong[0]}"


def test_an_outcome_is_a_situation_again() -> None:
    """Nothing leads to what cannot be: every attempt after a report stands in the first table, closed."""
    for state, money, reported, current, status, answer, charge in CASES:
        attempt = attempt_in(state, money, reported, current=current, charge=charge)
        after = decide(attempt, status, answer, charge).after
        column = "no-report" if after.reported is None else after.reported
        assert SITUATION_OF[after.state, after.money, column] != "-"
        assert after.state not in OPEN_STATES
        assert (after.money is Money.HELD) == (after.charged is None)
        if attempt.state is TaskState.REJECTED:
            # A report proves a refusal wrong.
            assert after.state in (attempt.state, after.reported)
        elif attempt.state not in OPEN_STATES:
            assert after.state is attempt.state


@pytest.mark.parametrize("charge", CHARGES)
def test_another_attempt_that_was_charged_adds_one_finding(charge: str) -> None:
    """Beside whatever else the table says, when this one is charged too."""
    for state, status in product((TaskState.SUBMITTED, TaskState.EXPIRED), ("completed", "failed")):
        attempt = attempt_in(state, Money.HELD, "no-report", current=False, charge=charge)
        alone = decide(attempt, status, "equal", charge)
        both = decide(structs.replace(attempt, charged_elsewhere=True), status, "equal", charge)
        expected = [Verdict.DOUBLE_CHARGED] if both.after.charged else []
        assert [one.verdict for one in both.findings] == [one.verdict for one in alone.findings] + expected
