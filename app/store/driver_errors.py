"""Whose fault an error of the database is: of the rows that it was given, or of anything else.

Only what rows cause may be held against them. The rest is trouble: it costs time, and nothing is judged by
it.
"""

import sys
from enum import Enum

from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, InterfaceError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from app.ports import RowsRefused, StoreRefused, StoreUnavailable

REASON_CHARS_MAX = 300

# data_exception, integrity_constraint_violation, program_limit_exceeded.
_ROWS_CLASSES = ("22", "23", "54")
# connection_exception; transaction_rollback: deadlocks; insufficient_resources: full disk, too many
# connections; system_error: errors of the disk under the server.
_PASSING_CLASSES = ("08", "40", "53", "58")
# lock_not_available; admin_shutdown, crash_shutdown, cannot_connect_now: a restarting PostgreSQL;
# idle_session_timeout, idle_in_transaction_session_timeout; read_only_sql_transaction: one that was demoted;
# invalid_sql_statement_name, duplicate_prepared_statement: a pooler changed the server under us;
# feature_not_supported: a plan that was kept over a migration.
_PASSING = frozenset(
    {"55P03", "57P01", "57P02", "57P03", "57P05", "25P03", "25006", "26000", "42P05", "0A000"}
)
_PASSING_SQLITE = ("is locked", "disk is full", "disk I/O error", "readonly database", "unable to open")
READ_ONLY, DISK_FULL, DISK_FAILS = "it is read-only", "its disk is full", "its disk takes nothing"
_NO_WRITES = {"25006": READ_ONLY, "53100": DISK_FULL, "58030": DISK_FAILS}
_NO_WRITES_SQLITE = (
    ("readonly database", READ_ONLY),
    ("disk is full", DISK_FULL),
    ("disk I/O error", DISK_FAILS),
)


class Fault(Enum):
    """What an error means, and what is to be done about it."""

    ROWS = "rows"  # the same rows will fail again: raised as RowsRefused
    PASSING = "passing"  # another try at once may do; else raised as StoreUnavailable
    PERMANENT = (
        "standing"  # a table, a right, a timeout, the schema: raised as StoreRefused, without more tries
    )


def postgresql_errors() -> tuple[type[Exception], ...]:
    """What the driver of PostgreSQL raises; nothing where nobody has loaded it, as on SQLite."""
    asyncpg = sys.modules.get("asyncpg")
    return (asyncpg.PostgresError, asyncpg.InterfaceError) if asyncpg is not None else ()


def fault_of(error: BaseException) -> Fault | None:
    """None: not the database's, so a bug of ours or an answer of the caller's own."""
    if isinstance(error, UnicodeEncodeError | OverflowError):
        return Fault.ROWS  # no driver takes half a surrogate pair, or a number beyond its column
    if isinstance(error, PoolTimeoutError | OSError | TimeoutError):
        # asyncpg lets the refusal of a connection through as the OSError it is.
        return Fault.PASSING
    if not isinstance(error, (SQLAlchemyError, *postgresql_errors())):
        return None
    state = sqlstate_of(error)
    if state is not None:
        return _fault_of_state(state, error)
    original = getattr(error, "orig", None)
    if isinstance(original, UnicodeEncodeError | OverflowError) or isinstance(
        error, IntegrityError | DataError
    ):
        return Fault.ROWS
    if getattr(error, "connection_invalidated", False):
        return Fault.PASSING
    if isinstance(error, (InterfaceError, *postgresql_errors()[1:])) or any(
        text in str(original) for text in _PASSING_SQLITE
    ):
        return Fault.PASSING
    return Fault.PERMANENT


def _fault_of_state(state: str, error: BaseException) -> Fault:
    if state.startswith(_ROWS_CLASSES):
        return Fault.ROWS
    passes = state in _PASSING or state.startswith(_PASSING_CLASSES)
    return Fault.PASSING if passes or getattr(error, "connection_invalidated", False) else Fault.PERMANENT


def sqlstate_of(error: BaseException) -> str | None:
    """The five characters with which PostgreSQL names an error; None where it was not PostgreSQL."""
    original = getattr(error, "orig", None) or error
    for candidate in (original, original.__cause__):
        state = getattr(candidate, "sqlstate", None)
        if isinstance(state, str):
            return state
    return None


def why_no_writes(error: BaseException | None) -> str | None:
    """Why a database that answers takes no writes, in words that name nobody; None: it is something else.
    `error` may also be what the driver's was translated to."""
    while error is not None:
        reason = _NO_WRITES.get(sqlstate_of(error) or "")
        if reason is not None:
            return reason
        for sign, words in _NO_WRITES_SQLITE:
            if sign in str(error):
                return words
        error = error.__cause__
    return None


def translate_driver_error(error: BaseException, fault: Fault) -> Exception:
    """The error as the services know it. Its text quotes no row, as PostgreSQL does from its second line on,
    and its driver behind the first colon of what it calls malformed."""
    original: BaseException = error
    if isinstance(error, DBAPIError) and error.orig is not None:
        original = error.orig.__cause__ or error.orig
    state = sqlstate_of(error)
    lines = str(original).strip().splitlines()
    wordless = "no answer in time" if isinstance(original, TimeoutError) else type(original).__name__
    reason = lines[0] if lines else wordless
    if fault is Fault.ROWS and state is not None:
        reason = reason.split(": ")[0]
    text = reason[:REASON_CHARS_MAX] + (f" (SQLSTATE {state})" if state else "")
    if fault is Fault.ROWS:
        return RowsRefused(text)
    return StoreUnavailable(text) if fault is Fault.PASSING else StoreRefused(text)
