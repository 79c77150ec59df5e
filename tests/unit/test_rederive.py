"""Deriving an attempt again: the money closes alike in any order of what was said, or a conflict says so."""

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.domain.accounting.adjustment import account_entry, adjustment_reason, noted_credits, parse_adjustment
from app.domain.credits import CreditsError
from app.domain.delivery import ParsedDelivery
from app.domain.settlement import Attempt, Effect, Report, Settlement, Source
from app.domain.task import Money, TaskState
from app.domain.verdicts import Verdict
from app.domain.verification.derivation import (
    DerivationInput,
    Event,
    Expected,
    OwnDecision,
    derive,
    is_order_free,
    possible_orders,
)
from app.domain.verification.signature_checks import SignatureStatus, SignatureSummary
from app.domain.verification.stored_rows import Row
from app.services.settle import decide_delivery

FIVE = Decimal(5)
ACCEPTED: Row = {
    "answer": "accepted",
    "at_ms": 1_000,
    "provider_task_id": "p",
    "credits_to_charge": FIVE,
    "code": None,
    "message": None,
    "http_status": None,
    "id": 1,
    "open_sends": None,
}
LOST: Row = ACCEPTED | {"answer": "lost", "provider_task_id": None, "credits_to_charge": None}
TASK = "01900000-0000-7000-8000-000000000001"
KEY, OTHER_KEY = f"{TASK}.1", f"{TASK}.2"
_ids = itertools.count(1)


def report(
    charged: int | None,
    text: str = "yes",
    *,
    completed: bool = True,
    provider_id: str = "p",
    key: str | None = "key",
) -> ParsedDelivery:
    """One report about the attempt."""
    content = Report(
        provider_id,
        key,
        completed,
        FIVE,
        None if charged is None else Decimal(charged),
        f'{{"text":"{text}"}}'.encode(),
    )
    return ParsedDelivery(f"{next(_ids):08}", Source.DELIVERY, 2_000, content)


def attempt(*decisions: OwnDecision) -> DerivationInput:
    """An attempt of a task that was estimated at five credits."""
    return DerivationInput(TASK, "r", 1, True, "CHATGPT", "{}", FIVE, False, frozenset(decisions))


def derived(*events: Event) -> Expected:
    return derive(attempt(), events, decide_delivery)


REPORTS = st.lists(
    st.builds(
        report, st.sampled_from([None, 0, 5, 6]), st.sampled_from(["yes", "no"]), completed=st.booleans()
    ),
    min_size=1,
    max_size=3,
)
SENT = st.lists(st.sampled_from([ACCEPTED, LOST]), max_size=2)


@given(sent=SENT, reports=REPORTS)
def test_money_depends_on_order_only_where_a_conflict_is_found(
    sent: list[Row], reports: list[ParsedDelivery]
) -> None:
    events: list[Event] = [*sent, *reports]
    expected = derive(attempt(), events, decide_delivery)
    conflicted = any(f.verdict is Verdict.CONFLICT for f in expected.findings)
    closings = {derive(attempt(), order, decide_delivery).closing for order in itertools.permutations(events)}
    assert len(closings) == 1 or conflicted
    assert is_order_free(attempt(), expected, events, decide_delivery) or conflicted


@given(sent=SENT, reports=REPORTS)
def test_one_hold_and_one_closing_whatever_is_reported(
    sent: list[Row], reports: list[ParsedDelivery]
) -> None:
    expected = derived(*sent, *reports)
    kinds = [entry.kind for entry in expected.entries]
    assert kinds.count("hold") == 1
    assert kinds.count("post") + kinds.count("void") == (expected.after.charged is not None)
    settled = [i for i, effect in expected.effects.items() if effect is Effect.SETTLED]
    assert settled == [reports[0].id]


REFUSED: Row = LOST | {
    "answer": "rejected",
    "http_status": 400,
    "code": "VALIDATION_ERROR",
    "at_ms": 2_000,
    "id": 2,
    "open_sends": 0,
}


