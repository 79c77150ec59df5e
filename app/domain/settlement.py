"""Settlement: our decision on a report (docs/architecture.md). Pure: the service applies it.

A task is settled at most once. A second equal report changes nothing; a second different one never
overwrites, it becomes a finding of verdict `conflict`. What is still blank, the charge, a later report fills.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from app.domain.credits import ExplanationCode, reconcile, to_json_number
from app.domain.pricing import PRICE_LISTS, PriceList
from app.domain.reconciliation import Priced, find_price_change, repriced_detail
from app.domain.task import OPEN_STATES, Money, TaskState, idempotency_key, parse_idempotency_key
from app.domain.verdicts import QUIET_VERDICTS, Verdict


class Source(StrEnum):
    """How a report reached us."""

    DELIVERY = "delivery"
    POLL = "poll"
    SYNC = "sync"


class Report(msgspec.Struct, frozen=True, gc=False):
    """What the provider says about a finished task (C-I.1), after parsing."""

    provider_task_id: str
    idempotency_key: str | None
    completed: bool
    """True for COMPLETED, False for FAILED; there is no third terminal state (C-H)."""
    to_charge: Decimal | None
    charged: Decimal | None
    """None when it was missing or null: unknown, never 0."""
    response: bytes
    """The raw JSON of `response`, unwrapped; `null` when there was none."""
    error_code: str | None = None
    error_message: str | None = None


@dataclass(frozen=True, slots=True)
class StoredAnswer:
    """What is known of the answer that was taken for an attempt before. One of the two is."""

    sha256: bytes | None
    content: bytes | None
    """None where it was not looked at, or its body is not stored any more: then only the hash can tell."""


class Attempt(msgspec.Struct, frozen=True, gc=False):
    """One attempt of a task as the books know it when the decision is made."""

    task_id: str
    run_id: str
    attempt: int
    current: bool
    """False for an attempt that a retry has since replaced."""
    state: TaskState
    money: Money
    task_type: str
    payload_json: str
    estimate: Decimal
    held: Decimal | None
    to_charge: Decimal | None
    charged: Decimal | None
    provider_task_id: str | None
    verdict: Verdict | None
    reported: TaskState | None
    """COMPLETED or FAILED as in the report that was taken for this attempt; None before there is one."""
    charged_elsewhere: bool = False
    """Another attempt of the same task has a post of more than 0."""


class Effect(StrEnum):
    """What a report did; kept on the report's row."""

    SETTLED = "settled"
    FILLED = "filled"  # the work was settled before, the charge only now
    DUPLICATE = "duplicate"
    CONFLICT = "conflict"
    UNMATCHED = "unmatched"


@dataclass(frozen=True, slots=True)
class Finding:
    """Something the books must be able to explain later, with its evidence."""

    verdict: Verdict
    expected: Decimal | None
    actual: Decimal | None
    detail: str


class Settlement(msgspec.Struct, frozen=True, gc=False):
    """The decision: next state, ledger entries, verdict. `after` is the attempt once it is applied."""

    effect: Effect
    before: Attempt
    after: Attempt
    hold: Decimal | None = None
    """Credits of a hold to write first, when the report overtook the submit response."""
    close: Money | None = None
    """POSTED or VOIDED when the money closes now; None leaves it open."""
    stores_result: bool = False
    reason: ExplanationCode | None = None
    """Why the post is not its hold, where the contract explains it (C-E.5)."""
    findings: list[Finding] = msgspec.field(default_factory=list)


class Circumstances(NamedTuple):
    """What is only looked at when a charge is not the promised one."""

    reported_ms: int | None = None
    """UTC milliseconds at which the report arrived; None: not known, and no price change is looked for."""
    sync: bool = False
    """A call to `/v1/monitor`, which costs its surcharge (C-E.2)."""
    lists: Sequence[PriceList] = PRICE_LISTS
    """The prices of the account, oldest first; its own ones by `PriceList.with_overrides`."""
    has_anothers_id: bool = False
    """The report names an id that the provider gave to another attempt."""
    hash_only: bool = False
    """The answer taken before is not stored any more: `same_response` goes by its hash."""


