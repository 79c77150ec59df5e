"""Writes of tasks that come one by one, many requests in one transaction: the callers' keys, the standing run
of each token, the tasks, and who brought them.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import webhook_secret
from app.domain.own_columns import OwnColumns
from app.domain.relay.message import NewEndpoint, Scheme
from app.domain.standing import API_SOURCE, NewTask, Producer, Taking, day_start
from app.domain.task import RunState, new_id
from app.domain.text import storable
from app.store.part import StorePart, writes
from app.store.tables import (
    Id,
    actions,
    relay_endpoints,
    relay_tasks,
    runs,
    standing_runs,
    task_keys,
    task_metadata,
    tasks,
    tokens,
)
from app.store.write.access import action_row
from app.store.write.load import own_row, task_row
from app.store.write.relay_endpoints import ensure_endpoint
from app.store.write.run_ends import reopen_runs

_S, _K = standing_runs.c, task_keys.c


class StandingWrites(StorePart):
    """Part of the store."""

    @writes
    async def take_tasks(
        self, connection: AsyncConnection, takings: Sequence[Taking], now_ms: int
    ) -> set[str]:
        """Store the tasks of requests; ids of those that are not, since an earlier task of the token has
        their key. A repeated write finds its own."""
        known = await self._bind_keys(connection, takings)
        of_producer: defaultdict[Producer, list[NewTask]] = defaultdict(list)
        for taking in takings:
            of_producer[taking.producer] += [task for task in taking.tasks if task.id not in known]
        # In one order, so that two groups wait for each other and no more.
        for producer in sorted(of_producer, key=lambda producer: producer.token_id):
            if new := of_producer[producer]:
                await self._add(connection, producer, new, now_ms)
        rows = [action_row(taking.action) for taking in takings]
        await self.db.insert(connection, actions, rows, known="id")
        return known

    async def _bind_keys(self, connection: AsyncConnection, takings: Sequence[Taking]) -> set[str]:
        """Of two tasks with one key the first has it; ids of the others."""
        rows = [
            {"token_id": taking.producer.token_id, "key": task.key, "task_id": task.id}
            for taking in takings
            for task in taking.tasks
            if task.key is not None
        ]
        if not rows:
            return set()
        rows.sort(key=lambda row: (row["token_id"], str(row["key"])))
        await self.db.insert(connection, task_keys, rows, ignore=True)
        # By a statement of its own, which sees what another group has committed meanwhile.
        v = self.db.batch("v", {"token_id": Id, "key": sa.Text(), "task_id": Id}, rows)
        is_same = sa.and_(_K.token_id == v.c.token_id, _K.key == v.c.key)
        others = sa.select(v.c.task_id).join(task_keys, is_same).where(_K.task_id != v.c.task_id)
        return set((await connection.execute(others)).scalars())

    async def _add(
        self, connection: AsyncConnection, producer: Producer, new: Sequence[NewTask], now_ms: int
    ) -> None:
        run_id, last = await self._place(connection, producer, len(new), now_ms)
        first = last - len(new) + 1
        specs = [
            replace(task.spec, ordinal=first + n, own=None if task.key is None else OwnColumns(0, task.key))
            for n, task in enumerate(new)
        ]
        rows = [task_row(run_id, task.id, spec, task.estimate) for task, spec in zip(new, specs, strict=True)]
        await self.db.insert(connection, tasks, rows, known="id")
        own = [row for spec in specs if (row := own_row(run_id, spec)) is not None]
        await self.db.insert(connection, task_metadata, own, ignore=True)
        await self._push(connection, producer, [task for task in new if task.webhook_url], now_ms)

    async def _push(
        self, connection: AsyncConnection, producer: Producer, pushed: Sequence[NewTask], now_ms: int
    ) -> None:
        """Have the ends of tasks posted to the endpoints that they name."""
        if not pushed:
            return
        endpoints = await self._endpoints(
            connection, producer, {task.webhook_url or "" for task in pushed}, now_ms
        )
        rows = [{"task_id": task.id, "endpoint_id": endpoints[task.webhook_url or ""]} for task in pushed]
        await self.db.insert(connection, relay_tasks, rows, known="task_id")

    async def _endpoints(
        self, connection: AsyncConnection, producer: Producer, urls: set[str], now_ms: int
    ) -> dict[str, str]:
        """URL -> endpoint of the token's, made if there is none."""
        e = relay_endpoints.c
        is_own = e.account == producer.account, e.token_id == producer.token_id, e.scheme == Scheme.PROVIDER
        found = await connection.execute(sa.select(e.url, e.id).where(*is_own, e.url.in_(sorted(urls))))
        endpoints = {row.url: row.id for row in found}
        if missing := sorted(urls - endpoints.keys()):
            query = sa.select(tokens.c.sha256).where(tokens.c.id == producer.token_id)
            secret = webhook_secret(str(await connection.scalar(query)))
            for url in missing:
                new = NewEndpoint(url, secret, Scheme.PROVIDER, producer.token_id)
                endpoint = new_id(now_ms), producer.account, new
                endpoints[url] = await ensure_endpoint(self.db, connection, *endpoint, now_ms)
        return endpoints

    async def _place(
        self, connection: AsyncConnection, producer: Producer, count: int, now_ms: int
    ) -> tuple[str, int]:
        """(run, last of `count` ordinals in it). Its row is locked: nobody ends or cancels it before this
        transaction ends."""
        of_day = _S.token_id == producer.token_id, _S.day_ms == day_start(now_ms)
        take = sa.update(standing_runs).where(*of_day).values(last_ordinal=_S.last_ordinal + count)
        take = take.returning(_S.run_id, _S.last_ordinal)
        made_id = new_id(now_ms)
        if (row := (await connection.execute(take)).first()) is None:
            place = {"token_id": producer.token_id, "day_ms": day_start(now_ms)}
            row_of_day = place | {"run_id": made_id, "last_ordinal": 0}
            await self.db.insert(connection, standing_runs, [row_of_day], ignore=True)
            row = (await connection.execute(take)).one()
        if row.run_id != made_id:
            held = sa.select(runs.c.state).where(runs.c.id == row.run_id).with_for_update(read=True)
            state = await connection.scalar(held)
            if state == RunState.FINISHED:
                await reopen_runs(connection, [row.run_id])
            if state is not None and state != RunState.CANCELLED:
                return row.run_id, row.last_ordinal
            again = sa.update(standing_runs).where(*of_day).values(run_id=made_id, last_ordinal=count)
            await connection.execute(again)
        await self._begin_run(connection, made_id, producer, now_ms)
        return made_id, count

    async def _begin_run(
        self, connection: AsyncConnection, run_id: str, producer: Producer, now_ms: int
    ) -> None:
        row = {
            "id": run_id,
            "name": storable(producer.run_name(now_ms)),
            "source": API_SOURCE,
            "state": RunState.RUNNING,
            "bad_lines": 0,
            "account": producer.account,
            "created_at_ms": now_ms,
            "started_at_ms": now_ms,
            "has_rollup": True,
        }
        await self.db.insert(connection, runs, [row], known="id")
