"""Times that lie further ahead than they ever should: written by a clock that was wrong.

What is to be done at such a time would wait for as long as the clock was ahead, a poll past the provider's
retention. The sweep brings those back that an index finds; the others are read as what they are.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.part import StorePart, reads, writes
from app.store.tables import (
    IS_SUBMITTING,
    IS_WAITING,
    SLACK_MS,
    Millis,
    claims,
    deliveries,
    notices,
    runs,
    schedules,
    tasks,
)
from app.store.write.inbox import HELD_UP_MS_MAX

_Change = tuple[sa.Table, Any, list[Any], int]
"""Of a table: its column, which rows, and how far ahead the column may lie in them."""


@dataclass(frozen=True, slots=True)
class Longest:
    """How far ahead each kind of time may lie, in ms."""

    claim: int
    """A claim's lease."""
    poll: int
    """The first poll of a task, or the next one of a task that was polled often."""
    ask: int
    """When a sync call is given up."""
    delivery: int
    """A delivery that is to be looked at again."""
    notice: int
    """The next try of a notice."""


class FutureTimeWrites(StorePart):
    """Part of the store."""

    async def bring_back_times(self, now_ms: int, longest: Longest) -> int:
        """Bring back what lies too far ahead. How many."""
        c = tasks.c
        asked = c.run_id.in_(sa.select(runs.c.id).where(runs.c.source == "ask"))
        delivery_ms = max(longest.delivery, HELD_UP_MS_MAX)
        changes: list[_Change] = [
            (tasks, c.lease_until_ms, [IS_SUBMITTING], longest.claim),
            (claims, claims.c.lease_until_ms, [], longest.claim),
            (tasks, c.next_poll_at_ms, [~asked], longest.poll),
            (tasks, c.next_poll_at_ms, [], longest.ask),
            (deliveries, deliveries.c.due_at_ms, [IS_WAITING], delivery_ms),
            (notices, notices.c.due_at_ms, [notices.c.state == "new"], longest.notice),
        ]
        slots = schedules.c.next_at_ms > now_ms + schedules.c.every_ms + SLACK_MS

        if not await self._is_any_ahead(changes, slots, now_ms):
            return 0
        return await self._bring_back(changes, slots, now_ms)

    @reads
    async def _is_any_ahead(
        self, connection: AsyncConnection, changes: Sequence[_Change], slots: Any, now_ms: int
    ) -> bool:
        for table, column, where, length in changes:
            too_far = sa.exists().select_from(table).where(column > now_ms + length + SLACK_MS, *where)
            if await connection.scalar(sa.select(too_far)):
                return True
        return bool(await connection.scalar(sa.select(sa.exists().where(slots))))

    @writes(long=True)
    async def _bring_back(
        self, connection: AsyncConnection, changes: Sequence[_Change], slots: Any, now_ms: int
    ) -> int:
        count = 0
        for table, column, where, length in changes:
            too_far = column > now_ms + length + SLACK_MS
            done = await connection.execute(
                sa.update(table).where(too_far, *where).values({column.name: now_ms})
            )
            count += done.rowcount
        # By whole steps: the next slot on the same line.
        ahead = schedules.c.next_at_ms - sa.literal(now_ms, Millis)
        steps = ahead // schedules.c.every_ms * schedules.c.every_ms
        moved = await connection.execute(
            sa.update(schedules).where(slots).values(next_at_ms=schedules.c.next_at_ms - steps)
        )
        return count + moved.rowcount
