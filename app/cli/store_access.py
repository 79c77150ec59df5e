"""Opening the store for a command: reachable and at the schema that this code needs, or a clear word."""

import contextlib
import os
from collections.abc import AsyncIterator, Awaitable
from pathlib import Path
from typing import TypeVar

from sqlalchemy.exc import ArgumentError, InterfaceError, NoSuchModuleError, OperationalError, SQLAlchemyError

from app.address import read_database_address
from app.bootstrap import CLOCK, open_store, reads_settings
from app.config import Settings
from app.errors import UserError
from app.ports import StoreRefused, StoreUnavailable
from app.store import Store
from app.store.database import SQLITE_BUSY_MS
from app.store.driver_errors import (
    DISK_FAILS,
    DISK_FULL,
    READ_ONLY,
    postgresql_errors,
    sqlstate_of,
    why_no_writes,
)
from app.store.migrate import is_migrated, migrate

T = TypeVar("T")


def trouble(*others: type[BaseException]) -> tuple[type[BaseException], ...]:
    """What a database is to blame for, or its URL, whatever else a command does. An OSError is not: a file, a
    provider or the output may have raised it; the store raises those of its connections as
    StoreUnavailable. `others`: what else is caught."""
    own = (ArgumentError, NoSuchModuleError, OperationalError, InterfaceError, StoreUnavailable)
    return (*own, *postgresql_errors(), *others)


def asked(*others: type[BaseException]) -> tuple[type[BaseException], ...]:
    """The same where nothing but the database is asked."""
    return trouble(OSError, *others)


@contextlib.asynccontextmanager
async def opened_store(settings: Settings) -> AsyncIterator[Store]:
    """The store, closed at the end. The embedded SQLite file is brought to the newest schema by itself; a
    database of the user's own is not. Raises UserError."""
    store = await reachable_store(settings)
    try:
        if not is_migrated(await answered(store.queries.schema_revision(), settings)):
            if settings.database_url:
                raise UserError(
                    "database_not_migrated",
                    f"the database at {display_url(settings)} does not have the schema that this "
                    "version needs",
                    "run: tallyhook migrate",
                )
            await upgrade(store, settings)
        await answered(CLOCK.read(store.health.database_ms), settings)
        yield store
    finally:
        await store.close()


@contextlib.asynccontextmanager
async def opened_replica(settings: Settings) -> AsyncIterator[Store | None]:
    """The store that lists and exports are read from, closed at the end; None where there is no replica. It
    is not asked for anything here, so nobody's start waits for it."""
    if reads_settings(settings) is settings:
        yield None
        return
    store = await reachable_store(reads_settings(settings))
    try:
        yield store
    finally:
        await store.close()


DATABASE_NAME = "tallyhook.db"


async def reachable_store(settings: Settings, *, sqlite_busy_ms: int = SQLITE_BUSY_MS) -> Store:
    """The store, whatever its schema; nothing was asked of it yet. Raises UserError for a wrong URL."""
    try:
        if not settings.database_url:
            keep_private(settings.data_dir)
        store = await open_store(settings, migrated=False, sqlite_busy_ms=sqlite_busy_ms)
        refuse_if_unopenable(store)
        return store
    except asked(ImportError, TypeError) as error:  # a driver that is missing, an option it has not
        raise unreachable(settings, error) from error


def keep_private(data_dir: Path) -> None:
    """Make the directory of the embedded database, for this user alone; also one that an earlier version made
    for all, and the database in it. SQLite gives its other files the rights of the database."""
    data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    # Somebody else's, or on a file system without rights: then it is as it is.
    with contextlib.suppress(OSError):
        if data_dir.stat().st_mode & 0o077 and _is_all_ours(data_dir):
            data_dir.chmod(0o700)
    database = data_dir / DATABASE_NAME
    if database.is_dir():
        raise IsADirectoryError(f"{database} is a directory")
    # Not opened where it is there: closing it would let go of the locks of this process's other connections.
    with contextlib.suppress(FileExistsError):
        os.close(os.open(database, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600))
    with contextlib.suppress(OSError):
        if database.stat().st_mode & 0o077:
            database.chmod(0o600)


