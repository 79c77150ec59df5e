"""How `results` loses its copies of the answers (revision 0013), while processes of the version before work.

In three parts: `begin` makes the narrow table beside the old one, with a trigger that brings over
whatever is inserted from then on; `copy_batch` brings over what was there, a bounded part each time; `end`
puts the narrow table in the place of the old one, whose space PostgreSQL gives back at once. Each is one
transaction of the caller's, and a killed migration goes on where it was. May not use app.store.tables, which
change.
"""

import hashlib
from typing import Any

import sqlalchemy as sa
from sqlalchemy.util import await_only

BLOCKS = 32
"""Of PostgreSQL's, 8 KB each, in one batch: some 2,000 rows with answers of 13 KB, 0.3 s."""
ROWIDS = 1_000
"""Of SQLite's, in one batch."""
_KEY = "task_id, attempt"
_ROW = f"{_KEY}, delivery_id, status, stored_at_ms, answer_bytes, answer_sha256"
_BYTES = "convert_to({row}response, 'UTF8')"


def begin(connection: sa.Connection) -> bool:
    """Make the narrow table beside the old one, unless it is there. False when the old one is gone."""
    if is_done(connection):
        return False
    if sa.inspect(connection).has_table("results_narrow"):
        return True
    uuid, blob = ("UUID", "BYTEA") if _is_postgresql(connection) else ("CHAR(32)", "BLOB")
    for statement in (
        "CREATE TABLE settle_sequence (id INTEGER NOT NULL, value BIGINT NOT NULL, "
        "CONSTRAINT pk_settle_sequence PRIMARY KEY (id))",
        "INSERT INTO settle_sequence (id, value) VALUES (1, 0)",
        "CREATE TABLE results_position (position BIGINT NOT NULL)",
        "INSERT INTO results_position (position) VALUES (0)",
        f"CREATE TABLE results_narrow (task_id {uuid} NOT NULL, attempt INTEGER NOT NULL, "
        f"delivery_id {uuid} NOT NULL, status TEXT NOT NULL, stored_at_ms BIGINT NOT NULL, "
        f"answer_bytes BIGINT, answer_sha256 {blob}, seq BIGINT, response TEXT, "
        f"CONSTRAINT pk_results_narrow PRIMARY KEY (task_id, attempt))",
        "CREATE UNIQUE INDEX uq_results_seq ON results_narrow (seq)",
        f"CREATE INDEX ix_results_incomplete ON results_narrow ({_KEY}) "
        "WHERE seq IS NULL OR answer_sha256 IS NULL",
        *(_postgresql_copier() if _is_postgresql(connection) else _sqlite_copier()),
    ):
        connection.exec_driver_sql(statement)
    return True


def is_done(connection: sa.Connection) -> bool:
    """Whether the table called results is the narrow one."""
    columns = sa.inspect(connection).get_columns("results")
    return any(column["name"] == "answer_sha256" for column in columns)


def copy_batch(connection: sa.Connection) -> int:
    """Bring over the next rows that are not there yet, numbered in the order in which they were inserted.
    How many blocks or rowids are left to go through; 0 when the old table is gone as well."""
    if is_done(connection):
        return 0
    return _copy_blocks(connection) if _is_postgresql(connection) else _copy_rowids(connection)


def end(connection: sa.Connection) -> None:
    """Bring over the last rows, look whether one is missing, and put the narrow table in the place of the
    old one. Raises SQLAlchemyError when one is."""
    if _is_postgresql(connection):
        connection.exec_driver_sql("LOCK TABLE results IN ACCESS EXCLUSIVE MODE")
    while copy_batch(connection):
        pass
    missing = connection.exec_driver_sql(
        "SELECT count(*) FROM results r WHERE NOT EXISTS (SELECT 1 FROM results_narrow n "
        "WHERE n.task_id = r.task_id AND n.attempt = r.attempt)"
    ).scalar_one()
    if missing:
        raise sa.exc.SQLAlchemyError(f"{missing} rows of results were not copied")
    for statement in (
        "DROP TABLE results",
        "DROP TABLE results_position",
        "ALTER TABLE results_narrow RENAME TO results",
        *(_postgresql_narrower() if _is_postgresql(connection) else _sqlite_narrower()),
    ):
        connection.exec_driver_sql(statement)


def _is_postgresql(connection: sa.Connection) -> bool:
    return connection.dialect.name == "postgresql"


