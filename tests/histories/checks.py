"""What must be true of the books after a history, compared with the emulator's own books."""

from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal

from app.domain.accounting.drift import LAG_MS, Drift, Movement, audit
from app.domain.credits import ExplanationCode
from app.domain.task import Money, parse_idempotency_key
from app.domain.verdicts import Verdict
from app.emulator.billing.books import books as emulator_books
from app.emulator.engine.tasks import Task
from tests.double_entry import Account, Entry, Kind, balances, remaining
from tests.histories.books import AttemptRow, Rows
from tests.histories.history import History

DOUBLE = Verdict.DOUBLE_CHARGED
OPEN_COST_MAX = 6
"""What the clusters of AI Mode can add to an estimate (C-E.5)."""


def drift_of(history: History, rows: Rows, *, lag_ms: int = LAG_MS) -> Drift:
    """The audit of a history so far."""
    sent = {row.key: row.first_sent_ms for row in rows.attempts}
    posts = [
        Movement(entry.credits, sent[entry.key] or 0, entry.at_ms)
        for entry in rows.ledger
        if entry.kind == "post"
    ]
    unclear = [row for row in rows.attempts if row.charged is None and row.first_sent_ms is not None]
    exposed = [
        Movement(row.estimate + OPEN_COST_MAX, row.first_sent_ms or 0, history.now_ms) for row in unclear
    ]
    return audit(history.snapshots, posts, open_attempts=exposed, lag_ms=lag_ms)


def check(history: History) -> None:
    """Everything at the end of a history. Raises AssertionError with the difference."""
    rows = history.books.rows()
    _ledger_is_the_bill(history, rows)
    _accounts_are_the_balance(history, rows)
    _drift_is_explained(history, rows)
    for row in rows.attempts:
        task = history.provider.tasks.get(row.key)
        if task is not None:
            assert row.verdict in set(_verdicts(row, task)), f"{row}: {task.faults}, {task.charged}"
    _findings_are_those_due(history, rows)


def _ledger_is_the_bill(history: History, rows: Rows) -> None:
    """Entry by entry: each accepted attempt has a hold and a closing of what it really cost."""
    bill = history.provider.bill()
    holds = [entry.key for entry in rows.ledger if entry.kind == "hold"]
    closings = [entry for entry in rows.ledger if entry.kind != "hold"]
    assert sorted(holds) == sorted(bill)
    assert sorted(entry.key for entry in closings) == sorted(bill)
    posted = {e.key: e.credits if e.kind == "post" else Decimal(0) for e in closings}
    assert posted == bill
    assert not [row for row in rows.attempts if row.money is Money.HELD]
    charged = {row.key: row.charged for row in rows.attempts if row.charged is not None}
    assert charged == bill


def _accounts_are_the_balance(history: History, rows: Rows) -> None:
    """The ledger in double entry, with the cycles of the emulator's own statement, leaves its balance."""
    statement = emulator_books(history.provider.organization, history.now_ms / 1000, with_tasks=False)
    entries = [Entry(Kind.EXTERNAL_USAGE, Decimal(history.provider.external))]
    for cycle in statement["cycles"]:
        entries.append(Entry(Kind.ALLOCATION, Decimal(cycle["allocation"])))
        entries.append(Entry(Kind.EXPIRY, Decimal(cycle["expiry"])))
    for overage in [cycle["overage"] for cycle in statement["cycles"][:-1]]:
        entries.append(Entry(Kind.ADJUSTMENT, Decimal(overage)))
    entries += [Entry(Kind(e.kind), e.credits, parse_idempotency_key(e.key)) for e in rows.ledger]
    found = balances(entries)
    assert sum(found.values()) == 0
    assert found[Account.HELD] == 0
    assert found[Account.SPENT] + found[Account.EXTERNAL] == statement["charged"]
    assert remaining(found) == statement["remaining"]


def _drift_is_explained(history: History, rows: Rows) -> None:
    drift = drift_of(history, rows)
    assert drift.explained, drift
    external = history.provider.external
    assert drift.external_lowest <= external, (external, drift)
    # A balance of 0 hides what others took below it; a key too old to be sent again may have been accepted.
    hidden = history.provider.organization.account.closed or any(one.overdrawn for one in drift.intervals)
    hidden = hidden or history.snapshots[-1].remaining == 0
    if not hidden and drift.exposure == 0:
        assert drift.external_lowest == drift.external_highest == external, (external, drift)


def _verdicts(row: AttemptRow, task: Task) -> Iterator[Verdict]:
    """What may be found of an attempt, by what the emulator says it did: one verdict, but where two causes
    leave the same figures."""
    charged = task.charged or 0
    if task.status == "FAILED":
        yield Verdict.CHARGED_FAILURE if charged else Verdict.FREE_FAILURE
        return
    wrong = {"overcharge": Verdict.OVERCHARGED, "undercharge": Verdict.UNDERCHARGED}
    faults = [wrong[name] for name in task.faults if name in wrong]
    if row.held == row.estimate != task.estimate:
        # The promise was not known when the report came, and it was not our estimate: what is compared with
        # that may look right, or wrong.
        yield from (Verdict.MATCHED, Verdict.EXPLAINED, Verdict.OVERCHARGED, Verdict.UNDERCHARGED)
    if faults:
        yield faults[0]
        if task.task_type == "PERPLEXITY" and charged == task.estimate + 1 == row.estimate + 1:
            yield Verdict.EXPLAINED  # one too many is also the new price
    elif charged == task.estimate:
        yield Verdict.MATCHED
    else:
        yield Verdict.EXPLAINED


def _findings_are_those_due(history: History, rows: Rows) -> None:
    found: dict[Verdict, set[str]] = defaultdict(set)
    for one in rows.findings:
        found[one.verdict].add(str(one.key))
    assert found[Verdict.CONFLICT] == _contradicted(history)
    again = Counter(str(one.key).rpartition(".")[0] for one in rows.findings if one.verdict == DOUBLE)
    assert again == _charged_again(rows)
    unmatched = [one for one in rows.findings if one.verdict is Verdict.UNMATCHED]
    assert len(unmatched) == history.strangers
    repriced = {
        row.key for row in rows.attempts if row.to_charge is not None and row.to_charge != row.estimate
    }
    assert found[Verdict.REPRICED] == repriced
    details = [one.detail for one in rows.findings if one.verdict is Verdict.REPRICED]
    assert all("the price since 2026-08-25" in detail for detail in details), details
    changed = {e.key for e in rows.ledger if e.reason is ExplanationCode.PRICE_CHANGE}
    assert all(row.task_type == "PERPLEXITY" for row in rows.attempts if row.key in changed)


def _contradicted(history: History) -> set[str]:
    """Keys about which two reports said different things; no charge is not a different one."""
    found = set()
    for key, said in history.reported.items():
        charges = {one.charged for one in said} - {None}
        if len({(one.status, one.answer) for one in said}) > 1 or len(charges) > 1:
            found.add(key)
    return found


def _charged_again(rows: Rows) -> dict[str, int]:
    """Task id -> how many of its attempts were charged beside the first."""
    charged = Counter(row.task_id for row in rows.attempts if row.charged)
    return {task_id: n - 1 for task_id, n in charged.items() if n > 1}
