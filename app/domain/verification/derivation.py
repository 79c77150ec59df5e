"""Deriving an attempt again from its evidence: the ends of its sends and the raw reports.

Pure, and independent of the statements that wrote the books: only the rules are shared,
`settlement.decide_settlement` among them. May not do I/O, read a clock, or look at the rows it will be
compared with, except for what cannot be derived (see `DerivationInput`).
"""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum

from msgspec.structs import replace

from app.domain.delivery import ParsedDelivery
from app.domain.send_outcome import Answer, accounts_for
from app.domain.settlement import Attempt, Effect, Settlement, StoredAnswer
from app.domain.task import OPEN_STATES, Money, TaskState
from app.domain.verdicts import Verdict
from app.domain.verification.stored_rows import Row

SettleRule = Callable[[ParsedDelivery, Attempt, StoredAnswer | None], Settlement]
"""(delivery, the attempt so far, the answer already taken for it) -> decision."""

ACCEPTED = frozenset({Answer.ACCEPTED, Answer.EXISTS})
BOUGHT_NOTHING = frozenset({Answer.REJECTED, Answer.RATE_LIMITED, Answer.UNAVAILABLE})
"""Ends of a sync call after which its hold may be void."""
SURELY_REFUSED = frozenset(
    {
        Answer.RATE_LIMITED,
        Answer.QUEUE_FULL,
        Answer.NO_CREDITS,
        Answer.BAD_KEY,
        Answer.KEY_COLLISION,
        Answer.MISDIRECTED,
    }
)
"""Ends of a send after which a cancelled run may take the task with it."""
EXPIRY_CODES = frozenset({"unidentified", "retention_over", "vanished", "lost"})
_SENDING = frozenset({TaskState.PENDING, TaskState.SUBMITTING})


class OwnDecision(StrEnum):
    """What we decided ourselves; no response and no report gives it."""

    ASKED = "asked"  # a sync call: held before it was made
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    GIVEN_UP = "given_up"  # a sync call that bought nothing: its hold is void


Event = OwnDecision | ParsedDelivery | Row
"""A decision of ours, a report, or a row of `submissions`."""


@dataclass(frozen=True, slots=True)
class DerivationInput:
    """What the derivation takes from the rows, because nothing else gives it."""

    task_id: str
    run_id: str
    attempt: int
    current: bool
    task_type: str
    payload_json: str
    estimate: Decimal
    charged_elsewhere: bool
    decisions: frozenset[OwnDecision]
    """Decisions of ours in the row, which no evidence about the attempt forbids."""
    sends: int = 0
    """How often it was claimed for sending: a claim whose end nobody wrote down is in no other row."""


@dataclass(frozen=True, slots=True)
class ExpectedEntry:
    """A ledger entry that should be stored."""

    kind: str
    credits: Decimal | None
    delivery_id: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExpectedFinding:
    """A finding that should be stored; its prose is not part of it."""

    verdict: Verdict
    expected: Decimal | None
    actual: Decimal | None
    delivery_id: str | None


@dataclass(slots=True)
class Expected:
    """All that should be stored for one attempt."""

    after: Attempt
    submitted_at_ms: int | None = None
    """None for a sync call too: it does not report its own beginning."""
    settled_by: str | None = None
    error_code: str | None = None
    error_message: str | None = None
    first: ParsedDelivery | None = None
    """The report that was taken, whose answer is the result."""
    entries: list[ExpectedEntry] = field(default_factory=list)
    findings: list[ExpectedFinding] = field(default_factory=list)
    effects: dict[str, Effect] = field(default_factory=dict)
    """Delivery id -> what it did."""
    sends: int = 0
    accounted: set[int] = field(default_factory=set)
    """Times of ends after which the provider has nothing."""
    open_sends: dict[object, int] = field(default_factory=dict)
    """Id of a refusal's row -> sends before it that nobody had answered for."""
    order_free: bool = True
    """Another order of the reports closes the money alike."""

    @property
    def closing(self) -> tuple[Money, Decimal | None]:
        """How the money closed, and what was charged."""
        return self.after.money, self.after.charged


def derive(inputs: DerivationInput, events: Sequence[Event], decide: SettleRule) -> Expected:
    """Fold all the evidence about one attempt, in the order given."""
    expected = _before_all(inputs)
    for event in events:
        _apply_event(expected, event, decide)
    return expected


def _before_all(inputs: DerivationInput) -> Expected:
    expected = Expected(
        Attempt(
            task_id=inputs.task_id,
            run_id=inputs.run_id,
            attempt=inputs.attempt,
            current=inputs.current,
            state=TaskState.SUBMITTING,
            money=Money.NONE,
            task_type=inputs.task_type,
            payload_json=inputs.payload_json,
            estimate=inputs.estimate,
            held=None,
            to_charge=None,
            charged=None,
            provider_task_id=None,
            verdict=None,
            reported=None,
            charged_elsewhere=inputs.charged_elsewhere,
        )
    )
    expected.sends = inputs.sends
    return expected


