"""Ranges of tasks that senders have claimed, a row each: a task's own row is written when its send has ended.

A task is in a range while it is pending, its attempt was never sent, and its ordinal lies in a range of its
run. Whoever claims holds the rows of the runs, so no two claim one task. What a sender records leaves the
range by its state or its sends; what it gives back unsent is cut out.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.submission import ClaimedTask
from app.store.database import Database
from app.store.tables import IS_PENDING, claims, credits_sum, tasks

_WITHIN = sa.and_(
    claims.c.run_id == tasks.c.run_id, tasks.c.ordinal.between(claims.c.first_ordinal, claims.c.last_ordinal)
)
# The state is asked of what is found by its ordinal: the index of open tasks would lead through all that are
# pending.
_IS_PENDING_FOUND = sa.case((tasks.c.ordinal >= claims.c.first_ordinal, IS_PENDING), else_=sa.false())
_IN_RANGE = sa.and_(_WITHIN, tasks.c.sends == 0, _IS_PENDING_FOUND)
_HOLDS_ONE = sa.exists().where(_IN_RANGE).correlate(claims)
_DROP_EMPTY = sa.delete(claims).where(
    claims.c.claim.in_(sa.bindparam("tokens", expanding=True, type_=claims.c.claim.type)),
    sa.case((_HOLDS_ONE, sa.false()), else_=sa.true()),
)
_Place = tuple[str, str]
"""A claim's token and a run."""


def is_free() -> sa.ColumnElement[bool]:
    """Of a pending task: whether it is in no range. Asked of each one that is looked at, and so written that
    the database does not join all tasks with all ranges."""
    return sa.or_(tasks.c.sends > 0, ~sa.exists().where(_WITHIN).correlate(tasks))


def in_ranges(*columns: sa.ColumnElement[Any]) -> sa.Select[Any]:
    """Columns of all tasks that are in ranges, found by the ranges."""
    return sa.select(*columns).select_from(claims.join(tasks, _IN_RANGE))


def claimed_credits(run_id: sa.ColumnElement[str]) -> sa.ColumnElement[Decimal]:
    """The estimates of what is in ranges of a run, for a select: on its way, and not yet in its spending."""
    sums = in_ranges(credits_sum(tasks.c.credits_estimate)).where(claims.c.run_id == run_id)
    return sums.correlate_except(tasks, claims).scalar_subquery()


async def add_ranges(
    db: Database, connection: AsyncConnection, claimed: Sequence[ClaimedTask], lease_until_ms: int
) -> None:
    """Store the ranges of newly claimed tasks."""
    places: dict[_Place, list[int]] = defaultdict(list)
    for task in claimed:
        places[task.claim, task.run_id].append(task.ordinal)
    first_ms = {task.claim: task.first_sent_at_ms for task in claimed}
    rows = [
        _row(place, span, first_ms[place[0]], lease_until_ms)
        for place, ordinals in places.items()
        for span in spans(ordinals)
    ]
    await db.insert(connection, claims, rows)


async def end_ranges(db: Database, connection: AsyncConnection, unsent: Sequence[ClaimedTask]) -> None:
    """Cut tasks that are given back unsent out of their ranges."""
    places: dict[_Place, set[int]] = defaultdict(set)
    for task in unsent:
        places[task.claim, task.run_id].add(task.ordinal)
    for (claim, run_id), ordinals in places.items():
        of_run = claims.c.claim == claim, claims.c.run_id == run_id
        # Its own ranges are changed by nobody but the sender, and by the sweep when the lease is over.
        for row in (await connection.execute(sa.select(claims).where(*of_run).with_for_update())).all():
            left = set(range(row.first_ordinal, row.last_ordinal + 1))
            if not left & ordinals:
                continue
            await connection.execute(sa.delete(claims).where(claims.c.id == row.id))
            rows = [
                _row((claim, run_id), span, row.claimed_at_ms, row.lease_until_ms)
                for span in spans(left - ordinals)
            ]
            await db.insert(connection, claims, rows)


async def drop_empty_ranges(connection: AsyncConnection, tokens: Iterable[str]) -> None:
    """Forget the ranges of these claims that hold no task any more."""
    await connection.execute(_DROP_EMPTY, {"tokens": sorted(tokens)})


async def release_ranges(connection: AsyncConnection, now_ms: int) -> int:
    """End the ranges whose lease is over: their sender is gone, and what it did not record it may have sent.
    How many tasks."""
    overdue = sa.select(claims).where(claims.c.lease_until_ms <= now_ms).order_by(claims.c.id)
    released = 0
    for row in (await connection.execute(overdue)).all():
        ordinal = tasks.c.ordinal
        # A report may have overtaken the record that its sender never made. The state is asked of what is
        # found by its ordinal, as above.
        unrecorded = sa.or_(IS_PENDING, tasks.c.settled_by.in_(("delivery", "poll")))
        done = await connection.execute(
            sa.update(tasks)
            .where(tasks.c.run_id == row.run_id, ordinal.between(row.first_ordinal, row.last_ordinal))
            .where(tasks.c.sends == 0, sa.case((ordinal >= row.first_ordinal, unrecorded), else_=sa.false()))
            .values(sends=1, first_sent_at_ms=sa.func.coalesce(tasks.c.first_sent_at_ms, row.claimed_at_ms))
        )
        await connection.execute(sa.delete(claims).where(claims.c.id == row.id))
        released += done.rowcount
    return released


def spans(ordinals: Iterable[int]) -> list[tuple[int, int]]:
    """Ordinals as (first, last) of each unbroken sequence, in order."""
    found: list[tuple[int, int]] = []
    for ordinal in sorted(ordinals):
        if found and found[-1][1] + 1 == ordinal:
            found[-1] = found[-1][0], ordinal
        else:
            found.append((ordinal, ordinal))
    return found


def _row(place: _Place, span: tuple[int, int], claimed_at_ms: int, lease_until_ms: int) -> dict[str, object]:
    return {
        "claim": place[0],
        "run_id": place[1],
        "first_ordinal": span[0],
        "last_ordinal": span[1],
        "claimed_at_ms": claimed_at_ms,
        "lease_until_ms": lease_until_ms,
    }
