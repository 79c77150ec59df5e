"""The decision table of settlement: state, money and findings for every report on every kind of attempt."""

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from app.domain.credits import ExplanationCode
from app.domain.pricing import PRICE_LISTS
from app.domain.settlement import Attempt, Circumstances, Effect, Report, Settlement
from app.domain.settlement import decide_settlement as decide
from app.domain.task import OPEN_STATES, Money, TaskState
from app.domain.verdicts import Verdict

SUBMITTED = Attempt(
    task_id="t",
    run_id="r",
    attempt=1,
    current=True,
    state=TaskState.SUBMITTED,
    money=Money.HELD,
    task_type="CHATGPT",
    payload_json="{}",
    estimate=Decimal(5),
    held=Decimal(5),
    to_charge=Decimal(5),
    charged=None,
    provider_task_id="p",
    verdict=None,
    reported=None,
)
SUBMITTING = replace(
    SUBMITTED, state=TaskState.SUBMITTING, money=Money.NONE, held=None, to_charge=None, provider_task_id=None
)
COMPLETED = replace(
    SUBMITTED,
    state=TaskState.COMPLETED,
    money=Money.POSTED,
    charged=Decimal(5),
    verdict=Verdict.MATCHED,
    reported=TaskState.COMPLETED,
)
UNPRICED = replace(COMPLETED, money=Money.HELD, charged=None, verdict=Verdict.UNKNOWN)
FAILED = replace(
    SUBMITTED,
    state=TaskState.FAILED,
    money=Money.VOIDED,
    charged=Decimal(0),
    verdict=Verdict.FREE_FAILURE,
    reported=TaskState.FAILED,
)
EXPIRED = replace(SUBMITTED, state=TaskState.EXPIRED)


def report(charged: int | str | None = 5, *, completed: bool = True, **changes: Any) -> Report:
    return replace(
        Report(
            provider_task_id="p",
            idempotency_key="t.1",
            completed=completed,
            to_charge=Decimal(5),
            charged=None if charged is None else Decimal(charged),
            response=b"{}",
        ),
        **changes,
    )


def settle(attempt: Attempt, incoming: Report, *, extra: int = 0, same_response: bool = True) -> Settlement:
    return decide(attempt, incoming, extra=Decimal(extra), same_response=same_response)


@pytest.mark.parametrize("attempt", [SUBMITTED, SUBMITTING, replace(SUBMITTING, state=TaskState.PENDING)])
@pytest.mark.parametrize(
    ("incoming", "state", "money", "verdict", "loud"),
    [
        (report(5), TaskState.COMPLETED, Money.POSTED, Verdict.MATCHED, False),
        (report(6), TaskState.COMPLETED, Money.POSTED, Verdict.OVERCHARGED, True),
        (report(4), TaskState.COMPLETED, Money.POSTED, Verdict.UNDERCHARGED, True),
        (report(0), TaskState.COMPLETED, Money.POSTED, Verdict.UNDERCHARGED, True),
        (report(None), TaskState.COMPLETED, Money.HELD, Verdict.UNKNOWN, True),
        (report(0, completed=False), TaskState.FAILED, Money.VOIDED, Verdict.FREE_FAILURE, False),
        (report(5, completed=False), TaskState.FAILED, Money.POSTED, Verdict.CHARGED_FAILURE, True),
        (report(None, completed=False), TaskState.FAILED, Money.HELD, Verdict.UNKNOWN, True),
    ],
)
def test_a_first_report_is_taken(
    attempt: Attempt, incoming: Report, state: TaskState, money: Money, verdict: Verdict, loud: bool
) -> None:
    found = settle(attempt, incoming)
    assert found.effect is Effect.SETTLED
    assert (found.after.state, found.after.money, found.after.verdict) == (state, money, verdict)
    assert found.after.reported is (TaskState.COMPLETED if incoming.completed else TaskState.FAILED)
    assert found.after.charged == incoming.charged
    assert found.close is (None if money is Money.HELD else money)
    assert found.stores_result
    assert [finding.verdict for finding in found.findings] == ([verdict] if loud else [])


def test_a_report_that_overtook_the_submit_response_writes_the_hold() -> None:
    found = settle(SUBMITTING, report(5))
    assert (found.hold, found.after.held, found.after.to_charge) == (5, 5, 5)
    assert found.after.provider_task_id == "p"
    assert settle(SUBMITTED, report(5)).hold is None