@pytest.mark.parametrize(
    ("sends", "stored", "state", "open_sends"),
    [
        (1, 0, TaskState.REJECTED, {2: 0}),
        (2, 1, TaskState.SUBMITTED, {2: 1}),  # the send before it, lost or without an end
        (2, 0, TaskState.SUBMITTED, {2: 1}),  # whatever the row says
        (2, None, TaskState.REJECTED, {}),  # recorded by a version that did not ask
    ],
)
def test_a_refusal_closes_what_no_earlier_send_may_have_bought(
    sends: int, stored: int | None, state: TaskState, open_sends: dict[object, int]
) -> None:
    events: list[Event] = [*([LOST] if sends > 1 else []), REFUSED | {"open_sends": stored}]
    given_ = replace(attempt(), sends=sends)
    expected = derive(given_, events, decide_delivery)
    assert (expected.after.state, expected.open_sends) == (state, open_sends)
    applied = derive(given_, [*events, report(5)], decide_delivery)
    assert (applied.after.state, applied.after.money, applied.error_code) == (
        TaskState.COMPLETED,
        Money.POSTED,
        None,
    )


def test_a_contradiction_is_not_order_free() -> None:
    five, six = report(5), report(6)
    expected = derived(ACCEPTED, five, six)
    assert expected.closing == (Money.POSTED, FIVE)
    assert not is_order_free(attempt(), expected, [ACCEPTED, five, six], decide_delivery)


def _in_every_order(
    sent: list[Row], reports: list[ParsedDelivery], expected: Expected, decisions: Sequence[OwnDecision]
) -> bool:
    """The same question, asked of each report by deriving it all again with that one first."""
    for first in reports:
        rest = [other for other in reports if other is not first]
        for order in ([*decisions, *sent, first, *rest], [*decisions, first, *rest, *sent]):
            if derive(attempt(*decisions), order, decide_delivery).closing != expected.closing:
                return False
    return True


HOSTILE = st.lists(
    st.builds(
        report,
        st.sampled_from([None, 0, 5, 6]),
        completed=st.booleans(),
        provider_id=st.sampled_from(["p", "q"]),
        key=st.sampled_from([None, KEY, OTHER_KEY]),
    ),
    min_size=1,
    max_size=6,
)


@given(
    sent=SENT,
    reports=HOSTILE,
    decisions=st.sampled_from([(), (OwnDecision.EXPIRED,), (OwnDecision.ASKED, OwnDecision.GIVEN_UP)]),
)
def test_what_one_report_says_is_applied_once(
    sent: list[Row], reports: list[ParsedDelivery], decisions: tuple[OwnDecision, ...]
) -> None:
    events: list[Event] = [*decisions, *sent, *reports]
    expected = derive(attempt(*decisions), events, decide_delivery)
    assert is_order_free(attempt(*decisions), expected, events, decide_delivery) == _in_every_order(
        sent, reports, expected, decisions
    )


@pytest.mark.parametrize(
    "say",
    [
        lambda n: report(5),
        lambda n: report(n % 4_000),
        lambda n: report(5, provider_id=f"p{n}"),
        lambda n: report(None, provider_id=f"p{n}"),
        lambda n: report(5, key=f"{TASK}.{n}"),
        lambda n: report(None if n % 2 else 5, completed=n % 3 == 0, provider_id=f"p{n % 100}"),
    ],
    ids=["repeats", "charges", "ids", "ids without a charge", "keys", "all of it"],
)
@pytest.mark.parametrize("decisions", [(), (OwnDecision.ASKED, OwnDecision.GIVEN_UP)])
def test_each_report_is_applied_a_few_times_at_most(
    say: Callable[[int], ParsedDelivery], decisions: tuple[OwnDecision, ...]
) -> None:
    applied = 0

    def counting(delivery: ParsedDelivery, attempt_before: Attempt, stored: bytes | None) -> Settlement:
        nonlocal applied
        applied += 1
        return decide_delivery(delivery, attempt_before, stored)

    events: list[Event] = [*decisions, ACCEPTED, *map(say, range(1, 1_001))]
    expected = derive(attempt(*decisions), events, decide_delivery)
    is_order_free(attempt(*decisions), expected, events, counting)
    assert applied < 10 * len(events)