def _copy_blocks(connection: sa.Connection) -> int:
    """By blocks of the old table: rows were only ever inserted, so they stand in that order."""
    start = _position(connection)
    last: int = connection.exec_driver_sql(
        "SELECT pg_relation_size('results') / current_setting('block_size')::bigint"
    ).scalar_one()
    stop = min(start + BLOCKS, last)
    # Numbered from the rows that have no number yet: the last block may have been gone through before.
    connection.exec_driver_sql(
        f"WITH v AS (SELECT {_KEY}, delivery_id, status, stored_at_ms, octet_length(bytes) AS answer_bytes, "  # noqa: S608
        f"sha256(bytes) AS answer_sha256, place FROM (SELECT *, ctid AS place, "
        f"{_BYTES.format(row='')} AS bytes FROM results r "
        f"WHERE ctid >= '({max(start - 1, 0)},0)' AND ctid < '({stop},0)' AND NOT EXISTS "
        "(SELECT 1 FROM results_narrow n WHERE n.task_id = r.task_id AND n.attempt = r.attempt "
        "AND n.seq IS NOT NULL) OFFSET 0) AS wide), "
        "n AS (UPDATE settle_sequence SET value = value + (SELECT count(*) FROM v) RETURNING value) "
        f"INSERT INTO results_narrow ({_ROW}, seq) SELECT {_ROW}, n.value - (SELECT count(*) FROM v) "
        "+ row_number() OVER (ORDER BY stored_at_ms, place) FROM v, n "
        f"ON CONFLICT ({_KEY}) DO UPDATE SET seq = excluded.seq"
    )
    connection.exec_driver_sql(f"UPDATE results_position SET position = {stop}")  # noqa: S608
    return last - stop


def _copy_rowids(connection: sa.Connection) -> int:
    driver: Any = connection.connection.driver_connection
    await_only(driver.create_function("tallyhook_sha256", 1, _sha256, deterministic=True))
    start = _position(connection)
    last = connection.exec_driver_sql("SELECT coalesce(max(rowid), 0) FROM results").scalar_one()
    stop = min(start + ROWIDS, last)
    value = connection.exec_driver_sql(
        f"UPDATE settle_sequence SET value = value + {stop - start} RETURNING value"  # noqa: S608
    ).scalar_one()
    connection.exec_driver_sql(
        f"INSERT INTO results_narrow ({_ROW}, seq) SELECT {_KEY}, delivery_id, status, stored_at_ms, "  # noqa: S608
        "length(CAST(response AS BLOB)), tallyhook_sha256(CAST(response AS BLOB)), "
        f"{value - stop} + rowid FROM results WHERE rowid > {start} AND rowid <= {stop} "
        f"ON CONFLICT ({_KEY}) DO UPDATE SET seq = excluded.seq, answer_sha256 = excluded.answer_sha256"
    )
    connection.exec_driver_sql(f"UPDATE results_position SET position = {stop}")  # noqa: S608
    return int(last - stop)


def _sha256(content: bytes) -> bytes:
    return hashlib.sha256(content).digest()


def _position(connection: sa.Connection) -> int:
    return int(connection.exec_driver_sql("SELECT position FROM results_position").scalar_one())


def _postgresql_copier() -> tuple[str, ...]:
    new = _BYTES.format(row="NEW.")
    return (
        "CREATE FUNCTION results_copy() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "  # noqa: S608
        f"INSERT INTO results_narrow ({_ROW}) VALUES (NEW.task_id, NEW.attempt, NEW.delivery_id, NEW.status, "
        f"NEW.stored_at_ms, octet_length({new}), sha256({new})) ON CONFLICT DO NOTHING; RETURN NULL; END $$",
        "CREATE TRIGGER results_copy AFTER INSERT ON results FOR EACH ROW EXECUTE FUNCTION results_copy()",
    )


def _sqlite_copier() -> tuple[str, ...]:
    return (
        "CREATE TRIGGER results_copy AFTER INSERT ON results BEGIN "  # noqa: S608
        f"INSERT OR IGNORE INTO results_narrow ({_ROW}) VALUES (NEW.task_id, NEW.attempt, NEW.delivery_id, "
        "NEW.status, NEW.stored_at_ms, length(CAST(NEW.response AS BLOB)), NULL); END",
    )


def _postgresql_narrower() -> tuple[str, ...]:
    """What a process of the version before inserts loses its text, and keeps size and hash of it."""
    new = _BYTES.format(row="NEW.")
    return (
        "ALTER INDEX pk_results_narrow RENAME TO pk_results",
        "DROP FUNCTION results_copy()",
        "CREATE FUNCTION results_narrow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"NEW.answer_bytes := octet_length({new}); NEW.answer_sha256 := sha256({new}); "
        "NEW.response := NULL; RETURN NEW; END $$",
        "CREATE TRIGGER results_narrow BEFORE INSERT ON results FOR EACH ROW "
        "WHEN (NEW.response IS NOT NULL) EXECUTE FUNCTION results_narrow()",
        "ANALYZE results",
    )


def _sqlite_narrower() -> tuple[str, ...]:
    """The same, but for the hash, which SQLite cannot make: the sweep does."""
    return (
        "CREATE TRIGGER results_narrow AFTER INSERT ON results WHEN NEW.response IS NOT NULL BEGIN "
        "UPDATE results SET answer_bytes = length(CAST(NEW.response AS BLOB)), response = NULL "
        "WHERE task_id = NEW.task_id AND attempt = NEW.attempt; END",
    )
