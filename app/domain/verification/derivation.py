"""Deriving an attempt again from what was said about it: the ends of its sends and the raw reports.

Pure, and independent of the statements that wrote the books: only the rules are shared,
`settlement.decide_settlement` among them. May not do I/O, read a clock, or look at the rows it will be
compared with, except for what cannot be derived (see `DerivationInput`).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from enum import StrEnum

from app.domain.delivery import ParsedDelivery
from app.domain.send_outcome import Answer, accounts_for
from app.domain.settlement import Attempt, Effect, Settlement
from app.domain.task import OPEN_STATES, Money, TaskState
from app.domain.verdicts import Verdict
from app.domain.verification.stored_rows import Row

SettleRule = Callable[[ParsedDelivery, Attempt, bytes | None], Settlement]
"""(delivery, the attempt as it stands, the response already taken for it) -> decision."""

ACCEPTED = frozenset({Answer.ACCEPTED, Answer.EXISTS})
BOUGHT_NOTHING = frozenset({Answer.REJECTED, Answer.RATE_LIMITED, Answer.UNAVAILABLE})
"""Ends of a sync call after which its hold may be void."""
SURELY_REFUSED = frozenset(
    {
        Answer.RATE_LIMITED,
        Answer.QUEUE_FULL,
        Answer.NO_CREDITS,
        Answer.BAD_KEY,
        Answer.FOREIGN,
        Answer.MISDIRECTED,
    }
)
"""Ends of a send after which a cancelled run may take the task with it."""
EXPIRY_CODES = frozenset({"unidentified", "retention_over", "vanished", "lost"})
_SENDING = frozenset({TaskState.PENDING, TaskState.SUBMITTING})


class OwnDecision(StrEnum):
    """What we decided ourselves; no response and no report says it."""

    ASKED = "asked"  # a sync call: held before it was made
    EXPIRED = "expired"
    CANCELLED = "cancelled"
    GIVEN_UP = "given_up"  # a sync call that bought nothing: its hold is void


Event = OwnDecision | ParsedDelivery | Row
"""A mark, a report, or a row of `submissions`."""


@dataclass(frozen=True, slots=True)
class DerivationInput:
    """What the derivation takes as it stands, because nothing else says it."""

    task_id: str
    run_id: str
    attempt: int
    current: bool
    task_type: str
    payload_json: str
    estimate: Decimal
    charged_elsewhere: bool
    marks: frozenset[OwnDecision]
    """Decisions of ours that stand in the row, and that nothing said about the attempt forbids."""
    sends: int = 0
    """How often it was claimed for sending: a claim whose end nobody wrote down is in no other row."""


@dataclass(frozen=True, slots=True)
class ExpectedEntry:
    """A ledger entry that should stand."""

    kind: str
    credits: Decimal | None
    delivery_id: str | None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class ExpectedFinding:
    """A finding that should stand; its prose is not part of it."""

    verdict: Verdict
    expected: Decimal | None
    actual: Decimal | None
    delivery_id: str | None


@dataclass(slots=True)
class Expected:
    """All that should stand for one attempt."""

    after: Attempt
    submitted_at_ms: int | None = None
    """None for a sync call too: it says nothing of its own beginning."""
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
    """Moments of ends that tell that the provider has nothing."""
    open_sends: dict[object, int] = field(default_factory=dict)
    """Id of a refusal's row -> sends before it that nobody had answered for."""
    order_free: bool = True
    """Another order of what was said closes the money alike."""

    @property
    def closing(self) -> tuple[Money, Decimal | None]:
        """How the money closed, and what was charged."""
        return self.after.money, self.after.charged


def derive(given: DerivationInput, events: Sequence[Event], decide: SettleRule) -> Expected:
    """Fold everything that was said about one attempt, in the order given."""
    due = _before_all(given)
    for event in events:
        _apply_event(due, event, decide)
    return due


def _before_all(given: DerivationInput) -> Expected:
    due = Expected(
        Attempt(
            task_id=given.task_id,
            run_id=given.run_id,
            attempt=given.attempt,
            current=given.current,
            state=TaskState.SUBMITTING,
            money=Money.NONE,
            task_type=given.task_type,
            payload_json=given.payload_json,
            estimate=given.estimate,
            held=None,
            to_charge=None,
            charged=None,
            provider_task_id=None,
            verdict=None,
            reported=None,
            charged_elsewhere=given.charged_elsewhere,
        )
    )
    due.sends = given.sends
    return due