def test_without_any_promise_the_estimate_is_held_and_compared() -> None:
    found = settle(SUBMITTING, report(5, to_charge=None))
    assert (found.hold, found.after.to_charge, found.after.verdict) == (5, None, Verdict.MATCHED)
    assert settle(SUBMITTING, report(7, to_charge=None)).after.verdict is Verdict.OVERCHARGED


def test_the_promise_of_the_submit_response_counts_not_the_estimate() -> None:
    promised = replace(SUBMITTED, to_charge=Decimal(7), held=Decimal(7))
    assert settle(promised, report(7, to_charge=Decimal(7))).after.verdict is Verdict.MATCHED
    assert settle(promised, report(5, to_charge=Decimal(7))).after.verdict is Verdict.UNDERCHARGED


def test_credits_that_the_contract_adds_are_explained() -> None:
    assert settle(SUBMITTED, report(8), extra=3).after.verdict is Verdict.EXPLAINED
    found = settle(SUBMITTED, report(9), extra=3)
    assert found.after.verdict is Verdict.OVERCHARGED
    assert (found.findings[0].expected, found.findings[0].actual) == (8, 9)


PERPLEXITY = replace(
    SUBMITTED,
    task_id="019f0db0-5c00-7000-8000-000000000001",
    task_type="PERPLEXITY",
    estimate=Decimal(3),
    held=Decimal(3),
    to_charge=Decimal(3),
)
"""Made in June 2026, before the price list of August."""


@pytest.mark.parametrize(
    ("attempt", "circumstances", "reason"),
    [
        (PERPLEXITY, Circumstances(reported_ms=1_788_500_000_000), ExplanationCode.PRICE_CHANGE),
        (PERPLEXITY, Circumstances(reported_ms=1_787_000_000_000), None),  # the list was still to come
        (PERPLEXITY, Circumstances(), None),  # nobody says when
        (replace(PERPLEXITY, task_id="no UUID"), Circumstances(reported_ms=1_788_500_000_000), None),
    ],
)
def test_a_new_price_is_explained_in_its_time_only(
    attempt: Attempt, circumstances: Circumstances, reason: ExplanationCode | None
) -> None:
    incoming = report(4, to_charge=Decimal(3))
    found = decide(attempt, incoming, extra=Decimal(0), same_response=True, circumstances=circumstances)
    assert found.reason is reason
    assert found.after.verdict is (Verdict.EXPLAINED if reason else Verdict.OVERCHARGED)
    assert [finding.verdict for finding in found.findings] == ([] if reason else [Verdict.OVERCHARGED])


def test_an_accounts_own_prices_explain_its_charges() -> None:
    dear = [prices.with_overrides({"PERPLEXITY": 3 + 2 * n}) for n, prices in enumerate(PRICE_LISTS)]
    circumstances = Circumstances(reported_ms=1_788_500_000_000, lists=dear)
    incoming = report(5, to_charge=Decimal(3))
    found = decide(PERPLEXITY, incoming, extra=Decimal(0), same_response=True, circumstances=circumstances)
    assert found.reason is ExplanationCode.PRICE_CHANGE


def test_a_promise_that_only_the_report_has_is_held_against_the_estimate() -> None:
    """The submit response was lost, so nobody compared the two before."""
    lost = replace(PERPLEXITY, to_charge=None)
    [finding] = settle(lost, report(4, to_charge=Decimal(4))).findings
    assert (finding.verdict, finding.expected, finding.actual) == (Verdict.REPRICED, 3, 4)
    assert finding.detail == "creditsToCharge is the price since 2026-08-25: PERPLEXITY 4 = 4; estimated 3"
    assert settle(lost, report(3, to_charge=Decimal(3))).findings == []


def test_a_charge_in_other_words_closes_the_money_and_keeps_the_difference() -> None:
    found = settle(UNPRICED, report(5), same_response=False)
    assert (found.effect, found.close, found.stores_result) == (Effect.FILLED, Money.POSTED, False)
    assert [(f.verdict, f.detail) for f in found.findings] == [
        (Verdict.CONFLICT, "same status, another response with the charge")
    ]


def test_a_report_for_a_hold_that_is_void_closes_nothing_twice() -> None:
    refused = replace(SUBMITTED, state=TaskState.REJECTED, money=Money.VOIDED, charged=Decimal(0))
    assert settle(refused, report(0, completed=False)).effect is Effect.DUPLICATE
    found = settle(refused, report(5))
    assert (found.effect, found.close, found.after) == (Effect.CONFLICT, None, refused)
    assert found.findings[0].detail == "closed without a report, then completed"


