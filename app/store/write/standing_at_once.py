"""Tasks of one token that come one by one, as nearly all of them do, stored in one round trip: on PostgreSQL
by one statement, on SQLite in one hop to the driver's thread.

What needs more than that (a first task of the day, a key that is bound already, a run that is over) is left
out, and named, for the general way (standing.py). Both take their locks in one order.
"""

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import msgspec

from app.domain.credits import to_micro
from app.domain.standing import NewTask, Taking, day_start
from app.domain.task import idempotency_key
from app.store.database import Database, fetch_at_once
from app.store.sqlite_append import in_one_hop

# What is counted and placed is what is new. A row that another group has just changed is locked as it is now,
# and found again as that by the update.
_POSTGRESQL = """
WITH v AS (
  SELECT * FROM unnest(
    $7::uuid[], $8::text[], $9::text[], $10::integer[], $11::bigint[], $12::text[], $13::text[]
  ) WITH ORDINALITY AS v(id, task_type, payload, priority, credits, fingerprint, key, n)
), held AS MATERIALIZED (
  SELECT s.run_id FROM standing_runs s JOIN runs r ON r.id = s.run_id
  WHERE s.token_id = $1 AND s.day_ms = $2 AND r.state NOT IN ('finished', 'cancelled')
  FOR UPDATE OF s FOR SHARE OF r
), bound AS (
  INSERT INTO task_keys (token_id, key, task_id)
  SELECT $1, v.key, v.id FROM v, held WHERE v.key IS NOT NULL ORDER BY v.key, v.n
  ON CONFLICT DO NOTHING RETURNING task_id
), new AS MATERIALIZED (
  SELECT v.*, row_number() OVER (ORDER BY v.n) AS place FROM v, held
  WHERE v.key IS NULL OR v.id IN (SELECT task_id FROM bound)
), counted AS MATERIALIZED (
  SELECT count(*)::integer AS tasks, min(n) AS first FROM new
), placed AS (
  UPDATE standing_runs s SET last_ordinal = s.last_ordinal + counted.tasks FROM held, counted
  WHERE s.token_id = $1 AND s.day_ms = $2 AND s.run_id = held.run_id
  RETURNING s.run_id, s.last_ordinal - counted.tasks AS before
), stored AS (
  INSERT INTO tasks (
    id, run_id, ordinal, task_type, payload, priority, state, attempt, idempotency_key, money,
    credits_estimate, sends, not_before_ms, polls, fingerprint
  )
  SELECT new.id, placed.run_id, placed.before + new.place, new.task_type, new.payload, new.priority,
         'pending', 1, new.id || '.1', 'none', new.credits, 0, 0, 0, new.fingerprint
  FROM new, placed ON CONFLICT DO NOTHING
), own AS (
  INSERT INTO task_metadata (run_id, ordinal, line, custom_id)
  SELECT placed.run_id, placed.before + new.place, 0, new.key FROM new, placed WHERE new.key IS NOT NULL
  ON CONFLICT DO NOTHING
), noted AS (
  INSERT INTO actions (id, at_ms, actor, token_id, action, subject, request_id, status)
  SELECT new.id, $3, $4, $1, $5,
         CASE counted.tasks WHEN 1 THEN new.id::text ELSE counted.tasks || ' tasks' END, $6, 200
  FROM new, counted WHERE new.n = counted.first ON CONFLICT DO NOTHING
)
SELECT id::text FROM new
"""

_OPEN_RUN = """
SELECT s.run_id, s.last_ordinal FROM standing_runs s JOIN runs r ON r.id = s.run_id
WHERE s.token_id = ? AND s.day_ms = ? AND r.state NOT IN ('finished', 'cancelled')
"""
# All rows of a table by one step: after each the driver's thread waits for the interpreter.
_BIND_KEYS = """
INSERT INTO task_keys (token_id, key, task_id)
SELECT ?, json_extract(value, '$[6]'), json_extract(value, '$[0]')
FROM json_each(?) WHERE json_extract(value, '$[6]') IS NOT NULL ON CONFLICT DO NOTHING
"""
_TAKE_PLACES = "UPDATE standing_runs SET last_ordinal = last_ordinal + ? WHERE token_id = ? AND day_ms = ?"
_INSERT_TASKS = """
INSERT INTO tasks (id, run_id, ordinal, task_type, payload, priority, state, attempt, idempotency_key, money,
                   credits_estimate, sends, not_before_ms, polls, fingerprint)
SELECT json_extract(value, '$[0]'), ?, ? + key, json_extract(value, '$[1]'), json_extract(value, '$[2]'),
       json_extract(value, '$[3]'), 'pending', 1, json_extract(value, '$[7]'), 'none',
       json_extract(value, '$[4]'), 0, 0, 0, json_extract(value, '$[5]')
FROM json_each(?) WHERE true ON CONFLICT DO NOTHING
"""
_INSERT_OWN = """
INSERT INTO task_metadata (run_id, ordinal, line, custom_id)
SELECT ?, ? + key, 0, json_extract(value, '$[6]')
FROM json_each(?) WHERE json_extract(value, '$[6]') IS NOT NULL ON CONFLICT DO NOTHING
"""
_INSERT_ACTION = """
INSERT INTO actions (id, at_ms, actor, token_id, action, subject, request_id, status)
VALUES (?, ?, ?, ?, ?, ?, ?, 200) ON CONFLICT DO NOTHING
"""


