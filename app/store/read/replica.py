"""How far a streaming standby is behind its primary, of which nothing is asked but its place in the WAL."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.part import StorePart, reads


@dataclass(frozen=True, slots=True)
class Replay:
    """Where a server stands."""

    is_standby: bool
    lsn: str
    """In the WAL: of a standby as far as it has replayed, else as far as it has written."""
    behind_s: float
    """Since the last transaction that was replayed was committed, while more of the WAL is here that was not;
    0 on a primary. What has not even come is unknown to the standby."""


class ReplicaReads(StorePart):
    """Part of the store, on PostgreSQL."""

    @reads
    async def replay(self, connection: AsyncConnection) -> Replay:
        """Of the server that this store is on."""
        row = (await connection.execute(_REPLAY)).one()
        return Replay(bool(row.standby), str(row.lsn), max(0.0, float(row.behind_s)))

    @reads
    async def bytes_between(self, connection: AsyncConnection, later: str, earlier: str) -> int:
        """Of the WAL, from one place to a later one."""
        return int(await connection.scalar(_BETWEEN, {"later": later, "earlier": earlier}) or 0)


_REPLAY = sa.text("""
    SELECT pg_is_in_recovery() AS standby,
        CAST(
            CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END AS text
        ) AS lsn,
        CASE WHEN NOT pg_is_in_recovery() THEN 0
             -- Without a receiver it has all that it got, and nobody knows what else there is.
             WHEN pg_last_wal_receive_lsn() <= pg_last_wal_replay_lsn()
                 AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
             ELSE coalesce(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp()), 0)
        END AS behind_s
""")
_BETWEEN = sa.text("""
    SELECT pg_wal_lsn_diff(CAST(CAST(:later AS text) AS pg_lsn), CAST(CAST(:earlier AS text) AS pg_lsn))
""")
