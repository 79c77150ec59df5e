"""Writes of tasks that come one by one, many requests in one transaction: the callers' keys, the standing run
of each token, the tasks, and who brought them. The general way: most groups need less (standing_at_once).
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import webhook_secret
from app.domain.credits import to_micro
from app.domain.relay.message import NewEndpoint, Scheme
from app.domain.standing import API_SOURCE, NewTask, Producer, Taking, day_start
from app.domain.task import RunState, idempotency_key, new_id
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
from app.store.write.relay_endpoints import ensure_endpoint
from app.store.write.run_ends import reopen_runs
from app.store.write.standing_at_once import may_be_taken_at_once, take_at_once

_S, _K = standing_runs.c, task_keys.c
ACTION_COLUMNS = ("id", "at_ms", "actor", "token_id", "action", "subject", "request_id", "status")
KEY_COLUMNS = ("token_id", "key", "task_id")
OWN_COLUMNS = ("run_id", "ordinal", "line", "custom_id")
TASK_COLUMNS = (
    "id",
    "run_id",
    "ordinal",
    "task_type",
    "payload",
    "priority",
    "state",
    "attempt",
    "idempotency_key",
    "money",
    "credits_estimate",
    "sends",
    "not_before_ms",
    "polls",
    "fingerprint",
)


_OF_DAY = _S.token_id == sa.bindparam("of_token"), _S.day_ms == sa.bindparam("of_day")
# Made once: that costs more than to run them.
_TAKE_PLACES = (
    sa.update(standing_runs)
    .where(*_OF_DAY)
    .values(last_ordinal=_S.last_ordinal + sa.bindparam("places", type_=sa.Integer()))
    .returning(_S.run_id, _S.last_ordinal)
)
_HOLD_RUN = sa.select(runs.c.state).where(runs.c.id == sa.bindparam("run")).with_for_update(read=True)


class StandingWrites(StorePart):
    """Part of the store."""

    async def take_tasks(self, takings: Sequence[Taking], now_ms: int) -> set[str]:
        """Store the tasks of requests; ids of those that are not, since an earlier task of the token has
        their key. A repeated write finds its own."""
        if may_be_taken_at_once(takings):
            stored = await take_at_once(self.db, takings, now_ms)
            takings = _left(takings, stored) if stored else takings
        return await self._take_tasks(takings, now_ms) if takings else set()

    @writes
    async def _take_tasks(
        self, connection: AsyncConnection, takings: Sequence[Taking], now_ms: int
    ) -> set[str]:
        await self._hold_places(connection, takings, now_ms)
        known = await self._bind_keys(connection, takings)
        of_producer: defaultdict[Producer, list[NewTask]] = defaultdict(list)
        for taking in takings:
            of_producer[taking.producer] += [task for task in taking.tasks if task.id not in known]
        # In one order, so that two groups wait for each other and no more.
        for producer in sorted(of_producer, key=lambda producer: producer.token_id):
            if new := of_producer[producer]:
                await self._add(connection, producer, new, now_ms)
        rows = _actions(takings, now_ms, self.db.driver_id)
        await self.db.insert_plain(connection, actions, ACTION_COLUMNS, rows, ignore=True)
        return known

    async def _hold_places(self, connection: AsyncConnection, takings: Sequence[Taking], now_ms: int) -> None:
        """Before any key is bound, as whoever takes tasks at once does: two groups wait for each other, and
        no more."""
        tokens = {taking.producer.token_id for taking in takings}
        held = sa.select(_S.run_id).where(_S.token_id.in_(tokens), _S.day_ms == day_start(now_ms))
        await connection.execute(held.order_by(_S.token_id).with_for_update())

    async def _bind_keys(self, connection: AsyncConnection, takings: Sequence[Taking]) -> set[str]:
        """Of two tasks with one key the first has it; ids of the others."""
        bound = [
            (taking.producer.token_id, task.key, task.id)
            for taking in takings
            for task in taking.tasks
            if task.key is not None
        ]
        if not bound:
            return set()
        bound.sort(key=lambda row: row[:2])
        driver_id = self.db.driver_id
        rows = [(driver_id(token_id), key, driver_id(task_id)) for token_id, key, task_id in bound]
        if await self.db.insert_plain(connection, task_keys, KEY_COLUMNS, rows, ignore=True) == len(rows):
            return set()
        # By a statement of its own, which sees what another group has committed meanwhile.
        named = [dict(zip(KEY_COLUMNS, row, strict=True)) for row in bound]
        v = self.db.batch("v", {"token_id": Id, "key": sa.Text(), "task_id": Id}, named)
        is_same = sa.and_(_K.token_id == v.c.token_id, _K.key == v.c.key)
        others = sa.select(v.c.task_id).join(task_keys, is_same).where(_K.task_id != v.c.task_id)
        return set((await connection.execute(others)).scalars())

    async def _add(
        self, connection: AsyncConnection, producer: Producer, new: Sequence[NewTask], now_ms: int
    ) -> None:
        run_id, last = await self._place(connection, producer, len(new), now_ms)
        stored_run, first = self.db.driver_id(run_id), last - len(new) + 1
        driver_id = self.db.driver_id
        rows = [_plain_row(driver_id(task.id), stored_run, first + n, task) for n, task in enumerate(new)]
        await self.db.insert_plain(connection, tasks, TASK_COLUMNS, rows, ignore=True)
        own = [(stored_run, first + n, 0, task.key) for n, task in enumerate(new) if task.key is not None]
        await self.db.insert_plain(connection, task_metadata, OWN_COLUMNS, own, ignore=True)
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
        of_day = {"of_token": producer.token_id, "of_day": day_start(now_ms)}
        made_id = new_id(now_ms)
        if (row := (await connection.execute(_TAKE_PLACES, of_day | {"places": count})).first()) is None:
            place = {"token_id": producer.token_id, "day_ms": day_start(now_ms)}
            row_of_day = place | {"run_id": made_id, "last_ordinal": 0}
            await self.db.insert(connection, standing_runs, [row_of_day], ignore=True)
            row = (await connection.execute(_TAKE_PLACES, of_day | {"places": count})).one()
        if row.run_id != made_id:
            state = await connection.scalar(_HOLD_RUN, {"run": row.run_id})
            if state == RunState.FINISHED:
                await reopen_runs(connection, [row.run_id])
            if state is not None and state != RunState.CANCELLED:
                return row.run_id, row.last_ordinal
            again = sa.update(standing_runs).where(*_OF_DAY).values(run_id=made_id, last_ordinal=count)
            await connection.execute(again, of_day)
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


def _left(takings: Sequence[Taking], stored: set[str]) -> list[Taking]:
    """What is left to do of requests when tasks of theirs are stored."""
    left = []
    for taking in takings:
        if tasks_left := [task for task in taking.tasks if task.id not in stored]:
            left.append(replace(taking, tasks=tasks_left))
    return left


def _plain_row(stored_id: str, stored_run: str, ordinal: int, task: NewTask) -> tuple[Any, ...]:
    """As TASK_COLUMNS: a task that nothing was done for yet, with the key under which it will be sent."""
    return (
        stored_id,
        stored_run,
        ordinal,
        task.task_type,
        task.payload,
        task.priority,
        "pending",
        1,
        idempotency_key(task.id, 1),
        "none",
        to_micro(task.estimate),
        0,
        0,
        0,
        task.fingerprint,
    )


def _actions(
    takings: Sequence[Taking], now_ms: int, driver_id: Callable[[str], str]
) -> list[tuple[Any, ...]]:
    """As ACTION_COLUMNS, one for each token, kind and commit: a producer of single tasks would fill the list
    otherwise, and who brought a task, and when, its run and its id say."""
    of_kind: dict[tuple[str, str], list[Taking]] = {}
    for taking in takings:
        of_kind.setdefault((taking.producer.token_id, taking.action), []).append(taking)
    rows = []
    for same in of_kind.values():
        first, count = same[0], sum(len(taking.tasks) for taking in same)
        # No other action can have the id of a task.
        action_id = driver_id(first.tasks[0].id)
        subject = first.tasks[0].id if count == 1 else f"{count} tasks"
        who = first.producer.name, driver_id(first.producer.token_id)
        rows.append((action_id, now_ms, *who, first.action, subject, first.request_id, 200))
    return rows
