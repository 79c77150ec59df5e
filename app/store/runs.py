"""Writes about runs: creating one, filling it with tasks, changing what it may do."""

import json
from collections.abc import Sequence
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import RETRYABLE_STATES, Money, RunState, TaskSpec, TaskState, idempotency_key, new_id
from app.store.engine import Database
from app.store.inbox import clean
from app.store.submission import perhaps_accepted
from app.store.tables import Id, attempts, leases, runs, tasks

_ARCHIVED = [c.name for c in attempts.c if c.name not in ("task_id", "attempt")]


class RunWrites:
    """Part of Store."""

    db: Database

    async def create_run(
        self,
        *,
        name: str,
        source: str,
        budget: Decimal | None,
        now_ms: int,
        account: str = "default",
        batch_size: int | None = None,
        reuse_within_ms: int | None = None,
        schedule_id: str | None = None,
        slot_ms: int | None = None,
    ) -> str:
        """A new run in state loading; its id."""
        run_id = new_id(now_ms)
        row = {
            "id": run_id, "name": clean(name), "source": clean(source), "state": RunState.LOADING,
            "budget": budget, "bad_lines": 0, "created_at_ms": now_ms, "account": account,
            "batch_size": batch_size, "reuse_within_ms": reuse_within_ms,
            "schedule_id": schedule_id, "slot_ms": slot_ms,
        }  # fmt: skip

        async def work(connection: AsyncConnection) -> None:
            await self.db.insert(connection, runs, [row], known="id")

        await self.db.write(work)
        return run_id

    async def add_tasks(
        self, run_id: str, specs: Sequence[tuple[TaskSpec, Decimal]], now_ms: int
    ) -> list[str]:
        """Store tasks with their idempotency keys, each with our own estimate; nothing was sent before.
        Their ids, in order."""
        rows: list[dict[str, object]] = []
        ids = [new_id(now_ms) for _ in specs]
        for task_id, (spec, estimated) in zip(ids, specs, strict=True):
            rows.append(
                {
                    "id": task_id,
                    "run_id": run_id,
                    "ordinal": spec.ordinal,
                    "task_type": spec.task_type,
                    "payload": json.dumps(spec.payload, ensure_ascii=False, separators=(",", ":")),
                    "priority": spec.priority,
                    "state": TaskState.PENDING,
                    "attempt": 1,
                    "idempotency_key": idempotency_key(task_id, 1),
                    "money": Money.NONE,
                    "credits_estimate": estimated,
                    "sends": 0,
                    "not_before_ms": 0,
                    "polls": 0,
                    "fingerprint": spec.fingerprint(),
                }
            )

        async def work(connection: AsyncConnection) -> None:
            await self.db.insert(connection, tasks, rows, known="id")

        await self.db.write(work)
        return ids

    async def start_run_if_loading(self, run_id: str, *, sha256: str, bad_lines: int) -> bool:
        """Let a run whose source is read to its end begin to send."""
        return await self._change_run(
            run_id, (RunState.LOADING,), state=RunState.RUNNING, source_sha256=sha256, bad_lines=bad_lines
        )

    async def halt_run_if_running(self, run_id: str, state: RunState, reason: str) -> bool:
        """Pause or stop a run that is running; False when somebody was faster."""
        return await self._change_run(run_id, (RunState.RUNNING,), state=state, reason=clean(reason))

    async def resume_run_if_halted(self, run_id: str) -> bool:
        """Let a paused or stopped run go on."""
        halted = (RunState.PAUSED, RunState.STOPPED)
        return await self._change_run(run_id, halted, state=RunState.RUNNING, reason=None)

    async def cancel_run(self, run_id: str, reason: str) -> int:
        """Cancel what was never sent; what is with the provider goes on and is settled. Tasks cancelled."""
        open_states = (RunState.LOADING, RunState.RUNNING, RunState.PAUSED, RunState.STOPPED)

        async def work(connection: AsyncConnection) -> int:
            await connection.execute(
                sa.update(runs)
                .where(runs.c.id == run_id, runs.c.state.in_(open_states))
                .values(state=RunState.CANCELLED, reason=reason)
            )
            # A task that was sent before, its response lost, may exist at the provider: it stays pending
            # under its key until its report or its age tells.
            done = await connection.execute(
                sa.update(tasks)
                .where(tasks.c.run_id == run_id, tasks.c.state == TaskState.PENDING, ~perhaps_accepted())
                .values(state=TaskState.CANCELLED)
            )
            return done.rowcount

        return await self.db.write(work)

    async def retry_tasks_if_closed(self, task_ids: Sequence[str], now_ms: int) -> int:
        """Give failed, expired or rejected tasks their next attempt, under a new key. The old attempt is
        kept beside, because its money may still move. How many were given one."""

        async def work(connection: AsyncConnection) -> int:
            v = self.db.batch("v", {"id": Id}, [{"id": i} for i in sorted(set(task_ids))])
            columns = [tasks.c.id, tasks.c.attempt, *(tasks.c[name] for name in _ARCHIVED)]
            chosen = await connection.execute(
                sa.select(*columns)
                .join(v, tasks.c.id == v.c.id)
                .where(tasks.c.state.in_(RETRYABLE_STATES))
                .order_by(tasks.c.id)
                .with_for_update(of=tasks)
            )
            rows = chosen.all()
            if not rows:
                return 0
            archived = [{"task_id": row.id, **row._mapping} for row in rows]
            for row in archived:
                del row["id"]
            await self.db.insert(connection, attempts, archived)
            await self._next_attempt(connection, [(row.id, row.attempt) for row in rows], now_ms)
            return len(rows)

        return await self.db.write(work)

    async def _next_attempt(
        self, connection: AsyncConnection, old: Sequence[tuple[str, int]], now_ms: int
    ) -> None:
        types = {"id": Id, "attempt": sa.Integer(), "key": sa.Text()}
        data = [{"id": i, "attempt": n + 1, "key": idempotency_key(i, n + 1)} for i, n in old]
        v = self.db.batch("v", types, data)
        blank = dict.fromkeys(
            (
                "credits_to_charge", "credits_held", "credits_charged", "reported", "verdict",
                "provider_task_id", "error_code", "error_message", "first_sent_at_ms", "submitted_at_ms",
                "settled_at_ms", "settled_by", "claim", "lease_until_ms", "next_poll_at_ms",
            )
        )  # fmt: skip
        await connection.execute(
            sa.update(tasks)
            .where(tasks.c.id == v.c.id, tasks.c.attempt == v.c.attempt - 1)
            .values(
                state=TaskState.PENDING, attempt=v.c.attempt, idempotency_key=v.c.key, money=Money.NONE,
                sends=0, polls=0, not_before_ms=now_ms, **blank,
            )
        )  # fmt: skip

    async def _change_run(self, run_id: str, allowed: Sequence[RunState], **values: object) -> bool:
        async def work(connection: AsyncConnection) -> bool:
            done = await connection.execute(
                sa.update(runs).where(runs.c.id == run_id, runs.c.state.in_(allowed)).values(**values)
            )
            return done.rowcount == 1

        return await self.db.write(work)

    async def acquire_lease(self, name: str, owner: str, *, until_ms: int, now_ms: int) -> bool:
        """Take or prolong a named lease: only its owner may, until it is over."""

        async def work(connection: AsyncConnection) -> bool:
            row = {"name": name, "owner": owner, "until_ms": 0}
            await self.db.insert(connection, leases, [row], ignore=True)
            done = await connection.execute(
                sa.update(leases)
                .where(
                    leases.c.name == name,
                    sa.or_(leases.c.owner == owner, leases.c.until_ms <= now_ms),
                )
                .values(owner=owner, until_ms=until_ms)
            )
            return done.rowcount == 1

        return await self.db.write(work)

    async def release_lease(self, name: str, owner: str) -> None:
        """Give a lease back early."""

        async def work(connection: AsyncConnection) -> None:
            mine = leases.c.name == name, leases.c.owner == owner
            await connection.execute(sa.update(leases).where(*mine).values(until_ms=0))

        await self.db.write(work)