def test_a_late_charge_fills_and_keeps_the_first_answer() -> None:
    expected = derived(ACCEPTED, first := report(None), filled := report(5))
    assert expected.first is first
    assert expected.effects == {first.id: Effect.SETTLED, filled.id: Effect.FILLED}
    assert [(e.kind, e.delivery_id) for e in expected.entries] == [("hold", None), ("post", filled.id)]


def test_a_report_that_overtook_writes_the_hold() -> None:
    expected = derived(overtaking := report(5), ACCEPTED)
    assert [(e.kind, e.delivery_id) for e in expected.entries] == [
        ("hold", overtaking.id),
        ("post", overtaking.id),
    ]
    assert expected.submitted_at_ms == 1_000


@pytest.mark.parametrize(
    ("overtaken", "first"), [(False, ["sent", "heard"]), (None, ["sent", "heard"]), (True, ["heard", "sent"])]
)
def test_the_hold_shows_which_order_comes_first(overtaken: bool | None, first: list[str]) -> None:
    found = list(possible_orders(attempt(), [ACCEPTED], [report(5)], overtaken=overtaken))
    assert _named(found[0]) == first
    assert len(found) == (2 if overtaken is None else 1)


def test_work_that_was_closed_before_stays_closed() -> None:
    expired = attempt(OwnDecision.EXPIRED)
    events = next(possible_orders(expired, [ACCEPTED], [report(5)], overtaken=False))
    expected = derive(expired, events, decide_delivery)
    assert (expected.after.state, expected.after.money) == (TaskState.EXPIRED, Money.POSTED)


def test_a_report_for_a_call_that_was_given_up_is_a_conflict() -> None:
    refused = attempt(OwnDecision.ASKED, OwnDecision.GIVEN_UP)
    late = report(5)
    expected = derive(refused, next(possible_orders(refused, [], [late], overtaken=False)), decide_delivery)
    assert (expected.closing, expected.effects) == ((Money.VOIDED, Decimal(0)), {late.id: Effect.CONFLICT})
    assert [f.verdict for f in expected.findings] == [Verdict.CONFLICT]


def test_a_misfit_is_held_against_its_delivery_only_between_two_that_fit() -> None:
    witnesses, other = SignatureSummary(), SignatureSummary()
    for at_ms, signature_status in ((1, "misfit"), (2, "fits"), (3, "misfit")):
        witnesses.note(f"d{at_ms}", at_ms, SignatureStatus(signature_status))
    assert list(witnesses.suspects()) == []
    assert witnesses.unchecked() == 2
    other.note("d4", 4, SignatureStatus.VALID)
    other.note("d5", 5, SignatureStatus.UNSIGNED)
    witnesses.add(other)
    assert [misfit.delivery_id for misfit in witnesses.suspects()] == ["d3"]
    assert witnesses.unchecked() == 2


@pytest.mark.parametrize(("text", "credits"), [("5", "5"), ("-2.5", "-2.5"), (" 0.000001 ", "0.000001")])
def test_an_adjustment_says_its_credits_twice(text: str, credits: str) -> None:
    amount = parse_adjustment(text)
    assert amount == Decimal(credits)
    assert noted_credits(adjustment_reason(amount, "ticket 1: 7 credits")) == amount
    entry = {
        "id": 1,
        "kind": "adjustment",
        "credits": amount,
        "cycle_ms": None,
        "reason": adjustment_reason(amount, "agreed"),
    }
    assert not list(account_entry(entry))
    assert [d.column for d in account_entry(entry | {"credits": amount + 1})] == ["credits"]


@pytest.mark.parametrize("text", ["0", "", "five", "nan", "inf", "1e13", "0.0000001"])
def test_what_is_no_adjustment_is_refused(text: str) -> None:
    with pytest.raises(CreditsError):
        parse_adjustment(text)


def _named(events: Sequence[Event]) -> list[str]:
    return ["heard" if isinstance(event, ParsedDelivery) else "sent" for event in events]