_UNKNOWN = Circumstances()
_REPORTABLE_STATES = OPEN_STATES | {TaskState.REJECTED}
"""Work that a report closes. What we gave up ourselves (expired, say) stays so, and a late report moves its
money only; a refusal was wrong about the attempt that a report is about."""


def decide_settlement(
    attempt: Attempt,
    report: Report,
    *,
    extra: Decimal,
    same_response: bool,
    circumstances: Circumstances = _UNKNOWN,
) -> Settlement:
    """Decide on one report for one attempt.

    `extra`: credits the contract explains on top of the estimate for this answer (pricing.explained_extra).
    `same_response`: the response equals the one already stored; only read when a report was taken before.
    """
    if (why := _contradiction(attempt, report, circumstances)) is not None:
        return Settlement(Effect.CONFLICT, attempt, attempt, findings=[_conflict(attempt, report, why)])
    if attempt.reported is None and attempt.charged is None:
        return _take_report(attempt, report, extra, circumstances, Effect.SETTLED)
    same_work = attempt.reported is _reported(report)
    if same_work and attempt.charged is None and report.charged is not None:
        # A poll and a delivery may word the answer otherwise (C-G.4); what it cost is reported once.
        filled = _take_report(attempt, report, extra, circumstances, Effect.FILLED)
        if not same_response:
            why = "same status, another response with the charge"
            filled.findings.append(_conflict(attempt, report, why + _by_hash(circumstances)))
        return filled
    if _changes_nothing(attempt, report, same_response=same_response):
        return Settlement(Effect.DUPLICATE, attempt, attempt)
    why = _difference(attempt, report)
    if why == ANOTHER_RESPONSE:
        why += _by_hash(circumstances)
    finding = _conflict(attempt, report, why)
    return Settlement(Effect.CONFLICT, attempt, attempt, findings=[finding])


def _contradiction(attempt: Attempt, report: Report, circumstances: Circumstances) -> str | None:
    """How a report names another task besides this one: by a key of ours that is not this attempt's, or by
    another id than the provider gave it. Such a report settles neither."""
    if circumstances.sync:
        return None  # made by us, of an answer that names no task
    key = report.idempotency_key or ""
    if key != idempotency_key(attempt.task_id, attempt.attempt) and parse_idempotency_key(key):
        return "its key is another task's"
    if circumstances.has_anothers_id or attempt.provider_task_id not in (None, report.provider_task_id):
        return "its id is another task's"
    return None


def _changes_nothing(attempt: Attempt, report: Report, *, same_response: bool) -> bool:
    if report.charged not in (None, attempt.charged):
        return False
    if attempt.reported is None:
        # Closed without a report, as bought nothing: a failure for free says the same.
        return not report.completed
    return same_response and attempt.reported is _reported(report)


def _take_report(
    attempt: Attempt, report: Report, extra: Decimal, circumstances: Circumstances, effect: Effect
) -> Settlement:
    promised = attempt.to_charge if attempt.to_charge is not None else report.to_charge
    to_charge = promised if promised is not None else attempt.estimate
    verdict = reconcile(
        completed=report.completed, to_charge=to_charge, charged=report.charged, extra_explained=extra
    )
    reason = ExplanationCode.AI_MODE_CLUSTERS if verdict is Verdict.EXPLAINED else None
    if verdict in (Verdict.OVERCHARGED, Verdict.UNDERCHARGED) and _is_price_change(
        attempt, report, to_charge, extra, circumstances
    ):
        verdict, reason = Verdict.EXPLAINED, ExplanationCode.PRICE_CHANGE
    hold = to_charge if attempt.money is Money.NONE else None
    close = _closing(report)
    after = replace(
        attempt,
        state=_reported(report) if attempt.state in _REPORTABLE_STATES else attempt.state,
        money=close or Money.HELD,
        held=attempt.held if hold is None else hold,
        to_charge=promised,
        charged=report.charged,
        provider_task_id=attempt.provider_task_id or report.provider_task_id,
        verdict=verdict,
        reported=_reported(report),
    )
    findings = _findings(attempt, report, verdict, to_charge + extra, circumstances)
    return Settlement(
        effect,
        attempt,
        after,
        hold,
        close,
        stores_result=effect is Effect.SETTLED,
        reason=reason,
        findings=findings,
    )


