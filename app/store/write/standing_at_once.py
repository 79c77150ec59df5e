"""Tasks of one token that come one by one, as nearly all of them do, stored in one round trip: on PostgreSQL
by one statement, on SQLite in one hop to the driver's thread.

What needs more than that (a first task of the day, a first one for a URL, a key that is bound already, a run
that is over) is left out for the general way (standing.py). Both take their locks in one order.
"""

import sqlite3
from collections.abc import Sequence
from typing import Any

import msgspec

from app.domain.credits import to_micro
from app.domain.standing import NewTask, Taking, day_start
from app.domain.task import idempotency_key
from app.store.database import Database, arrays, fetch_at_once
from app.store.sqlite_append import in_one_hop

# What is counted and placed is what is new. A row that another group has just changed is locked as it is now,
# and found again as that by the update.
_POSTGRESQL = """
WITH v AS (
  SELECT * FROM unnest(
    $8::uuid[], $9::text[], $10::text[], $11::integer[], $12::bigint[], $13::text[], $14::text[],
    $15::text[]
  ) WITH ORDINALITY AS v(id, task_type, payload, priority, credits, fingerprint, key, url, n)
), held AS MATERIALIZED (
  SELECT s.run_id FROM standing_runs s JOIN runs r ON r.id = s.run_id
  WHERE s.token_id = $1 AND s.day_ms = $2 AND r.state NOT IN ('finished', 'cancelled')
  FOR UPDATE OF s FOR SHARE OF r
), told AS MATERIALIZED (
  SELECT v.id, e.id AS endpoint_id FROM v JOIN relay_endpoints e ON e.url = v.url
  WHERE e.account = $7 AND e.token_id = $1::uuid::text AND e.scheme = 'provider'
), given AS MATERIALIZED (
  SELECT v.* FROM v, held WHERE v.url IS NULL OR v.id IN (SELECT id FROM told)
), bound AS (
  INSERT INTO task_keys (token_id, key, task_id)
  SELECT $1, key, id FROM given WHERE key IS NOT NULL ORDER BY key, n
  ON CONFLICT DO NOTHING RETURNING task_id
), new AS MATERIALIZED (
  SELECT *, row_number() OVER (ORDER BY n) AS place FROM given
  WHERE key IS NULL OR id IN (SELECT task_id FROM bound)
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
), pushed AS (
  INSERT INTO relay_tasks (task_id, endpoint_id)
  SELECT new.id, told.endpoint_id FROM new JOIN told ON told.id = new.id ON CONFLICT DO NOTHING
), noted AS (
  INSERT INTO actions (id, at_ms, actor, token_id, action, subject, request_id, status)
  SELECT new.id, $3, $4, $1, $5,
         CASE counted.tasks WHEN 1 THEN new.id::text ELSE counted.tasks || ' tasks' END, $6, 200
  FROM new, counted WHERE new.n = counted.first ON CONFLICT DO NOTHING
)
SELECT id::text FROM new
"""