def _apply_event(due: Expected, event: Event, decide: SettleRule) -> None:
    if isinstance(event, ParsedDelivery):
        _apply_report(due, event, decide)
    elif isinstance(event, OwnDecision):
        _apply_decision(due, event)
    elif event["answer"] in ACCEPTED:
        _apply_acceptance(due, event)
    else:
        _apply_refusal(due, event)


def _apply_refusal(due: Expected, row: Row) -> None:
    """A send that was not accepted."""
    if accounts_for(row["answer"], row["http_status"], row["code"]):
        due.accounted.add(row["at_ms"])
    if row["answer"] != Answer.REJECTED:
        return
    # Null where the version that recorded it did not ask, and closed the task whatever went before.
    if row["open_sends"] is not None:
        due.open_sends[row["id"]] = max(due.sends - len(due.accounted), 0)
    if due.open_sends.get(row["id"]):
        _apply_acceptance(due, row)
    elif due.after.state in _SENDING:
        due.after = replace(due.after, state=TaskState.REJECTED)
        due.error_code, due.error_message = row["code"], row["message"]


def possible_orders(
    given: DerivationInput, sent: Sequence[Row], heard: Sequence[ParsedDelivery], *, overtaken: bool | None
) -> Iterator[list[Event]]:
    """Orders in which it may have come about, the most likely first. Reports keep the order given.

    `overtaken`: whether a report came before the submit response was recorded, as the hold tells; None: no
    hold stands to tell it.
    """
    for responses in _responses(sent):
        yield from _orders(given, responses, heard, overtaken=overtaken)


def _responses(sent: Sequence[Row]) -> Iterator[Sequence[Row]]:
    """As they were logged. Where a key was accepted more than once, versions before took any one of the
    acceptances that they recorded together, and filled blanks from any one of them."""
    yield sent
    accepted = [row for row in sent if row["answer"] in ACCEPTED]
    if len(accepted) < 2:
        return
    for row in accepted:
        others = [it for it in accepted if it is not row]
        rest = [it for it in sent if it not in accepted]
        yield [*rest, row, *others]
        yield [*rest, row]


def _orders(
    given: DerivationInput, sent: Sequence[Row], heard: Sequence[ParsedDelivery], *, overtaken: bool | None
) -> Iterator[list[Event]]:
    before: list[Event] = [mark for mark in (OwnDecision.ASKED,) if mark in given.marks]
    # Work that a report closes is not closed once more by us, so what we closed was closed before it.
    closed = [
        mark
        for mark in (OwnDecision.EXPIRED, OwnDecision.CANCELLED, OwnDecision.GIVEN_UP)
        if mark in given.marks
    ]
    if not overtaken:
        yield [*before, *sent, *closed, *heard]
        if len(sent) > 1:  # a first send was recorded in time, and a later one's answer was not
            yield [*before, *sent[:-1], *closed, *heard, *sent[-1:]]
    if overtaken is not False or OwnDecision.EXPIRED in given.marks:
        for n in sorted({min(len(heard), 1), len(heard)}):
            yield [*before, *closed, *heard[:n], *sent, *heard[n:]]
    if not given.current:  # the response of a replaced attempt is logged, and nobody takes it any more
        refused = [row for row in sent if row["answer"] not in ACCEPTED]
        yield [*before, *refused, *closed, *heard]


def is_order_free(given: DerivationInput, due: Expected, events: Sequence[Event], decide: SettleRule) -> bool:
    """Whether the money closes alike whatever came first. When it does not, the reports contradict each
    other, and the fold must have found a conflict. Reports that say the same of the money are one report,
    and each is heard a few times at most."""
    reports = [event for event in events if isinstance(event, ParsedDelivery)]
    # What we decided ourselves has its place: a sync call is held before anything is heard of it.
    marks = [event for event in events if isinstance(event, OwnDecision)]
    sent: list[Event] = [event for event in events if not isinstance(event, ParsedDelivery | OwnDecision)]
    alike: dict[object, ParsedDelivery] = {}
    for report in reports:
        alike.setdefault(_money_key(report), report)
    return all(
        closing == due.closing
        for before, behind in (([*marks, *sent], []), (marks, sent))
        for closing in _closings(derive(given, before, decide), list(alike.values()), behind, decide)
    )


def _money_key(delivery: ParsedDelivery) -> object:
    """What closes the money, and what decides whether it may: the charge, and whom the report names."""
    said = delivery.report
    return said.completed, said.charged, said.provider_task_id, said.idempotency_key, delivery.source


