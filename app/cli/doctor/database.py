"""What the doctor says of the database itself."""

import tempfile
from pathlib import Path

from app.cli.doctor.check import Check
from app.cli.doctor.clocks import Clocks
from app.cli.doctor.stored import has_database, reach
from app.cli.store_access import answered, display_url
from app.config import Settings
from app.errors import UserError
from app.settings_text import refuse_folder
from app.store.migrate import is_migrated, newest_revision
from app.store.read.runs import STANDBY

TRIED_BYTES = 65_536
"""As large as a delivery is at most, but for the rarest: some room is always left over on a full disk."""


async def check_database(settings: Settings, clocks: Clocks | None = None) -> Check:
    """Reachable, taking writes, at a schema that this code can work on, and keeping what it commits."""
    name = "database"
    if not has_database(settings):
        return _check_data_dir(name, settings)
    try:
        store = await reach(settings)
        try:
            revision = await answered(store.queries.schema_revision(), settings)
            if clocks is not None and not store.db.is_sqlite:  # whose clock is this machine's
                asked = clocks.ask()
                clocks.note("database", await answered(store.health.database_ms(), settings), asked)
            if (refused := await answered(store.queries.why_read_only(), settings)) is not None:
                return Check(name, "fault", *_read_only(refused, display_url(settings)))
            unsafe = await answered(store.queries.unsafe_settings(), settings)
            if is_migrated(revision):
                # Kept and taken away again: what is rolled back never meets a full disk.
                await answered(store.health.try_write(keep=True, bytes_wanted=TRIED_BYTES), settings)
        finally:
            await store.close()
    except UserError as error:
        return Check(name, "fault", error.message, error.remedy)
    if not is_migrated(revision):
        detail = f"{display_url(settings)} is at revision {revision}, needed is {newest_revision()}"
        if not settings.database_url:
            return Check(name, "ok", detail + "; the next command brings it there")
        return Check(name, "fault", detail, "run: tallyhook migrate")
    if unsafe:
        detail = f"{display_url(settings)} may forget what it has committed: {', '.join(unsafe)}"
        if "synchronous_commit=off" in unsafe:
            remedy = "set it on for this database or role: what it forgets was acknowledged"
            return Check(name, "fault", detail, remedy)
        return Check(name, "warning", detail, "set on what your storage does not make up for by itself")
    newer = "" if revision == newest_revision() else f", newer than the {newest_revision()} that this needs"
    return Check(name, "ok", f"{display_url(settings)} at revision {revision}{newer}")


def _check_place(name: str, data_dir: Path) -> Check:
    """Where the embedded database is to be made: something is made there, and taken away again."""
    there = next(path for path in (data_dir, *data_dir.parents) if path.exists())
    try:
        Path(tempfile.mkdtemp(prefix="tallyhook-doctor-", dir=there)).rmdir()
    except OSError as error:
        detail = f"cannot make the embedded SQLite in {data_dir}: {error.strerror}"
        return Check(name, "fault", detail, "set TALLYHOOK_DATA_DIR to a directory that can be written to")
    return Check(name, "ok", "embedded SQLite; the first command makes it")


def _read_only(reason: str, url: str) -> tuple[str, str]:
    """(what is wrong, what to do about it)."""
    if reason == STANDBY:
        remedy = (
            "name the primary in DATABASE_URL, or all hosts with target_session_attrs=read-write; or promote "
            "this one"
        )
        return f"{url} is a standby (pg_is_in_recovery), which takes no writes", remedy
    remedy = (
        "reset it where it was set: ALTER DATABASE, ALTER ROLE or the server's own settings; a service that "
        "sets it by itself wants room on its disk first"
    )
    return f"{url} takes no writes: every transaction begins read-only ({reason})", remedy


def _check_data_dir(name: str, settings: Settings) -> Check:
    try:
        refuse_folder(settings.data_dir, str(settings.data_dir.absolute()))
    except ValueError as error:
        return Check(
            name, "fault", str(error).partition(": ")[0], "set TALLYHOOK_DATA_DIR to another directory"
        )
    return _check_place(name, settings.data_dir.absolute())