# After each step of a statement the driver's thread waits for the interpreter, which the loop has: so that a
# group is one step, a trigger of this connection's own does the rest. What it cannot do undoes all of it.
_SQLITE_GROUP = """
CREATE TEMP VIEW group_of_tasks AS
SELECT NULL AS token_id, NULL AS day_ms, NULL AS tasks, NULL AS rows, NULL AS at_ms, NULL AS actor,
       NULL AS action, NULL AS subject, NULL AS request_id, NULL AS first_id, NULL AS account,
       NULL AS owner, NULL AS urls
"""
_SQLITE_TAKE = """
CREATE TEMP TRIGGER take_group INSTEAD OF INSERT ON group_of_tasks BEGIN
UPDATE standing_runs SET last_ordinal = last_ordinal + NEW.tasks
WHERE token_id = NEW.token_id AND day_ms = NEW.day_ms
AND EXISTS (SELECT 1 FROM runs WHERE runs.id = run_id AND state NOT IN ('finished', 'cancelled'));
SELECT RAISE(ABORT, 'no open run') WHERE changes() = 0;
SELECT RAISE(ABORT, 'no endpoint') WHERE NEW.urls > 0 AND EXISTS (
  SELECT 1 FROM json_each(NEW.rows) WHERE json_extract(value, '$[8]') IS NOT NULL AND NOT EXISTS (
    SELECT 1 FROM relay_endpoints e WHERE e.account = NEW.account AND e.token_id = NEW.owner
    AND e.scheme = 'provider' AND e.url = json_extract(value, '$[8]')
  )
);
INSERT INTO task_keys (token_id, key, task_id)
SELECT NEW.token_id, json_extract(value, '$[6]'), json_extract(value, '$[0]')
FROM json_each(NEW.rows) WHERE json_extract(value, '$[6]') IS NOT NULL;
INSERT INTO tasks (id, run_id, ordinal, task_type, payload, priority, state, attempt, idempotency_key, money,
                   credits_estimate, sends, not_before_ms, polls, fingerprint)
SELECT json_extract(value, '$[0]'), s.run_id, s.last_ordinal - NEW.tasks + 1 + each.key,
       json_extract(value, '$[1]'), json_extract(value, '$[2]'), json_extract(value, '$[3]'), 'pending', 1,
       json_extract(value, '$[7]'), 'none', json_extract(value, '$[4]'), 0, 0, 0, json_extract(value, '$[5]')
FROM standing_runs s, json_each(NEW.rows) each WHERE s.token_id = NEW.token_id AND s.day_ms = NEW.day_ms;
INSERT INTO task_metadata (run_id, ordinal, line, custom_id)
SELECT s.run_id, s.last_ordinal - NEW.tasks + 1 + each.key, 0, json_extract(value, '$[6]')
FROM standing_runs s, json_each(NEW.rows) each
WHERE s.token_id = NEW.token_id AND s.day_ms = NEW.day_ms AND json_extract(value, '$[6]') IS NOT NULL;
INSERT INTO relay_tasks (task_id, endpoint_id)
SELECT json_extract(value, '$[0]'), e.id FROM json_each(NEW.rows) CROSS JOIN relay_endpoints e
WHERE NEW.urls > 0 AND e.account = NEW.account AND e.token_id = NEW.owner AND e.scheme = 'provider'
AND e.url = json_extract(value, '$[8]');
INSERT INTO actions (id, at_ms, actor, token_id, action, subject, request_id, status)
VALUES (NEW.first_id, NEW.at_ms, NEW.actor, NEW.token_id, NEW.action, NEW.subject, NEW.request_id, 200);
END
"""
_SQLITE = "INSERT INTO group_of_tasks VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


def may_be_taken_at_once(takings: Sequence[Taking]) -> bool:
    """Whether they are one token's, and of one kind."""
    first = takings[0]
    return all(taking.producer == first.producer and taking.action == first.action for taking in takings)


async def take_at_once(db: Database, takings: Sequence[Taking], now_ms: int) -> set[str]:
    """Store tasks that `may_be_taken_at_once`; ids of those that are stored. Raises as Database.write
    does."""
    new = [task for taking in takings for task in taking.tasks]
    if not db.is_sqlite:
        columns = arrays([_row(task) for task in new])
        arguments = (*_of_group(takings, now_ms), takings[0].producer.account, *columns)
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
        task.webhook_url,
    )


def _group_for_sqlite(
    db: Database, takings: Sequence[Taking], new: Sequence[NewTask], now_ms: int
) -> tuple[Any, ...]:
    """A row of `group_of_tasks`; its rows as `_row` has them, before the URL the key under which each will
    be sent."""
    owner, day_ms, at_ms, name, action, request_id = _of_group(takings, now_ms)
    token_id, account = db.driver_id(owner), takings[0].producer.account
    first_id = new[0].id
    subject = first_id if len(new) == 1 else f"{len(new)} tasks"
    rows = [
        (db.driver_id(task.id), *_row(task)[1:-1], idempotency_key(task.id, 1), task.webhook_url)
        for task in new
    ]
    urls = sum(task.webhook_url is not None for task in new)
    group = token_id, day_ms, len(new), msgspec.json.encode(rows).decode()
    who = db.driver_id(first_id), account, owner, urls
    return *group, at_ms, name, action, subject, request_id, *who


def _take(connection: sqlite3.Connection, group: tuple[Any, ...]) -> bool:
    """Whether the group is committed; else nothing of it is."""
    try:
        try:
            connection.execute(_SQLITE, group)
        except sqlite3.OperationalError as error:
            if "no such table" not in str(error):
                raise
            connection.execute(_SQLITE_GROUP)
            connection.execute(_SQLITE_TAKE)
            connection.execute(_SQLITE, group)
    except sqlite3.IntegrityError:
        return False
    return True