def _apply_event(expected: Expected, event: Event, decide: SettleRule) -> None:
    if isinstance(event, ParsedDelivery):
        _apply_report(expected, event, decide)
    elif isinstance(event, OwnDecision):
        _apply_decision(expected, event)
    elif event["answer"] in ACCEPTED:
        _apply_acceptance(expected, event)
    else:
        _apply_refusal(expected, event)


def _apply_refusal(expected: Expected, row: Row) -> None:
    """A send that was not accepted."""
    if accounts_for(row["answer"], row["http_status"], row["code"]):
        expected.accounted.add(row["at_ms"])
    if row["answer"] != Answer.REJECTED:
        return
    # Null where the version that recorded it did not ask, and closed the task whatever went before.
    if row["open_sends"] is not None:
        expected.open_sends[row["id"]] = max(expected.sends - len(expected.accounted), 0)
    if expected.open_sends.get(row["id"]):
        _apply_acceptance(expected, row)
    elif expected.after.state in _SENDING:
        expected.after = replace(expected.after, state=TaskState.REJECTED)
        expected.error_code, expected.error_message = row["code"], row["message"]


def possible_orders(
    inputs: DerivationInput, sent: Sequence[Row], reports: Sequence[ParsedDelivery], *, overtaken: bool | None
) -> Iterator[list[Event]]:
    """Orders in which it may have come about, the most likely first. Reports keep the order given.

    `overtaken`: whether a report came before the submit response was recorded, as the hold shows; None: no
    hold is stored.
    """
    for responses in _responses(sent):
        yield from _orders(inputs, responses, reports, overtaken=overtaken)


