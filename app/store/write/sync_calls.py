"""Writes of a sync call: a run of one task, its hold written before the call. From then on some charge is
possible, and it must show also when this process is killed while it waits.
"""

from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.send_outcome import Answer
from app.domain.sync_call import SyncAnswer
from app.domain.task import Money, RunState, TaskSpec, TaskState, new_id
from app.domain.text import storable, storable_message
from app.store.part import StorePart, writes
from app.store.tables import ledger, runs, submissions, tasks
from app.store.write.load import task_row


class SyncCallWrites(StorePart):
    """Part of the store."""

    async def open_call(
        self, spec: TaskSpec, estimate: Decimal, *, name: str, account: str, next_poll_at_ms: int, now_ms: int
    ) -> tuple[str, str]:
        """A running run of one task that counts as submitted, with its hold; (run id, task id). Nobody else
        sends it. `next_poll_at_ms`: when it is given up, should nothing more come of this call."""
        run_id, task_id = new_id(now_ms), new_id(now_ms)
        run = {
            "id": run_id,
            "name": storable(name),
            "source": "ask",
            "state": RunState.RUNNING,
            "bad_lines": 0,
            "account": account,
            "created_at_ms": now_ms,
            "has_rollup": True,
        }
        task = task_row(run_id, task_id, spec, estimate) | {
            "state": TaskState.SUBMITTED,
            "money": Money.HELD,
            "credits_held": estimate,
            "sends": 1,
            "first_sent_at_ms": now_ms,
            "submitted_at_ms": now_ms,
            "next_poll_at_ms": next_poll_at_ms,
        }

        await self._insert_call(run, task, _entry(run_id, task_id, "hold", estimate, now_ms))
        return run_id, task_id

    @writes
    async def _insert_call(
        self, connection: AsyncConnection, run: dict[str, Any], task: dict[str, Any], hold: dict[str, Any]
    ) -> None:
        known = await connection.scalar(sa.select(tasks.c.id).where(tasks.c.id == task["id"]))
        if known is not None:
            return  # an earlier try was committed, its answer lost
        await self.db.insert(connection, runs, [run])
        await self.db.insert(connection, tasks, [task])
        await self.db.insert(connection, ledger, [hold])

    @writes
    async def log_call(
        self, connection: AsyncConnection, task_id: str, answer: Answer, end: SyncAnswer, now_ms: int
    ) -> None:
        """Keep how a call ended, as every send is kept."""
        row = {
            "task_id": task_id,
            "attempt": 1,
            "at_ms": now_ms,
            "answer": answer,
            "http_status": end.http_status,
            "code": storable_message(end.code),
            "message": storable_message(end.message),
            "request_id": storable_message(end.request_id),
        }
        await self.db.insert(connection, submissions, [row])

    @writes
    async def void_call(
        self, connection: AsyncConnection, task_id: str, *, code: str | None, message: str | None, now_ms: int
    ) -> bool:
        """Close a call that bought nothing for certain: rejected, its hold void. False when it was closed."""
        moved = await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == task_id, tasks.c.state == TaskState.SUBMITTED)
            .where(tasks.c.money == Money.HELD)
            .values(
                state=TaskState.REJECTED,
                money=Money.VOIDED,
                credits_charged=Decimal(0),
                error_code=storable_message(code),
                error_message=storable_message(message),
                next_poll_at_ms=None,
            )
            .returning(tasks.c.run_id, tasks.c.credits_held)
        )
        row = moved.first()
        if row is None:
            return False
        entry = _entry(row.run_id, task_id, "void", row.credits_held, now_ms)
        await self.db.insert(connection, ledger, [entry])
        return True


def _entry(run_id: str, task_id: str, kind: str, credits: Decimal, now_ms: int) -> dict[str, object]:
    return {
        "at_ms": now_ms,
        "run_id": run_id,
        "task_id": task_id,
        "attempt": 1,
        "kind": kind,
        "credits": credits,
        "delivery_id": None,
    }
