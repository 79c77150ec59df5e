"""Why rows of each kind stay that are older than the policy asks for; bodies have theirs in `pruning.py`."""

from typing import Any

import sqlalchemy as sa

from app.domain.notices.notice import NoticeKind, NoticeState
from app.domain.retention import Kind, Reason
from app.domain.send_outcome import Answer
from app.domain.task import Money, RunState
from app.domain.time_format import DAY_MS
from app.store.by_index import there_is
from app.store.read.notice_triggers import RUNS_MAX
from app.store.tables import (
    archive_blocks,
    attempts,
    balances,
    deliveries,
    findings,
    ledger,
    notices,
    results,
    runs,
    submissions,
    task_keys,
    tasks,
)
from app.store.write.keeping import disputed_findings, disputed_tasks, open_tasks, retained_tasks

Condition = sa.ColumnElement[bool]
SCHEDULE_CHARS = len("schedule:") + 36 + 1
"""Of a dedupe key: they name the schedule."""


def reasons_of(kind: Kind) -> sa.ColumnElement[Any]:
    """Why a row of the kind stays; null: it may go."""
    conditions = {
        Kind.SUBMISSIONS: _submissions,
        Kind.BALANCES: _balances,
        Kind.NOTICES: _notices,
        Kind.FINDINGS: _findings,
        Kind.KEYS: _keys,
    }[kind]()
    return sa.case(*((condition, sa.literal_column(f"'{reason}'")) for condition, reason in conditions))


def _submissions() -> list[tuple[Condition, Reason]]:
    s = submissions.c
    return [
        (open_tasks(s.task_id), Reason.OPEN),
        (retained_tasks(s.task_id), Reason.RETAINED),
        (disputed_tasks(s.task_id), Reason.DISPUTED),
        (sa.not_(_is_plain_acceptance()), Reason.NEEDED),
    ]


def leading_sends() -> Condition:
    """The row by which an attempt's sends go or stay, all together: its acceptance, if there is one."""
    s, other = submissions.c, submissions.alias("other_send").c
    is_accepted = other.answer == Answer.ACCEPTED
    accepted = there_is(other.task_id == s.task_id, other.attempt == s.attempt, is_accepted)
    return sa.or_(s.answer == Answer.ACCEPTED, ~accepted)


def _is_plain_acceptance() -> Condition:
    """Whether a send says no more than the rows of its attempt do: accepted once, held then, and closed.
    What else happened to an attempt (refused, known before, overtaken by its report) only sends say."""
    s, again, hold = submissions.c, submissions.alias("again").c, ledger.alias("own_hold").c
    closed = []
    for table, key in ((tasks.alias("closed_task"), "id"), (attempts.alias("closed_attempt"), "task_id")):
        c = table.c
        is_own = c[key] == s.task_id, c.attempt == s.attempt, c.submitted_at_ms == s.at_ms
        closed.append(there_is(*is_own, c.money.in_((Money.POSTED, Money.VOIDED))))
    twice = there_is(
        again.task_id == s.task_id,
        again.attempt == s.attempt,
        again.answer == Answer.ACCEPTED,
        again.id != s.id,
    )
    held = there_is(
        hold.task_id == s.task_id,
        hold.attempt == s.attempt,
        hold.kind == sa.literal_column("'hold'"),
        hold.delivery_id.is_(None),
    )
    return sa.and_(s.answer == Answer.ACCEPTED, sa.or_(*closed), held, ~twice)


def _balances() -> list[tuple[Condition, Reason]]:
    """The first and the last of each day, source and plan stay: allocations, ends of cycles and drift are
    explained by them."""
    b, other = balances.c, balances.alias("other_balance").c
    day_ms = b.at_ms - b.at_ms % DAY_MS
    same = (
        other.account == b.account,
        other.source == b.source,
        other.per_cycle.is_not_distinct_from(b.per_cycle),
        other.resets_at_ms.is_not_distinct_from(b.resets_at_ms),
    )
    earlier = there_is(*same, other.at_ms >= day_ms, other.at_ms < b.at_ms)
    later = there_is(*same, other.at_ms > b.at_ms, other.at_ms < day_ms + DAY_MS)
    return [(sa.not_(sa.and_(earlier, later)), Reason.NEEDED)]


