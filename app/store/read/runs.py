"""Reads of runs and of what is under way. Nothing here writes. A run's counts are read in progress, its books
in reports, its rows in exports.
"""

from dataclasses import dataclass
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.task import RunState
from app.store.part import reads
from app.store.read.progress import ProgressReads, RunProgress
from app.store.tables import (
    IS_OPEN,
    IS_OPEN_RUN,
    IS_PENDING,
    IS_WAITING,
    REASON_CODE,
    deliveries,
    is_due,
    is_not_ahead,
    runs,
    tasks,
)
from app.store.write.claims import is_free
from app.store.write.engine_pauses import held_back
from app.store.write.health import database_now


@dataclass(frozen=True, slots=True)
class RunRow:
    """A run as its row says."""

    id: str
    name: str
    source: str
    state: str
    """domain.task.RunState; finished as soon as none of its tasks is open."""
    reason: str | None
    budget: Decimal | None
    bad_lines: int
    created_at_ms: int
    account: str
    restored: bool
    reason_code: str | None
    """domain.run_reason.ReasonCode of `reason`."""
    finished_at_ms: int | None = None
    """When the last of its tasks was closed; None: one is open, or it was closed within the last seconds."""
    retained_at_ms: int | None = None
    """Since when nothing of it is pruned; None: it may be."""


@dataclass(slots=True)
class RunReport:
    """All that the books say about one run."""

    run: RunRow
    progress: RunProgress
    verdicts: dict[str, int]
    """Verdicts of settled tasks, and findings of the kinds alongside a task's own verdict."""
    duplicates: int
    swept: int
    recovered_submits: int
    held: Decimal
    posted: Decimal
    voided: Decimal
    unknown: int
    """Attempts whose money is open though their work is closed."""
    reused: int = 0
    """Tasks that an equal result of before answers, for nothing."""