def _closings(
    opened: Expected, reports: Sequence[ParsedDelivery], behind: Sequence[Event], decide: SettleRule
) -> Iterator[tuple[Money, Decimal | None]]:
    """How the money closes with each of the reports heard first, the others behind it."""
    of_id: dict[str | None, list[ParsedDelivery]] = {}
    for report in reports:
        of_id.setdefault(report.report.provider_task_id, []).append(report)
    is_one_silent = False
    for first in reports:
        due = _with_reports(opened, [first], decide)
        if due.after == opened.after:
            is_one_silent = True  # it changed nothing, so it is as if the others had come without it
            continue
        if due.after.charged is None:
            # Only what names the same task of the provider's can tell its charge.
            due = _with_reports(due, of_id.get(due.after.provider_task_id, reports), decide)
        yield _closing_after(due, behind, decide)
    if is_one_silent:
        yield _closing_after(_with_reports(opened, reports, decide), behind, decide)


def _with_reports(opened: Expected, reports: Sequence[ParsedDelivery], decide: SettleRule) -> Expected:
    """A copy that has heard the reports, up to the one that closes the money: nothing opens it again."""
    due = replace(opened, entries=[], findings=[], effects={}, accounted={*opened.accounted}, open_sends={})
    for report in reports:
        if due.after.charged is not None:
            break
        _apply_report(due, report, decide)
    return due


def _closing_after(
    due: Expected, events: Sequence[Event], decide: SettleRule
) -> tuple[Money, Decimal | None]:
    for event in events:
        _apply_event(due, event, decide)
    return due.closing


def _apply_report(due: Expected, delivery: ParsedDelivery, decide: SettleRule) -> None:
    response = None if due.first is None else due.first.report.response
    settlement = decide(delivery, due.after, response)
    after, report = settlement.after, delivery.report
    due.effects[delivery.id] = settlement.effect
    if settlement.hold is not None:
        due.entries.append(ExpectedEntry("hold", settlement.hold, delivery.id))
    if settlement.close is Money.POSTED:
        due.entries.append(ExpectedEntry("post", after.charged, delivery.id, settlement.reason))
    elif settlement.close is Money.VOIDED:
        due.entries.append(ExpectedEntry("void", after.held, delivery.id))
    due.findings += [
        ExpectedFinding(f.verdict, f.expected, f.actual, delivery.id) for f in settlement.findings
    ]
    if after != settlement.before:
        if settlement.before.state is TaskState.REJECTED:
            due.error_code = due.error_message = None  # the refusal was wrong
        # What closed the work first stays.
        due.error_code = report.error_code if due.error_code is None else due.error_code
        due.error_message = report.error_message if due.error_message is None else due.error_message
        due.settled_by = due.settled_by or delivery.source
    if settlement.stores_result:
        due.first = delivery
    due.after = after


def _apply_acceptance(due: Expected, row: Row) -> None:
    to_charge, estimate = row["credits_to_charge"], due.after.estimate
    after = due.after
    if after.state in _SENDING and after.money is Money.NONE:
        held = estimate if to_charge is None else to_charge
        due.after = replace(
            after,
            state=TaskState.SUBMITTED,
            money=Money.HELD,
            held=held,
            to_charge=to_charge,
            provider_task_id=row["provider_task_id"],
        )
        due.entries.append(ExpectedEntry("hold", held, None))
        due.submitted_at_ms = row["at_ms"]
    else:  # it came late, and fills blanks
        due.after = replace(
            after,
            to_charge=to_charge if after.to_charge is None else after.to_charge,
            provider_task_id=after.provider_task_id or row["provider_task_id"],
        )
        due.submitted_at_ms = row["at_ms"] if due.submitted_at_ms is None else due.submitted_at_ms
    noted = any(f.verdict is Verdict.REPRICED for f in due.findings)  # by an overtaking report, say
    if to_charge is not None and to_charge != estimate and not noted:
        due.findings.append(ExpectedFinding(Verdict.REPRICED, estimate, to_charge, None))


def _apply_decision(due: Expected, mark: OwnDecision) -> None:
    after = due.after
    if mark is OwnDecision.ASKED:
        due.after = replace(after, state=TaskState.SUBMITTED, money=Money.HELD, held=after.estimate)
        due.entries.append(ExpectedEntry("hold", after.estimate, None))
    elif mark is OwnDecision.GIVEN_UP and after.state is TaskState.SUBMITTED and after.money is Money.HELD:
        due.after = replace(after, state=TaskState.REJECTED, money=Money.VOIDED, charged=Decimal(0))
        due.entries.append(ExpectedEntry("void", after.held, None))
    elif mark is OwnDecision.EXPIRED and after.state in OPEN_STATES:
        due.after = replace(after, state=TaskState.EXPIRED)
    elif mark is OwnDecision.CANCELLED and after.state in OPEN_STATES:
        due.after = replace(after, state=TaskState.CANCELLED)
