"""The replica that reads go to: reachable, at the schema, and how far behind."""

from app.bootstrap import reads_settings
from app.cli.doctor.check import Check
from app.cli.store_access import answered, display_url, reachable_store
from app.config import Settings
from app.errors import UserError
from app.store import Store
from app.store.migrate import is_migrated

NAME = "replica"
BEHIND_BYTES_MAX = 64 * 1024 * 1024
"""Some four WAL files: more is no moment's lag."""
BEHIND_S_MAX = 60.0


async def check_replica(settings: Settings) -> list[Check]:
    """Nothing where none is set."""
    if not settings.database_read_url:
        return []
    try:
        replica = await reachable_store(reads_settings(settings))
        try:
            if not is_migrated(await answered(replica.queries.schema_revision(), reads_settings(settings))):
                detail = f"{display_url(reads_settings(settings))} does not have the schema that this needs"
                return [Check(NAME, "fault", detail, "name a standby of DATABASE_URL's server that replays")]
            return [await _lag(settings, replica)]
        finally:
            await replica.close()
    except UserError as error:
        return [Check(NAME, "fault", error.message, error.remedy)]


async def _lag(settings: Settings, replica: Store) -> Check:
    place = display_url(reads_settings(settings))
    primary = await reachable_store(settings)
    try:
        ahead = await answered(primary.replica.replay(), settings)
        replay = await answered(replica.replica.replay(), reads_settings(settings))
        if not replay.is_standby:
            detail = f"{place} is no standby: nothing is behind there"
            return Check(NAME, "warning", detail, "unset DATABASE_READ_URL, or let it name a standby")
        missing = await answered(primary.replica.bytes_between(ahead.lsn, replay.lsn), settings)
    finally:
        await primary.close()
    detail = f"{place} is {max(0, missing):,} bytes of WAL and {replay.behind_s:.1f} s behind"
    if missing > BEHIND_BYTES_MAX or replay.behind_s > BEHIND_S_MAX:
        remedy = "look at pg_stat_replication, and at long queries there that replay waits for"
        return Check(NAME, "warning", detail, remedy)
    return Check(NAME, "ok", detail)