def test_another_promise_in_the_report_is_a_finding() -> None:
    found = settle(SUBMITTED, report(5, to_charge=Decimal(6)))
    assert [finding.verdict for finding in found.findings] == [Verdict.REPRICED]
    assert found.after.to_charge == 5


def test_a_second_charge_for_one_task_is_a_finding() -> None:
    attempt = replace(SUBMITTED, charged_elsewhere=True)
    assert [f.verdict for f in settle(attempt, report(5)).findings] == [Verdict.DOUBLE_CHARGED]
    assert settle(attempt, report(0, completed=False)).findings == []


@pytest.mark.parametrize(
    ("attempt", "incoming"),
    [
        (COMPLETED, report(5)),
        (COMPLETED, report(None)),
        (COMPLETED, report("5.0")),
        (FAILED, report(0, completed=False)),
        (UNPRICED, report(None)),
    ],
)
def test_an_equal_report_changes_nothing(attempt: Attempt, incoming: Report) -> None:
    assert settle(attempt, incoming) == Settlement(Effect.DUPLICATE, attempt, attempt)


@pytest.mark.parametrize(
    ("attempt", "incoming", "same_response", "detail"),
    [
        (COMPLETED, report(6), True, "same status, another charge"),
        (COMPLETED, report(0), True, "same status, another charge"),
        (COMPLETED, report(5), False, "same status and charge, another response"),
        (COMPLETED, report(0, completed=False), True, "first completed, then failed"),
        (FAILED, report(5), True, "first failed, then completed"),
        (FAILED, report(5, completed=False), True, "same status, another charge"),
        (UNPRICED, report(0, completed=False), True, "first completed, then failed"),
    ],
)
def test_a_different_report_never_overwrites(
    attempt: Attempt, incoming: Report, same_response: bool, detail: str
) -> None:
    found = settle(attempt, incoming, same_response=same_response)
    assert found.effect is Effect.CONFLICT
    assert found.after == attempt
    assert (found.hold, found.close, found.stores_result) == (None, None, False)
    assert [(f.verdict, f.actual, f.detail) for f in found.findings] == [
        (Verdict.CONFLICT, incoming.charged, detail)
    ]


def test_a_charge_that_comes_later_fills_the_blank() -> None:
    found = settle(UNPRICED, report(5))
    assert found.effect is Effect.FILLED
    assert (found.after.money, found.after.charged, found.after.verdict) == (Money.POSTED, 5, Verdict.MATCHED)
    assert (found.close, found.hold, found.stores_result) == (Money.POSTED, None, False)


@pytest.mark.parametrize("incoming", [report(5), report(0, completed=False)])
def test_a_report_after_expiry_moves_the_money_and_leaves_the_work_closed(incoming: Report) -> None:
    found = settle(EXPIRED, incoming)
    assert found.effect is Effect.SETTLED
    assert found.after.state is TaskState.EXPIRED
    assert found.after.money is (Money.POSTED if incoming.completed else Money.VOIDED)
    assert found.stores_result


STATES = st.sampled_from([SUBMITTED, SUBMITTING, COMPLETED, UNPRICED, FAILED, EXPIRED])
CHARGES = st.sampled_from([None, Decimal(0), Decimal(4), Decimal(5), Decimal(6)])
REPORTS = st.builds(
    lambda completed, charged, to_charge: replace(
        report(completed=completed), charged=charged, to_charge=to_charge
    ),
    st.booleans(),
    CHARGES,
    CHARGES,
)


@given(STATES, st.lists(st.tuples(REPORTS, st.booleans()), max_size=6))
def test_whatever_is_reported_is_settled_once(attempt: Attempt, incoming: list[tuple[Report, bool]]) -> None:
    before = attempt
    holds = [attempt.held] if attempt.held is not None else []
    closes = [attempt.money] if attempt.money in (Money.POSTED, Money.VOIDED) else []
    results = int(attempt.reported is not None)
    for one, same in incoming:
        found = settle(attempt, one, same_response=same)
        assert found.before is attempt
        holds += [found.hold] if found.hold is not None else []
        closes += [found.close] if found.close is not None else []
        results += found.stores_result
        attempt = found.after
    assert len(holds) <= 1
    assert len(closes) <= 1
    assert results <= 1
    if incoming:
        assert results == 1
        assert attempt.state not in OPEN_STATES
        assert attempt.held is not None
        # Money is open exactly while nobody has told the charge.
        assert (attempt.money is Money.HELD) == (attempt.charged is None) == (not closes)
        assert (attempt.verdict is Verdict.UNKNOWN) == (attempt.charged is None)
    if before.reported is not None:
        assert attempt.reported is before.reported
