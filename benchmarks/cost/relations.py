"""Bytes of every table and every index, TOAST and partitions included, as they lie when a run is over."""

import asyncio
import sqlite3
from pathlib import Path
from typing import Any

import asyncpg  # type: ignore[import-untyped]

from benchmarks.bench.counts import LOOKER
from benchmarks.bench.rig import Rig

Relations = dict[str, int]
"""Bytes by name: a table, `table toast`, `table.index`."""

# A partition counts as its table, its index as the table's index that it is a part of.
POSTGRESQL = """
    SELECT CASE
        WHEN c.relkind = 'i' THEN t.name || '.' || coalesce(p.relname, c.relname)
        ELSE t.name END AS name,
      pg_relation_size(c.oid) + pg_relation_size(c.oid, 'fsm') + pg_relation_size(c.oid, 'vm') AS bytes,
      CASE WHEN c.reltoastrelid <> 0 THEN pg_total_relation_size(c.reltoastrelid) ELSE 0 END AS toast
    FROM pg_class c
    LEFT JOIN pg_index x ON x.indexrelid = c.oid
    LEFT JOIN pg_inherits h ON h.inhrelid = c.oid AND c.relkind = 'i'
    LEFT JOIN pg_class p ON p.oid = h.inhparent
    CROSS JOIN LATERAL (
      SELECT coalesce(whole.relname, own.relname) AS name
      FROM pg_class own
      LEFT JOIN pg_inherits i ON i.inhrelid = own.oid
      LEFT JOIN pg_class whole ON whole.oid = i.inhparent
      WHERE own.oid = coalesce(x.indrelid, c.oid)) t
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'i')
"""
SQLITE = """
    SELECT CASE WHEN m.type = 'index' THEN m.tbl_name || '.' || m.name ELSE m.name END, sum(s.pgsize)
    FROM dbstat s JOIN sqlite_schema m ON m.name = s.name GROUP BY 1
"""
FREE = "(free pages)"


def relations(rig: Rig, url: str) -> Relations:
    """Of one database; nobody may be writing to it."""
    return _of_sqlite(url) if rig.is_sqlite else asyncio.run(_ask_postgresql(url))


def by_table(found: Relations) -> Relations:
    """Tables with all that belongs to them."""
    summed: Relations = {}
    for name, size_bytes in found.items():
        table = name.partition(".")[0].removesuffix(" toast")
        summed[table] = summed.get(table, 0) + size_bytes
    return summed


async def _ask_postgresql(url: str) -> Relations:
    connection = await asyncpg.connect(url, user=LOOKER)
    try:
        return await of_postgresql(connection)
    finally:
        await connection.close()


async def of_postgresql(connection: Any) -> Relations:
    """Of the database that the connection of asyncpg is on."""
    found: Relations = {}
    for name, size_bytes, toast_bytes in await connection.fetch(POSTGRESQL):
        found[name] = found.get(name, 0) + size_bytes
        if toast_bytes:
            found[f"{name} toast"] = found.get(f"{name} toast", 0) + toast_bytes
    return found


def _of_sqlite(url: str) -> Relations:
    path = url.removeprefix("sqlite:///")
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        found = {str(name): int(size_bytes) for name, size_bytes in connection.execute(SQLITE)}
    finally:
        connection.close()
    return found | {FREE: Path(path).stat().st_size - sum(found.values())}
