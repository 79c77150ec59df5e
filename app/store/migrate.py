"""Brings a database to the newest schema. Several processes may call it at once.

Alembic is imported only to migrate: a process that finds its database as it should be starts without it.
"""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.database import Database
from app.store.finish import finish
from app.store.write.health import database_now
from app.store.write.partitions import PartitionWrites

if TYPE_CHECKING:
    from alembic.config import Config

MIGRATIONS = Path(__file__).parent / "migrations"
_NUMBER = re.compile(r"\d{4}")
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

    from alembic import command
    from alembic.migration import MigrationContext

    def upgrade(connection: sa.Connection) -> bool:
        revision = MigrationContext.configure(connection).get_current_revision()
        if is_migrated(revision):
            return False
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return revision is None

    async def upgrade_alone(connection: AsyncConnection) -> bool:
        # SQLite's write lock, PostgreSQL's advisory lock: the second process waits, then finds nothing to do.
        if not db.is_sqlite:
            await connection.execute(sa.text("SELECT pg_advisory_xact_lock(:id)"), {"id": LOCK_ID})
        return await connection.run_sync(upgrade)

    # Again after a deadlock with a process that works meanwhile.
    if await db.write(upgrade_alone, long=True):
        await finish(db)
    if not db.is_sqlite:
        now_ms = await db.read(lambda connection: connection.scalar(sa.select(database_now(db))))
        await PartitionWrites(db).add_partitions(int(now_ms or 0))