def _responses(sent: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """As they were logged. Where a key was accepted more than once, versions before took any one of the
    acceptances that they recorded together, and filled blanks from any one of them."""
    yield sent
    accepted = [row for row in sent if row["answer"] in ACCEPTED]
    if len(accepted) < 2:
        return
    for row in accepted:
        others = [other for other in accepted if other is not row]
        refused = [other for other in sent if other not in accepted]
        yield [*refused, row, *others]
        yield [*refused, row]


def _orders(
    inputs: DerivationInput, sent: Sequence[Row], reports: Sequence[ParsedDelivery], *, overtaken: bool | None
) -> Iterator[list[Event]]:
    before: list[Event] = [decision for decision in (OwnDecision.ASKED,) if decision in inputs.decisions]
    # Work that a report closes is not closed once more by us, so what we closed was closed before it.
    closed = [
        decision
        for decision in (OwnDecision.EXPIRED, OwnDecision.CANCELLED, OwnDecision.GIVEN_UP)
        if decision in inputs.decisions
    ]
    if not overtaken:
        yield [*before, *sent, *closed, *reports]
        if len(sent) > 1:  # a first send was recorded in time, and a later one's answer was not
            yield [*before, *sent[:-1], *closed, *reports, *sent[-1:]]
    if overtaken is not False or OwnDecision.EXPIRED in inputs.decisions:
        for n in sorted({min(len(reports), 1), len(reports)}):
            yield [*before, *closed, *reports[:n], *sent, *reports[n:]]
    if not inputs.current:  # the response of a replaced attempt is logged, and nobody takes it any more
        refused = [row for row in sent if row["answer"] not in ACCEPTED]
        yield [*before, *refused, *closed, *reports]


def is_order_free(
    inputs: DerivationInput, expected: Expected, events: Sequence[Event], decide: SettleRule
) -> bool:
    """Whether the money closes alike whatever came first. When it does not, the reports contradict each
    other, and the fold must have found a conflict. Reports that agree on the money are one report,
    and each is applied a few times at most."""
    reports = [event for event in events if isinstance(event, ParsedDelivery)]
    # What we decided ourselves has its place: a sync call is held before anything is reported.
    decisions = [event for event in events if isinstance(event, OwnDecision)]
    sent: list[Event] = [event for event in events if not isinstance(event, ParsedDelivery | OwnDecision)]
    distinct: dict[object, ParsedDelivery] = {}
    for report in reports:
        distinct.setdefault(_money_key(report), report)
    return all(
        closing == expected.closing
        for before, after_them in (([*decisions, *sent], []), (decisions, sent))
        for closing in _closings(derive(inputs, before, decide), list(distinct.values()), after_them, decide)
    )


def _money_key(delivery: ParsedDelivery) -> object:
    """What closes the money, and what decides whether it may: the charge, and whom the report names."""
    report = delivery.report
    return report.completed, report.charged, report.provider_task_id, report.idempotency_key, delivery.source


def _closings(
    opened: Expected, reports: Sequence[ParsedDelivery], after_them: Sequence[Event], decide: SettleRule
) -> Iterator[tuple[Money, Decimal | None]]:
    """How the money closes with each of the reports first, the others after it."""
    of_id: dict[str | None, list[ParsedDelivery]] = {}
    for report in reports:
        of_id.setdefault(report.report.provider_task_id, []).append(report)
    has_ineffective = False
    for first in reports:
        expected = _with_reports(opened, [first], decide)
        if expected.after == opened.after:
            has_ineffective = True  # it changed nothing, so it is as if the others had come without it
            continue
        if expected.after.charged is None:
            # Only a report that names the same task of the provider's has its charge.
            expected = _with_reports(expected, of_id.get(expected.after.provider_task_id, reports), decide)
        yield _closing_after(expected, after_them, decide)
    if has_ineffective:
        yield _closing_after(_with_reports(opened, reports, decide), after_them, decide)


def _with_reports(opened: Expected, reports: Sequence[ParsedDelivery], decide: SettleRule) -> Expected:
    """A copy with the reports applied, up to the one that closes the money: nothing opens it again."""
    expected = dataclasses.replace(
        opened, entries=[], findings=[], effects={}, accounted={*opened.accounted}, open_sends={}
    )
    for report in reports:
        if expected.after.charged is not None:
            break
        _apply_report(expected, report, decide)
    return expected


def _closing_after(
    expected: Expected, events: Sequence[Event], decide: SettleRule
) -> tuple[Money, Decimal | None]:
    for event in events:
        _apply_event(expected, event, decide)
    return expected.closing


def _apply_report(expected: Expected, delivery: ParsedDelivery, decide: SettleRule) -> None:
    taken = None if expected.first is None else StoredAnswer(None, expected.first.report.response)
    settlement = decide(delivery, expected.after, taken)
    after, report = settlement.after, delivery.report
    expected.effects[delivery.id] = settlement.effect
    if settlement.hold is not None:
        expected.entries.append(ExpectedEntry("hold", settlement.hold, delivery.id))
    if settlement.close is Money.POSTED:
        expected.entries.append(ExpectedEntry("post", after.charged, delivery.id, settlement.reason))
    elif settlement.close is Money.VOIDED:
        expected.entries.append(ExpectedEntry("void", after.held, delivery.id))
    expected.findings += [
        ExpectedFinding(f.verdict, f.expected, f.actual, delivery.id) for f in settlement.findings
    ]
    if after != settlement.before:
        if settlement.before.state is TaskState.REJECTED:
            expected.error_code = expected.error_message = None  # the refusal was wrong
        # What closed the work first stays.
        expected.error_code = report.error_code if expected.error_code is None else expected.error_code
        expected.error_message = (
            report.error_message if expected.error_message is None else expected.error_message
        )
        expected.settled_by = expected.settled_by or delivery.source
    if settlement.stores_result:
        expected.first = delivery
    expected.after = after


def _apply_acceptance(expected: Expected, row: Row) -> None:
    to_charge, estimate = row["credits_to_charge"], expected.after.estimate
    after = expected.after
    if after.state in _SENDING and after.money is Money.NONE:
        held = estimate if to_charge is None else to_charge
        expected.after = replace(
            after,
            state=TaskState.SUBMITTED,
            money=Money.HELD,
            held=held,
            to_charge=to_charge,
            provider_task_id=row["provider_task_id"],
        )
        expected.entries.append(ExpectedEntry("hold", held, None))
        expected.submitted_at_ms = row["at_ms"]
    else:  # it came late, and fills blanks
        expected.after = replace(
            after,
            to_charge=to_charge if after.to_charge is None else after.to_charge,
            provider_task_id=after.provider_task_id or row["provider_task_id"],
        )
        expected.submitted_at_ms = (
            row["at_ms"] if expected.submitted_at_ms is None else expected.submitted_at_ms
        )
    noted = any(f.verdict is Verdict.REPRICED for f in expected.findings)  # by an overtaking report, say
    if to_charge is not None and to_charge != estimate and not noted:
        expected.findings.append(ExpectedFinding(Verdict.REPRICED, estimate, to_charge, None))


def _apply_decision(expected: Expected, decision: OwnDecision) -> None:
    after = expected.after
    if decision is OwnDecision.ASKED:
        expected.after = replace(after, state=TaskState.SUBMITTED, money=Money.HELD, held=after.estimate)
        expected.entries.append(ExpectedEntry("hold", after.estimate, None))
    elif (
        decision is OwnDecision.GIVEN_UP and after.state is TaskState.SUBMITTED and after.money is Money.HELD
    ):
        expected.after = replace(after, state=TaskState.REJECTED, money=Money.VOIDED, charged=Decimal(0))
        expected.entries.append(ExpectedEntry("void", after.held, None))
    elif decision is OwnDecision.EXPIRED and after.state in OPEN_STATES:
        expected.after = replace(after, state=TaskState.EXPIRED)
    elif decision is OwnDecision.CANCELLED and after.state in OPEN_STATES:
        expected.after = replace(after, state=TaskState.CANCELLED)
