"""Makes `deliveries` a partitioned table on PostgreSQL, without copying a row: the table of before becomes
the partition of all that is older than a day ahead of now.

So that attaching it need not read it under a lock, a CHECK says first that it holds nothing younger, and is
validated beside all work. The rest is one short transaction. Whichever step is cut short, the next call goes
on from there.
"""

import re
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.time_format import DAY_MS
from app.ports import StoreUnavailable
from app.store.database import Database
from app.store.days import day_of, first_id, time_of
from app.store.write.health import database_now
from app.store.write.partitions import (
    AHEAD_DAYS,
    BEHIND_DAYS,
    DEFAULT,
    attach_day,
    create_like_deliveries,
    day_name,
    in_turn,
    is_partitioned,
    missing_days,
    partitions_of,
)

CHECK = "ck_deliveries_older"
STALE_MS = DAY_MS
"""The check of a call that was killed refuses deliveries when its day has come; so long before, it is taken
away. A call that runs has a week."""
_CHECK = """
    SELECT pg_get_constraintdef(oid) AS text, convalidated FROM pg_constraint
    WHERE conrelid = to_regclass('deliveries') AND conname = :name
"""
_INDEXES = """
    SELECT c.relname, i.indisprimary, pg_get_indexdef(i.indexrelid) AS text FROM pg_index i
    JOIN pg_class c ON c.oid = i.indexrelid WHERE i.indrelid = to_regclass('deliveries')
"""
_GRANTS = """
    SELECT privilege_type, is_grantable,
        CASE grantee WHEN 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS grantee,
        quote_ident(pg_get_userbyid(relowner)) AS owner
    FROM pg_class, aclexplode(coalesce(relacl, acldefault('r', relowner)))
    WHERE oid = to_regclass('{table}')
"""
_LIKE = "INCLUDING DEFAULTS INCLUDING GENERATED INCLUDING STORAGE INCLUDING COMPRESSION INCLUDING COMMENTS"


@dataclass(frozen=True, slots=True)
class _Check:
    until_ms: int
    is_valid: bool


async def is_unpartitioned(db: Database) -> bool:
    """Whether the table is there and is plain; never on SQLite."""
    if db.is_sqlite:
        return False
    query = sa.text("SELECT relkind = 'r' FROM pg_class WHERE oid = to_regclass('deliveries')")
    return bool(await db.read(lambda connection: connection.scalar(query)))


async def partition_deliveries(db: Database) -> None:
    """Do it, unless it is done. Raises StoreUnavailable when somebody holds the table for too long."""
    while await is_unpartitioned(db):
        if not _had(await in_turn(db, lambda connection: _swap(db, connection))):
            _had(await in_turn(db, lambda connection: _bound(db, connection)))
            await db.write(_validate, long=True)


async def drop_stale_check(db: Database, now_ms: int) -> bool:
    """Take away the check of a call that was killed and not made again, before it refuses deliveries."""
    if not await is_unpartitioned(db):
        return False
    check = await db.read(_check)
    if check is None or check.until_ms - now_ms > STALE_MS:
        return False
    drop = sa.text(f"ALTER TABLE deliveries DROP CONSTRAINT IF EXISTS {CHECK}")
    return await in_turn(db, lambda connection: connection.execute(drop)) is not None


def _had(done: bool | None) -> bool:
    if done is None:
        raise StoreUnavailable("somebody works on the table deliveries for longer than is waited: try again")
    return done


async def _check(connection: AsyncConnection) -> _Check | None:
    row = (await connection.execute(sa.text(_CHECK), {"name": CHECK})).one_or_none()
    bound = re.search(r"[0-9a-f-]{36}", row.text) if row is not None else None
    return None if row is None or bound is None else _Check(time_of(bound[0]), row.convalidated)