def _notices() -> list[tuple[Condition, Reason]]:
    n, run = notices.c, runs.alias("notice_run").c
    retained = there_is(run.id == n.run_id, run.retained_at_ms.is_not(None))
    return [
        (n.state == NoticeState.NEW, Reason.WAITING),
        (retained, Reason.RETAINED),
        (disputed_findings(lambda f: f.run_id == n.run_id), Reason.DISPUTED),
        (sa.or_(_is_watched(), _is_counted_again(), _is_newest_of_its_kind()), Reason.NEEDED),
    ]


def _is_watched() -> Condition:
    """Whether a notice's run is looked at still, and compared with its notices."""
    run, young = runs.alias("watched_run").c, runs.alias("young_run").c
    newest = (
        sa.select(young.created_at_ms)
        .where(young.state != RunState.LOADING)
        .order_by(young.created_at_ms.desc())
        .limit(RUNS_MAX)
        .subquery("newest_runs")
    )
    since_ms = sa.select(sa.func.min(newest.c.created_at_ms)).scalar_subquery()
    is_looked_at = sa.or_(run.finished_at_ms.is_(None), run.created_at_ms >= since_ms)
    return there_is(run.id == notices.c.run_id, is_looked_at)


def _is_counted_again() -> Condition:
    """Whether a notice counts findings, to which one more may come."""
    n, own, stray = notices.c, findings.alias("counted").c, findings.alias("stray").c
    of_run = there_is(own.run_id == n.run_id)
    of_account = sa.and_(n.run_id.is_(None), sa.exists(sa.select(stray.id).where(stray.run_id.is_(None))))
    return sa.and_(n.kind == NoticeKind.DISCREPANCY, sa.or_(of_run, of_account))


def _is_newest_of_its_kind() -> Condition:
    """Whether a notice is the last of an account, or of a schedule: what it says may still be so."""
    n, later = notices.c, notices.alias("later").c
    is_same_schedule = sa.func.substr(later.occasion, 1, SCHEDULE_CHARS) == sa.func.substr(
        n.occasion, 1, SCHEDULE_CHARS
    )
    followed = there_is(
        later.account == n.account,
        later.kind == n.kind,
        later.id > n.id,
        later.run_id.is_(None),
        sa.or_(n.kind != NoticeKind.SCHEDULE_FAILED, is_same_schedule),
    )
    return sa.and_(n.run_id.is_(None), n.kind != NoticeKind.DISCREPANCY, ~followed)


def _findings() -> list[tuple[Condition, Reason]]:
    f = findings.c
    return [
        (open_tasks(f.task_id), Reason.OPEN),
        (retained_tasks(f.task_id), Reason.RETAINED),
        (disputed_tasks(f.task_id), Reason.DISPUTED),
        (_is_derivable(), Reason.NEEDED),
    ]


def _keys() -> list[tuple[Condition, Reason]]:
    """Whoever repeats a key while its task is open must buy nothing."""
    task_id = task_keys.c.task_id
    return [(open_tasks(task_id), Reason.OPEN), (retained_tasks(task_id), Reason.RETAINED)]


def _is_derivable() -> Condition:
    """Whether a finding's evidence stands: then `verify` finds it again, and misses it."""
    f, block = findings.c, archive_blocks.c
    own, of_task = deliveries.alias("own_body").c, deliveries.alias("body").c
    any_result, its_result = results.alias("any_result").c, results.alias("its_result").c
    r = results.alias("archived_result").c
    stands = there_is(any_result.task_id == f.task_id, of_task.id == any_result.delivery_id)
    archived = there_is(
        r.task_id == f.task_id, r.delivery_id >= block.first_id, r.delivery_id <= block.last_id
    )
    has_result = there_is(its_result.task_id == f.task_id, its_result.attempt == f.attempt)
    of_a_task = sa.and_(f.task_id.is_not(None), sa.or_(~has_result, stands, archived))
    return sa.or_(there_is(own.id == f.delivery_id), of_a_task)