def may_be_taken_at_once(takings: Sequence[Taking]) -> bool:
    """Whether they are one token's, of one kind, and nobody is to be told of their ends."""
    first = takings[0]
    return all(
        taking.producer == first.producer
        and taking.action == first.action
        and all(task.webhook_url is None for task in taking.tasks)
        for taking in takings
    )


async def take_at_once(db: Database, takings: Sequence[Taking], now_ms: int) -> set[str]:
    """Store tasks that `may_be_taken_at_once`; ids of those that are stored. Raises as Database.write
    does."""
    new = [task for taking in takings for task in taking.tasks]
    if not db.is_sqlite:
        arguments = (
            *_of_group(takings, now_ms),
            *(list(column) for column in zip(*map(_row, new), strict=True)),
        )
        stored = await db.at_once(lambda driver: fetch_at_once(driver, _POSTGRESQL, arguments))
        return {row[0] for row in stored}
    group = _group_for_sqlite(db, takings, new, now_ms)
    is_stored = await db.at_once(lambda driver: in_one_hop(driver, _take, group))
    return {task.id for task in new} if is_stored else set()


def _of_group(takings: Sequence[Taking], now_ms: int) -> tuple[Any, ...]:
    """What all rows share."""
    first = takings[0]
    who = first.producer
    return who.token_id, day_start(now_ms), now_ms, who.name, first.action, first.request_id


def _row(task: NewTask) -> tuple[Any, ...]:
    return (
        task.id,
        task.task_type,
        task.payload,
        task.priority,
        to_micro(task.estimate),
        task.fingerprint,
        task.key,
    )


@dataclass(frozen=True, slots=True)
class _Group:
    """What the driver's thread of SQLite is given."""

    token_id: str
    day_ms: int
    rows: str
    """JSON, as `_row` has them, with the key under which each will be sent."""
    tasks: int
    keys: int
    action: tuple[Any, ...]


def _group_for_sqlite(db: Database, takings: Sequence[Taking], new: Sequence[NewTask], now_ms: int) -> _Group:
    token_id, day_ms, _, name, action, request_id = _of_group(takings, now_ms)
    token_id, first_id = db.driver_id(token_id), new[0].id
    rows = [(db.driver_id(task.id), *_row(task)[1:], idempotency_key(task.id, 1)) for task in new]
    subject = first_id if len(new) == 1 else f"{len(new)} tasks"
    return _Group(
        token_id,
        day_ms,
        msgspec.json.encode(rows).decode(),
        len(new),
        sum(task.key is not None for task in new),
        (db.driver_id(first_id), now_ms, name, token_id, action, subject, request_id),
    )


def _take(connection: sqlite3.Connection, group: _Group) -> bool:
    """Whether the group is committed; else nothing of it is."""
    connection.execute("BEGIN IMMEDIATE")
    of_day = group.token_id, group.day_ms
    place = connection.execute(_OPEN_RUN, of_day).fetchone()
    if place is None or _bound(connection, group) < group.keys:
        connection.execute("ROLLBACK")
        return False
    run_id, last = place
    connection.execute(_TAKE_PLACES, (group.tasks, *of_day))
    connection.execute(_INSERT_TASKS, (run_id, last + 1, group.rows))
    if group.keys:
        connection.execute(_INSERT_OWN, (run_id, last + 1, group.rows))
    connection.execute(_INSERT_ACTION, group.action)
    connection.execute("COMMIT")
    return True


def _bound(connection: sqlite3.Connection, group: _Group) -> int:
    """How many keys are this group's now."""
    return connection.execute(_BIND_KEYS, (group.token_id, group.rows)).rowcount if group.keys else 0