async def _bound(db: Database, connection: AsyncConnection) -> bool:
    """Say that no row is younger than a week from now; whoever writes keeps to it from here on."""
    await connection.execute(sa.text("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"))
    if await is_partitioned(connection):
        return True
    now = int(await connection.scalar(sa.select(database_now(db))) or 0)
    check = await _check(connection)
    if check is not None and check.until_ms - now > STALE_MS:
        return True
    youngest = await connection.scalar(sa.text("SELECT id FROM deliveries ORDER BY id DESC LIMIT 1"))
    # Of a clock that was wrong there may be younger ones than now.
    last_ms = max(now, time_of(str(youngest)) if youngest is not None else 0)
    bound = first_id(day_of(last_ms) + (AHEAD_DAYS + 1) * DAY_MS)
    await connection.execute(sa.text(f"ALTER TABLE deliveries DROP CONSTRAINT IF EXISTS {CHECK}"))
    await connection.execute(
        sa.text(f"ALTER TABLE deliveries ADD CONSTRAINT {CHECK} CHECK (id < '{bound}') NOT VALID")
    )
    return True


async def _validate(connection: AsyncConnection) -> None:
    """Read the whole table beside all work: the lock keeps out only others that change the table."""
    await connection.execute(sa.text("LOCK TABLE deliveries IN SHARE UPDATE EXCLUSIVE MODE"))
    if await _check(connection) is not None:
        await connection.execute(sa.text(f"ALTER TABLE deliveries VALIDATE CONSTRAINT {CHECK}"))


async def _swap(db: Database, connection: AsyncConnection) -> bool:
    """Put the partitioned table in the place of the plain one; False: a check must be validated first."""
    await connection.execute(sa.text("LOCK TABLE deliveries IN ACCESS EXCLUSIVE MODE"))
    if await is_partitioned(connection):
        return True
    now = int(await connection.scalar(sa.select(database_now(db))) or 0)
    check = await _check(connection)
    if check is not None and check.is_valid:
        until_ms = check.until_ms
    elif await connection.scalar(sa.text("SELECT EXISTS (SELECT 1 FROM deliveries)")):
        return False
    else:
        until_ms = day_of(now) - BEHIND_DAYS * DAY_MS
    old = await _replace_table(connection, until_ms)
    await connection.execute(
        sa.text(
            f"ALTER TABLE deliveries ATTACH PARTITION {old}"
            f" FOR VALUES FROM (MINVALUE) TO ('{first_id(until_ms)}')"
        )
    )
    await connection.execute(sa.text(f"ALTER TABLE {old} DROP CONSTRAINT IF EXISTS {CHECK}"))
    await create_like_deliveries(connection, DEFAULT)
    await connection.execute(sa.text(f"ALTER TABLE deliveries ATTACH PARTITION {DEFAULT} DEFAULT"))
    for day_ms in missing_days(await partitions_of(connection), now):
        await attach_day(connection, day_ms)
    return True


async def _replace_table(connection: AsyncConnection, until_ms: int) -> str:
    """Rename table and indexes, and make a partitioned table with theirs; the new name of the old one."""
    old = f"deliveries_before_{day_name(until_ms)}"
    indexes = (await connection.execute(sa.text(_INDEXES))).all()
    await connection.execute(sa.text(f"ALTER TABLE deliveries RENAME TO {old}"))
    for index in indexes:
        await connection.execute(sa.text(f"ALTER INDEX {index.relname} RENAME TO {old}_{index.relname}"))
    await connection.execute(sa.text(f"CREATE TABLE deliveries (LIKE {old} {_LIKE}) PARTITION BY RANGE (id)"))
    for index in indexes:
        text = f"ALTER TABLE deliveries ADD CONSTRAINT {index.relname} PRIMARY KEY (id)"
        await connection.exec_driver_sql(text if index.indisprimary else index.text)
    grants = (await connection.execute(sa.text(_GRANTS.format(table=old)))).all()
    for grant in grants:
        option = " WITH GRANT OPTION" if grant.is_grantable else ""
        text = f"GRANT {grant.privilege_type} ON deliveries TO {grant.grantee}{option}"
        await connection.execute(sa.text(text))
    await connection.execute(sa.text(f"ALTER TABLE deliveries OWNER TO {grants[0].owner}"))
    return old
