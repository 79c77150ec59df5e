"""Protections taken out one at a time, to see that the histories notice: what cannot fail proves nothing."""

import contextlib
from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import Any
from unittest.mock import patch

from msgspec.structs import replace

from app.domain import settlement
from app.domain.accounting import balances, drift
from app.domain.settlement import Attempt, Circumstances, Effect, Report, Settlement
from app.domain.verdicts import Verdict
from app.services import settle as service
from tests.histories import stored
from tests.histories.history import VERBS, History
from tests.histories.stored import StoredBooks

Sabotage = Callable[[], contextlib.AbstractContextManager[object]]
_decide = settlement.decide_settlement


def _deciding(change: Callable[..., Settlement]) -> Sabotage:
    """Another decision on reports."""

    def decide(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
        return change(attempt, report, **rest)

    return lambda: patch.object(service, "decide_settlement", decide)


def _posts_twice(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    return _decide(replace(attempt, reported=None, charged=None), report, **rest)


def _ignores_a_late_charge(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    found = _decide(attempt, report, **rest)
    late = found.effect is Effect.FILLED
    return Settlement(Effect.DUPLICATE, attempt, attempt) if late else found


def _leaves_money_open_for_other_words(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    found = _decide(attempt, report, **rest)
    differs = found.effect is Effect.FILLED and not rest["same_response"]
    return Settlement(Effect.CONFLICT, attempt, attempt, findings=found.findings[-1:]) if differs else found


def _explains_no_price_change(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    return _decide(attempt, report, **rest | {"circumstances": Circumstances()})


def _explains_no_clusters(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    return _decide(attempt, report, **rest | {"extra": Decimal(0)})


def _takes_missing_for_nothing(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    return _decide(attempt, replace(report, charged=report.charged or Decimal(0)), **rest)


def _charges_the_promise(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    found = _decide(attempt, report, **rest)
    if found.close is None or not report.completed or found.after.held is None:
        return found
    return replace(found, after=replace(found.after, charged=found.after.held))


def _keeps_quiet(verdict: Verdict) -> Sabotage:
    def change(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
        found = _decide(attempt, report, **rest)
        return replace(found, findings=[one for one in found.findings if one.verdict is not verdict])

    return _deciding(change)


def _forgets_the_hold(attempt: Attempt, report: Report, **rest: Any) -> Settlement:
    return replace(_decide(attempt, report, **rest), hold=None)


@contextlib.contextmanager
def _ignores_late_reports() -> Iterator[None]:
    receive = StoredBooks.receive

    def changed(self: StoredBooks, bodies: Any, source: Any, now_ms: int) -> None:
        receive(self, bodies[:1], source, now_ms)

    with patch.object(StoredBooks, "receive", changed):
        yield


@contextlib.contextmanager
def _audits(**changes: Any) -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for name, value in changes.items():
            stack.enter_context(patch.object(drift, name, value))
        yield


def _without_steps(wanted: Callable[[Any], bool]) -> Sabotage:
    def find_steps(*args: Any) -> list[Any]:
        return [step for step in balances.find_steps(*args) if wanted(step)]

    return lambda: _audits(find_steps=find_steps)


def _without_lag() -> contextlib.AbstractContextManager[object]:
    return _audits(choose_points=lambda s, steps, lag, slack: balances.choose_points(s, steps, 0, slack))


def _spend_unseen(history: History, pick: int) -> None:
    history.provider.organization.charge(1 + pick % 9)


SABOTAGES: dict[str, Sabotage] = {
    "a second report posts again": _deciding(_posts_twice),
    "a charge that comes later is ignored": _deciding(_ignores_a_late_charge),
    "other words leave the money open": _deciding(_leaves_money_open_for_other_words),
    "a missing charge is 0": _deciding(_takes_missing_for_nothing),
    "the promise is posted instead of the charge": _deciding(_charges_the_promise),
    "a price change is not explained": _deciding(_explains_no_price_change),
    "clusters are not explained": _deciding(_explains_no_clusters),
    "a report that overtook writes no hold": _deciding(_forgets_the_hold),
    "a conflict is not kept": _keeps_quiet(Verdict.CONFLICT),
    "a second charge is not noticed": _keeps_quiet(Verdict.DOUBLE_CHARGED),
    "a new promise in a report is not noticed": _keeps_quiet(Verdict.REPRICED),
    "a batch settles its first report only": _ignores_late_reports,
    "old keys are sent again": lambda: patch.object(stored, "SAFE_MS", 10**12),
    "the lag of balances is ignored": _without_lag,
    "resets are ignored": _without_steps(lambda step: step.cycle is None),
    "changes of plan are ignored": _without_steps(lambda step: not step.granted),
    "the provider leaves out what others spent": lambda: patch.dict(VERBS, spend_elsewhere=_spend_unseen),
}
"""What is broken -> how to break it."""
