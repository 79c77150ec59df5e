"""The statements of a settlement. Each is made once for a store: making one costs several times as much as
running it.
"""

import functools
from typing import Any

import sqlalchemy as sa

from app.domain.task import TaskState
from app.store.database import Database
from app.store.days import RangeOfIds
from app.store.tables import IS_WAITING, Id, deliveries, runs, tasks
from app.store.write.settlement_rows import CHANGE_TYPES, CURRENT_COLUMNS

CLOSED_TYPES = {"id": Id, "effect": sa.Text(), "task_id": Id, "attempt": sa.Integer()}


class SettlementStatements:
    """What is run for every group; `ids`, `changes` and `closed` give the parameters."""

    def __init__(self, db: Database) -> None:
        self.ids = db.shape("v", {"id": Id})
        self.changes = db.shape("v", CHANGE_TYPES)
        self.closed = db.shape("v", CLOSED_TYPES)
        self.range = RangeOfIds(deliveries.c.id, is_sqlite=db.is_sqlite)
        self._moves: dict[tuple[sa.Table, bool], sa.Update] = {}

    @functools.cached_property
    def lock_waiting(self) -> sa.Select[Any]:
        v = self.ids.table
        return (
            sa.select(deliveries.c.id)
            .join(v, deliveries.c.id == v.c.id)
            .where(self.range.condition, IS_WAITING)
            .with_for_update(of=deliveries, skip_locked=True)
        )

    @functools.cached_property
    def current_attempts(self) -> sa.Select[Any]:
        v = self.ids.table
        return sa.select(*CURRENT_COLUMNS).join(v, tasks.c.id == v.c.id)

    @functools.cached_property
    def accounts(self) -> sa.Select[Any]:
        """Of the runs `run_ids`."""
        ids = sa.bindparam("run_ids", expanding=True, type_=Id)
        return sa.select(runs.c.id, runs.c.account).where(runs.c.id.in_(ids))

    def move(self, table: sa.Table, *, learns_id: bool) -> sa.Update:
        """Moves the attempts of `table` (tasks or attempts) whose rows are still as they were read.
        `learns_id`: some get the provider's id with it."""
        made = self._moves.get((table, learns_id))
        if made is None:
            made = self._moves[table, learns_id] = _move(self.changes.table.c, table, learns_id=learns_id)
        return made

    @functools.cached_property
    def close_deliveries(self) -> sa.Update:
        v = self.closed.table
        return (
            sa.update(deliveries)
            .where(deliveries.c.id == v.c.id, self.range.condition, IS_WAITING)
            .values(state="done", effect=v.c.effect, task_id=v.c.task_id, attempt=v.c.attempt, error=None)
        )


def _move(v: Any, table: sa.Table, *, learns_id: bool) -> sa.Update:
    id_column = table.c.id if table is tasks else table.c.task_id
    values = _moved(v, table)
    if learns_id:
        # Not named otherwise: SQLite writes the index entry of a column that is set, changed or not.
        values["provider_task_id"] = v.provider_task_id
    if table is tasks:
        values |= {"next_poll_at_ms": v.poll_ms, "claim": None, "lease_until_ms": None}
    return (
        sa.update(table)
        .where(
            id_column == v.id,
            table.c.attempt == v.attempt,
            table.c.state == v.was_state,
            table.c.money == v.was_money,
            sa.func.coalesce(table.c.reported, "") == v.was_reported,
        )
        .values(**values)
        .returning(id_column, table.c.attempt)
    )


def _moved(v: Any, table: sa.Table) -> dict[str, Any]:
    return {
        "state": v.state,
        "money": v.money,
        "credits_held": v.held,
        "credits_to_charge": v.to_charge,
        "credits_charged": v.charged,
        "reported": v.reported,
        "verdict": v.verdict,
        # What closed the work first stays: a late report, or a late charge, says nothing new about that.
        # But for a refusal, which the report proves wrong.
        "error_code": _first_but_refusal(table.c.state, table.c.error_code, v.error_code),
        "error_message": _first_but_refusal(table.c.state, table.c.error_message, v.error_message),
        "settled_by": sa.func.coalesce(table.c.settled_by, v.settled_by),
        "settled_at_ms": sa.func.coalesce(table.c.settled_at_ms, v.at_ms),
    }


def _first_but_refusal(
    state: sa.ColumnElement[Any], stands: sa.ColumnElement[Any], said: sa.ColumnElement[Any]
) -> sa.ColumnElement[Any]:
    return sa.case((state == TaskState.REJECTED, said), else_=sa.func.coalesce(stands, said))