def _is_all_ours(data_dir: Path) -> bool:
    """Whether a directory holds our database and nothing that we did not make: /tmp, a home or any other
    directory that others use too must keep its rights."""
    names = {path.name for path in data_dir.iterdir()}
    return DATABASE_NAME in names and all(
        name in ("valkey", "up") or name.startswith(DATABASE_NAME) for name in names
    )


def refuse_if_unopenable(store: Store) -> None:
    """Raises OSError for an SQLite file that cannot be opened. Asked before the driver is: after a failed
    connect its thread still answers a loop that may be closed by then."""
    database = store.db.sqlite_path
    if not database:
        return
    folder = Path(database).absolute().parent
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no {folder}")
    if not os.access(database if Path(database).exists() else folder, os.R_OK | os.W_OK):
        raise PermissionError(f"{database} may not be read and written")
    if Path(database).is_dir():
        raise IsADirectoryError(f"{database} is a directory")


async def answered(answer: Awaitable[T], settings: Settings) -> T:
    """What the store answers. Raises UserError when the database does not."""
    try:
        return await answer
    except asked() as error:
        raise unreachable(settings, error) from error


async def upgrade(store: Store, settings: Settings) -> None:
    """Bring the database to the newest schema. Raises UserError; then it is as it was before."""
    try:
        await migrate(store.db)
    except _not_ours() as error:
        raise UserError(
            "migration_failed",
            f"the database at {display_url(settings)} is at no revision of ours, and is as before: {error}",
            "another program keeps its tables there: give Tallyhook a database of its own",
        ) from error
    except asked() as error:
        raise unreachable(settings, error) from error
    except SQLAlchemyError as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            "migration_failed",
            f"the database at {display_url(settings)} could not be migrated, and is as before: {reason}",
            "this is a bug: please report it; the version before goes on working",
        ) from error


def _not_ours() -> type[Exception]:
    """What Alembic says of a revision that it does not know; looked up when something was raised."""
    from alembic.util import CommandError

    return CommandError


def unreachable(settings: Settings, error: BaseException) -> UserError:
    """What to say when the database does not answer."""
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else "no answer in time" if isinstance(error, TimeoutError) else "no answer"
    if "disk image is malformed" in reason:
        return UserError(
            "database_refused",
            f"{display_url(settings)} is damaged: {reason}",
            "end web and worker, keep a copy of it and of its -wal and -shm, and put a backup in its place",
        )
    if "database is locked" in reason:
        return UserError(
            "database_unreachable",
            f"another process keeps {display_url(settings)} locked",
            "end its transaction: a shell of sqlite3, a backup, or a program that hangs (fuser names it)",
        )
    if "file is not a database" in reason:
        return UserError(
            "database_refused",
            f"{display_url(settings)} is not a database of SQLite's: {reason}",
            "name another file in DATABASE_URL, one that is not there yet will do; this one is as it was"
            if settings.database_url
            else "move it away, or set TALLYHOOK_DATA_DIR to another directory",
        )
    if (trouble := why_no_writes(error)) is not None:
        return UserError(
            "database_takes_no_writes",
            f"the database at {display_url(settings)} answers and takes no writes, {trouble}: {reason}",
            _BY_SQLSTATE["25006"]
            if trouble == READ_ONLY and settings.database_url
            else _DISK_REMEDIES[trouble],
        )
    if isinstance(error, StoreRefused) and _state_of(error) not in _BY_SQLSTATE:
        return UserError(
            "database_refused",
            f"the database at {display_url(settings)} answers and refuses: {reason}",
            "a table, a right or a timeout was changed by somebody: tallyhook doctor looks at the schema",
        )
    if settings.database_url and read_database_address(settings.database_url).sqlite_path is not None:
        remedy = _remedy_of_file(reason)
    elif settings.database_url:
        remedy = _remedy(error, reason)
    else:
        remedy = f"check that {settings.data_dir.absolute()} can be written to, or set TALLYHOOK_DATA_DIR"
    if settings.database_url and settings.database_url == settings.database_read_url:
        remedy = remedy.replace("DATABASE_URL", "DATABASE_READ_URL") + "; or unset it, to read the primary"
    return UserError(
        "database_unreachable", f"cannot reach the database at {display_url(settings)}: {reason}", remedy
    )