class Queries(ProgressReads):
    """Part of the store."""

    @reads
    async def list_runs(self, connection: AsyncConnection, limit: int = 50) -> list[RunRow]:
        """The newest runs first. One that a wrong clock dated ahead stands behind all others: when it was,
        nobody knows, and it must not be `latest` until its time has come."""
        newest = sa.select(*RUN_COLUMNS).order_by(runs.c.created_at_ms.desc())
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        has_been = is_not_ahead(runs.c.created_at_ms, now)
        rows = list(await connection.execute(newest.where(has_been).limit(limit)))
        if len(rows) < limit:
            rows += await connection.execute(newest.where(~has_been).limit(limit - len(rows)))
        return [RunRow(*tuple(row)) for row in rows]

    @reads
    async def latest_run(self, connection: AsyncConnection) -> RunRow | None:
        """The newest run that has sent something, or will: none that is still being read, or was cancelled
        before. One that a wrong clock dated ahead stands behind all others."""
        now = int(await connection.scalar(sa.select(database_now(self.db))) or 0)
        was_sent = sa.exists().where(tasks.c.run_id == runs.c.id, tasks.c.first_sent_at_ms.is_not(None))
        query = (
            sa.select(*RUN_COLUMNS)
            .where(runs.c.state != RunState.LOADING, sa.or_(runs.c.state != RunState.CANCELLED, was_sent))
            .order_by(is_not_ahead(runs.c.created_at_ms, now).desc(), runs.c.created_at_ms.desc())
            .limit(1)
        )
        row = (await connection.execute(query)).one_or_none()
        return RunRow(*tuple(row)) if row else None

    @reads
    async def loading_run(self, connection: AsyncConnection, source: str) -> RunRow | None:
        """The newest run of which not all is read; one of `source` before others. Without those of schedules,
        which workers go on with."""
        query = (
            sa.select(*RUN_COLUMNS)
            .where(runs.c.state == RunState.LOADING, runs.c.schedule_id.is_(None))
            .order_by((runs.c.source == source).desc(), runs.c.created_at_ms.desc())
            .limit(1)
        )
        row = (await connection.execute(query)).one_or_none()
        return RunRow(*tuple(row)) if row else None

    @reads
    async def find_runs(self, connection: AsyncConnection, name_or_id: str) -> list[RunRow]:
        """Runs whose id is, or begins or ends with, the given text, or whose name it is; newest first. A name
        comes before the parts of ids that it might be."""
        named = await _runs_where(connection, runs.c.name == name_or_id)
        wanted = name_or_id.lower().replace("-", "")
        if named or len(wanted) < 4 or any(c not in "0123456789abcdef" for c in wanted):
            return named
        as_text = sa.func.lower(sa.func.replace(sa.cast(runs.c.id, sa.Text), "-", ""))
        return await _runs_where(connection, sa.or_(as_text.startswith(wanted), as_text.endswith(wanted)))

    @reads
    async def waiting_count(self, connection: AsyncConnection) -> int:
        """Deliveries that are not settled yet."""
        query = sa.select(sa.func.count()).where(IS_WAITING)
        return await connection.scalar(query) or 0

    @reads
    async def stray_count(self, connection: AsyncConnection) -> int:
        """Deliveries that fit no task, or that could not be read: of no run, so in no run's report."""
        strays = sa.or_(
            deliveries.c.effect == "unmatched", deliveries.c.state.in_(("unmatched", "quarantined"))
        )
        # None of them has a task, and an index tells which have none.
        query = sa.select(sa.func.count()).where(strays, deliveries.c.task_id.is_(None))
        return await connection.scalar(query) or 0

    @reads
    async def accounts_with_due(self, connection: AsyncConnection, now_ms: int) -> list[str]:
        """Accounts that have something to send now."""
        some = sa.exists().where(tasks.c.run_id == runs.c.id, IS_OPEN, IS_PENDING, is_due(now_ms), is_free())
        if (waits := await held_back(connection, now_ms)) is not None:
            some = some.where(~waits)
        query = sa.select(runs.c.account).where(IS_OPEN_RUN, runs.c.state == RunState.RUNNING)
        due = query.where(some.correlate(runs)).distinct()
        return sorted((await connection.scalars(due)).all())

    async def unsafe_settings(self) -> list[str]:
        """Settings of the server with which it may forget what it has committed, as they stand: "fsync=off".
        SQLite's are ours (engine.py)."""
        return [] if self.db.is_sqlite else await self._unsafe_postgres_settings()

    @reads
    async def _unsafe_postgres_settings(self, connection: AsyncConnection) -> list[str]:
        query = sa.text("SELECT name, setting FROM pg_settings WHERE name = ANY(:names) ORDER BY name")
        rows = await connection.execute(query, {"names": list(_DURABLE)})
        return [f"{row.name}={row.setting}" for row in rows if row.setting == "off"]

    async def why_read_only(self) -> str | None:
        """Why the server takes no writes: STANDBY, or the setting and where it was set. None: it does."""
        return None if self.db.is_sqlite else await self._why_postgres_is_read_only()

    @reads
    async def _why_postgres_is_read_only(self, connection: AsyncConnection) -> str | None:
        query = sa.text(
            "SELECT pg_is_in_recovery() AS standby, current_setting('transaction_read_only') AS read_only,"
            " source FROM pg_settings WHERE name = 'default_transaction_read_only'"
        )
        row = (await connection.execute(query)).one()
        if row.standby:
            return STANDBY
        if row.read_only != "on":
            return None
        return f"default_transaction_read_only=on, from: {row.source}"

    @reads
    async def schema_revision(self, connection: AsyncConnection) -> str | None:
        """The migration the database stands at; None when it was never migrated."""
        if not await connection.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
            return None
        version = await connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
        return None if version is None else str(version)


async def _runs_where(connection: AsyncConnection, condition: sa.ColumnElement[bool]) -> list[RunRow]:
    query = sa.select(*RUN_COLUMNS).where(condition).order_by(runs.c.created_at_ms.desc())
    return [RunRow(*tuple(row)) for row in await connection.execute(query)]


STANDBY = "standby"
_DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
_IS_OVER = sa.and_(
    runs.c.state.in_((RunState.RUNNING, RunState.PAUSED, RunState.STOPPED)),
    ~sa.exists().where(tasks.c.run_id == runs.c.id, IS_OPEN),
)
"""The row of such a run says so within seconds; whoever asks hears of it at once."""
RUN_COLUMNS = (
    runs.c.id,
    runs.c.name,
    runs.c.source,
    sa.case((_IS_OVER, sa.literal_column(f"'{RunState.FINISHED}'")), else_=runs.c.state).label("state"),
    runs.c.reason,
    runs.c.budget,
    runs.c.bad_lines,
    runs.c.created_at_ms,
    runs.c.account,
    runs.c.restored,
    REASON_CODE,
    runs.c.finished_at_ms,
    runs.c.retained_at_ms,
)
