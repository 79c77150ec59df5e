"""Brings a database to the newest schema. Several processes may call it at once.

Alembic, and what migrations alone need, is imported only to migrate: a process that finds its database as it
should be starts without it.
"""

import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.logger import get_logger
from app.store.database import Database

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_NUMBER = re.compile(r"\d{4}")
T = TypeVar("T")
PROGRESS_S = 10.0
log = get_logger(__name__)
LOCK_ID = 0x7A11_4800
"""Any fixed number: PostgreSQL's advisory lock that one migrating process holds."""


def is_compared(name: str | None, kind: str, _parents: object) -> bool:
    """Whether a table is compared with those of the code: partitions are made as days come."""
    return kind != "table" or not (name or "").startswith("deliveries_")


def alembic_config() -> "Config":
    """Alembic, configured with where the migrations are; there is no alembic.ini."""
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(MIGRATIONS))
    return config


def newest_revision() -> str:
    """The revision that this code needs: each migration's file begins with its number, the newest last."""
    return max(file.name for file in (MIGRATIONS / "versions").glob("[0-9]*.py")).partition("_")[0]


def is_migrated(revision: str | None) -> bool:
    """Whether this code can work on a database at that revision. Migrations only add, so it can on a newer
    one: processes of two versions run side by side while one is deployed, and after it is taken back. What
    is no number is some other program's."""
    return revision is not None and _NUMBER.fullmatch(revision) is not None and revision >= newest_revision()


async def migrate(db: Database) -> None:
    """Upgrade to the newest revision; nothing to do is quick and harmless. A newer one stays as it is. What
    is made from nothing is finished at once, as no process of the version before can know it."""
    if db.sqlite_path:
        Path(db.sqlite_path).parent.mkdir(parents=True, exist_ok=True)
    revision = await _alone(db, _revision)
    if revision is not None and _NUMBER.fullmatch(revision) and revision < "0013":
        await _upgrade(db, "0012")
        await _narrow_results(db)
    if not is_migrated(revision) and await _upgrade(db, newest_revision()):
        from app.store.finish import finish

        await finish(db)
    if not db.is_sqlite:
        from app.store.write.health import database_now
        from app.store.write.partitions import PartitionWrites

        now_ms = await db.read(lambda connection: connection.scalar(sa.select(database_now(db))))
        await PartitionWrites(db).add_partitions(int(now_ms or 0))


async def _upgrade(db: Database, target: str) -> bool:
    """Whether the database was made from nothing."""
    from alembic import command

    def upgrade(connection: sa.Connection) -> bool:
        revision = _revision(connection)
        if revision is not None and _NUMBER.fullmatch(revision) and revision >= target:
            return False
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, target)
        return revision is None

    return await _alone(db, upgrade)


async def _narrow_results(db: Database) -> None:
    """All of revision 0013 that takes long, in short transactions."""
    from app.store.migrations import narrow_results

    if not await _alone(db, narrow_results.begin):
        return
    told_s, begun_s = time.monotonic(), time.monotonic()
    while left := await _alone(db, narrow_results.copy_batch):
        if time.monotonic() - told_s > PROGRESS_S:
            told_s = time.monotonic()
            log.info("results_being_copied", left=left, seconds=round(told_s - begun_s))


def _revision(connection: sa.Connection) -> str | None:
    # As Alembic reads it; but that takes a tenth of a second to import, and every command asks.
    if not sa.inspect(connection).has_table("alembic_version"):
        return None
    revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
    return revision


async def _alone(db: Database, work: Callable[[sa.Connection], T]) -> T:
    """In one transaction, while no other process migrates; again after a deadlock with one that works."""

    async def locked(connection: AsyncConnection) -> T:
        # SQLite's write lock, PostgreSQL's advisory lock: the second process waits, then finds nothing to do.
        if not db.is_sqlite:
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
        return await connection.run_sync(work)

    return await db.write(locked, long=True)