_BY_SQLSTATE = {
    "28P01": "check user and password in DATABASE_URL",
    "28000": "check the user in DATABASE_URL, and that the server's pg_hba.conf lets it in from here",
    "3D000": "check the database's name in DATABASE_URL, or create it: createdb NAME",
    "53300": "the server has no connection left: raise its max_connections, or run fewer processes",
    "42704": "check the options behind DATABASE_URL's ?",
    "42501": "give the role of DATABASE_URL the right to it: GRANT ALL ON SCHEMA public TO ROLE",
    "25006": "check that DATABASE_URL names the primary, and default_transaction_read_only there",
}
_DISK_REMEDIES = {
    READ_ONLY: "check the rights of the file and of its directory, and how its file system is mounted",
    DISK_FULL: "make room on the disk that it lies on; what is stored is safe, and goes on by itself",
    DISK_FAILS: "look at the disk that it lies on, and at limits on the size of files",
}
_BY_WORDS = (
    (
        "unsupported startup parameter",
        "remove it from DATABASE_URL: the pooler there does not take this option",
    ),
    (
        "rejected SSL",
        "this server speaks no TLS: write sslmode=disable behind DATABASE_URL's ?, or switch it on",
    ),
    (
        "no pg_hba.conf entry",
        "the server lets this user in from elsewhere only, or with sslmode=require only",
    ),
    ("CERTIFICATE_VERIFY_FAILED", "write sslrootcert=FILE of the server's CA behind DATABASE_URL's ?"),
    ("root certificate file", "write sslrootcert=FILE of the server's CA behind DATABASE_URL's ?"),
    ("[X509", "check that sslrootcert, sslcert and sslkey of DATABASE_URL are PEM files"),
    ("Name or service not known", "check the host's name in DATABASE_URL"),
    ("invalid value for parameter", "check the options behind DATABASE_URL's ?"),
    # PgBouncer's words, all of them under one state.
    (
        "statement pooling mode",
        "what belongs together must be kept together: set pool_mode to transaction or session at the pooler, "
        "or name the server itself in DATABASE_URL",
    ),
    ("authentication failed", "check user and password in DATABASE_URL"),
    ("no such user", "check the user in DATABASE_URL, and the pooler's list of users"),
    ("no such database", "check the database's name in DATABASE_URL, and the pooler's list of databases"),
    ("prepared statement", "a pooler stands between: write prepared_statements=no behind DATABASE_URL's ?"),
)
"""What is said about each, by a piece of the server's or the driver's words."""


def _remedy_of_file(reason: str) -> str:
    """What to do about a DATABASE_URL of SQLite."""
    if reason.startswith("there is no "):
        return (
            f"make it: mkdir -p {reason.removeprefix('there is no ')}, or name another file in DATABASE_URL"
        )
    return "let DATABASE_URL name a file that this user may read and write, on a disk that has room"


def _remedy(error: BaseException, reason: str) -> str:
    """What to do about DATABASE_URL, as near as the error tells."""
    # First the words: a pooler says most of it under one state.
    for sign, remedy in _BY_WORDS:
        if sign in reason:
            return remedy
    state = _state_of(error) or ""
    return _BY_SQLSTATE.get(state, "check DATABASE_URL, and that the server runs and lets this user in")


def _state_of(error: BaseException | None) -> str | None:
    """The SQLSTATE of an error, or of what it was raised for."""
    while error is not None:
        state = sqlstate_of(error)
        if state is not None:
            return state
        error = error.__cause__
    return None


def display_url(settings: Settings) -> str:
    """The database's URL without its password."""
    if not settings.database_url:
        return f"sqlite:///{(settings.data_dir / DATABASE_NAME).absolute()}"
    return read_database_address(settings.store_url).display