def _is_price_change(
    attempt: Attempt, report: Report, promised: Decimal, extra: Decimal, circumstances: Circumstances
) -> bool:
    made_ms = _made_ms(attempt.task_id)
    if report.charged is None or circumstances.reported_ms is None or made_ms is None:
        return False
    clusters = int(extra)  # one credit each
    priced = Priced(attempt.task_type, _payload(attempt), circumstances.sync, clusters)
    change = find_price_change(
        priced,
        promised=promised,
        charged=report.charged,
        made_ms=made_ms,
        charged_ms=circumstances.reported_ms,
        lists=circumstances.lists,
    )
    return change is not None


def _made_ms(task_id: str) -> int | None:
    """When a task was read in, which its id holds (UUIDv7): no earlier than it was sent."""
    try:
        return int(task_id.replace("-", "")[:12], 16)
    except ValueError:
        return None


def _payload(attempt: Attempt) -> Mapping[str, object]:
    payload = json.loads(attempt.payload_json)
    return payload if isinstance(payload, dict) else {}


def _reported(report: Report) -> TaskState:
    return TaskState.COMPLETED if report.completed else TaskState.FAILED


def _closing(report: Report) -> Money | None:
    if report.charged is None:
        return None
    return Money.POSTED if report.completed or report.charged > 0 else Money.VOIDED


def _findings(
    attempt: Attempt, report: Report, verdict: Verdict, due: Decimal, circumstances: Circumstances
) -> list[Finding]:
    found = []
    if verdict not in QUIET_VERDICTS:
        expected = due if report.completed else Decimal(0)
        found.append(Finding(verdict, expected, report.charged, _reported(report).value))
    if (repriced := _repriced(attempt, report, circumstances)) is not None:
        found.append(repriced)
    if attempt.charged_elsewhere and report.charged:
        detail = "another attempt of this task was charged too"
        found.append(Finding(Verdict.DOUBLE_CHARGED, Decimal(0), report.charged, detail))
    return found


def _repriced(attempt: Attempt, report: Report, circumstances: Circumstances) -> Finding | None:
    """A promise that is not the one of the submit response or, where that was lost, not our estimate."""
    if report.to_charge is None or report.to_charge == attempt.to_charge:
        return None
    if attempt.to_charge is not None:
        detail = f"creditsToCharge was {to_json_number(attempt.to_charge)} in the submit response"
        return Finding(Verdict.REPRICED, attempt.to_charge, report.to_charge, detail)
    if report.to_charge == attempt.estimate:
        return None
    detail = repriced_detail(
        attempt.task_type,
        _payload(attempt),
        estimate=attempt.estimate,
        to_charge=report.to_charge,
        lists=circumstances.lists,
    )
    return Finding(Verdict.REPRICED, attempt.estimate, report.to_charge, detail)


def _conflict(attempt: Attempt, report: Report, detail: str) -> Finding:
    return Finding(Verdict.CONFLICT, attempt.charged, report.charged, detail)


ANOTHER_RESPONSE = "same status and charge, another response"


def _by_hash(circumstances: Circumstances) -> str:
    return "; by its hash only, as the first one is not stored any more" if circumstances.hash_only else ""


def _difference(attempt: Attempt, report: Report) -> str:
    if attempt.reported is None:
        return f"closed without a report, then {_reported(report)}"
    if attempt.reported is not _reported(report):
        return f"first {attempt.reported}, then {_reported(report)}"
    if attempt.charged != report.charged:
        return "same status, another charge"
    return ANOTHER_RESPONSE
