"""The tables, as SQLAlchemy Core. What each column means; null is spelled out where it is allowed.

Times are UTC milliseconds since 1970. Credits are whole millionths (`Credits`), so sums are exact on every
database. Ids are UUIDv7. Migrations are in the folder next to this file and are what creates the tables. An
index that says what a dialect makes of it (`postgresql_where`) stands in indexes.py.
"""

from decimal import Decimal
from typing import Any, Final

import sqlalchemy as sa

from app.domain.credits import from_micro, to_micro
from app.domain.run_reason import WITHOUT_CODE
from app.domain.send_outcome import WAIT_MAX_S

metadata = sa.MetaData(
    naming_convention={
        "ix": "ix_%(table_name)s_%(column_0_N_name)s",
        "uq": "uq_%(table_name)s_%(column_0_N_name)s",
        "fk": "fk_%(table_name)s_%(column_0_N_name)s",
        "pk": "pk_%(table_name)s",
    }
)


class Credits(sa.TypeDecorator[Decimal]):
    """Decimal in Python, millionths as BIGINT in the database: SQLite has no exact decimals of its own."""

    impl = sa.BigInteger
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: sa.Dialect) -> int | None:
        return None if value is None else to_micro(value)

    def process_result_value(self, value: int | None, dialect: sa.Dialect) -> Decimal | None:
        return None if value is None else from_micro(int(value))


def credits_sum(column: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """The sum of a column of credits, as Decimal; 0 for no rows."""
    return sa.type_coerce(sa.func.coalesce(sa.func.sum(column), 0), Credits)


class _Id(sa.Uuid[str]):
    """Canonical text in Python, 32 digits on SQLite."""

    def __init__(self) -> None:
        super().__init__(as_uuid=False)

    def result_processor(self, dialect: sa.Dialect, coltype: object) -> Any:
        if dialect.name != "sqlite":
            return super().result_processor(dialect, coltype)  # type: ignore[no-untyped-call]
        # By way of a UUID, as SQLAlchemy does it, each takes five times as long.
        return _canonical


def _canonical(digits: str | None) -> str | None:
    if digits is None:
        return None
    return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


Id = _Id()
BigId = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
Millis = sa.BigInteger


runs = sa.Table(
    "runs",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("source", sa.Text, nullable=False),  # file name, or - for stdin
    sa.Column("source_sha256", sa.Text),  # null until the source is read to its end
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("reason", sa.Text),  # why it is paused or stopped, or waits: for people
    sa.Column("budget", Credits),  # null: no limit
    sa.Column("bad_lines", sa.Integer, nullable=False, server_default="0"),
    sa.Column("account", sa.Text, nullable=False, server_default="default"),  # whose key pays
    sa.Column("batch_size", sa.Integer),  # tasks in one create call; null: one request for each task
    sa.Column("reuse_within_ms", Millis),  # an equal result this young answers a prompt; null: never
    sa.Column("schedule_id", Id),  # null: started by hand
    sa.Column("slot_ms", Millis),  # the schedule's slot that this run is for
    sa.Column("created_at_ms", Millis, nullable=False),
    # It goes on from a backup: the provider may know keys that were sent since.
    sa.Column("restored", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("reason_code", sa.Text),  # domain.run_reason.ReasonCode; null: none, or older than this
    sa.Column("finished_at_ms", Millis),  # when the last of its tasks was closed; null: one is open
    sa.Column("retained_at_ms", Millis),  # since when nothing of it may be pruned; null: it may
    # Its tasks of an engine whose answers fail wait (engine_pauses).
    sa.Column("pause_failing_engines", sa.Boolean, nullable=False, server_default=sa.false()),
    # When it last came into each state; null: never, or by the version before.
    sa.Column("started_at_ms", Millis),
    sa.Column("paused_at_ms", Millis),
    sa.Column("stopped_at_ms", Millis),
    sa.Column("cancelled_at_ms", Millis),
    # Whether its rollup is about all of its tasks: of older runs it says at first what changed since.
    sa.Column("has_rollup", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Index("ix_runs_created_at_ms", "created_at_ms"),
    sa.Index("ix_runs_account_id", "account", "id"),
    # A slot runs once, however many workers there are.
    sa.Index("uq_runs_slot", "schedule_id", "slot_ms", unique=True),
)

# Literals, here and below: a bound parameter would hide from SQLite that a partial index applies.
IS_OPEN_RUN = runs.c.state.in_(
    [sa.literal_column(f"'{state}'") for state in ("loading", "running", "paused", "stopped")]
)
"""A run that is not over. Of those there are few, however many there were."""
IS_CANCELLED_OPEN_RUN = sa.and_(
    runs.c.state == sa.literal_column("'cancelled'"), runs.c.finished_at_ms.is_(None)
)
"""A cancelled run with tasks that were open still when it was last looked at."""
IS_WITHOUT_ROLLUP = ~runs.c.has_rollup

REASON_CODE = sa.func.coalesce(runs.c.reason_code, sa.case(WITHOUT_CODE, value=runs.c.reason))
"""The code of a run's reason, whichever version wrote it: compare this, never the text."""

# A prompt file that runs every so often.
schedules = sa.Table(
    "schedules",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False, unique=True),
    sa.Column("source", sa.Text, nullable=False),  # absolute path of the file
    sa.Column("options", sa.Text, nullable=False),  # JSON: the options of submit
    sa.Column("every_ms", Millis, nullable=False),
    sa.Column("next_at_ms", Millis, nullable=False),  # the slot that runs next
    sa.Column("enabled", sa.Boolean, nullable=False),
    sa.Column("last_error", sa.Text),  # why the last slot has no run, or slots before it; null: all well
    sa.Column("created_at_ms", Millis, nullable=False),
)

# What the provider reported that an account has, and when; it may be a minute old (P11).
balances = sa.Table(
    "balances",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("remaining", Credits, nullable=False),  # may be negative under a contract
    sa.Column("per_cycle", Credits),  # null: no subscription
    sa.Column("resets_at_ms", Millis),  # null: no subscription
    sa.Column("source", sa.Text, nullable=False, server_default="credits"),  # credits, or header: fresh
    sa.Index("ix_balances_account_at_ms", "account", "at_ms"),
    sa.Index("ix_balances_account_source_at_ms", "account", "source", "at_ms"),
)

tasks = sa.Table(
    "tasks",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("run_id", Id, sa.ForeignKey("runs.id"), nullable=False),
    sa.Column("ordinal", sa.Integer, nullable=False),  # in the source, from 1; each sample of a record counts
    sa.Column("task_type", sa.Text, nullable=False),
    sa.Column("payload", sa.Text, nullable=False),  # JSON, as it is sent
    sa.Column("priority", sa.Integer, nullable=False),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("idempotency_key", sa.Text, nullable=False),  # of the current attempt; stored before sending
    sa.Column("money", sa.Text, nullable=False),
    sa.Column("credits_estimate", Credits, nullable=False),  # ours
    sa.Column("credits_to_charge", Credits),  # null: the provider has not said
    sa.Column("credits_held", Credits),  # null: no hold written
    sa.Column("credits_charged", Credits),  # null: unknown
    sa.Column("reported", sa.Text),  # completed or failed, as the first report said; null before it
    sa.Column("verdict", sa.Text),  # null until reconciled
    sa.Column("provider_task_id", sa.Text),  # null: not known (response lost)
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("sends", sa.Integer, nullable=False),  # times this attempt was claimed for sending
    sa.Column("first_sent_at_ms", Millis),  # of this attempt; null: never claimed
    sa.Column("submitted_at_ms", Millis),  # acceptance, of this attempt
    sa.Column("settled_at_ms", Millis),  # first report taken, of this attempt
    sa.Column("settled_by", sa.Text),  # delivery or poll
    sa.Column("claim", sa.Text),  # token of the process that is sending it
    sa.Column("lease_until_ms", Millis),
    sa.Column("not_before_ms", Millis, nullable=False),  # pending: do not send before
    sa.Column("next_poll_at_ms", Millis),  # null: nothing to ask the provider
    sa.Column("polls", sa.Integer, nullable=False),
    sa.Column("fingerprint", sa.Text),  # of engine and payload: equal prompts are equal; null on old rows
    sa.Column("reused_from", Id),  # the task whose result answers this one, charged 0; null: its own
    sa.UniqueConstraint("run_id", "ordinal"),
)
IS_PENDING = tasks.c.state == sa.literal_column("'pending'")
IS_SUBMITTING = tasks.c.state == sa.literal_column("'submitting'")
IS_OPEN = tasks.c.state.in_([sa.literal_column(f"'{s}'") for s in ("pending", "submitting", "submitted")])
"""A task whose work is still to be done."""
IS_RETRYABLE = tasks.c.state.in_([sa.literal_column(f"'{s}'") for s in ("expired", "failed", "rejected")])
"""A task that may be sent again."""


SLACK_MS = 60_000
"""Processes go by one clock, and this much more is no wrong one."""
WAIT_MAX_MS = round(WAIT_MAX_S * 1000)


def has_come(
    column: sa.ColumnElement[int], now_ms: int | sa.ColumnElement[int], longest_ms: int
) -> sa.ColumnElement[bool]:
    """Whether a time has come, or lies so far ahead that a wrong clock wrote it."""
    return sa.or_(column <= now_ms, column > now_ms + longest_ms + SLACK_MS)


def is_not_ahead(column: sa.ColumnElement[int], now_ms: int) -> sa.ColumnElement[bool]:
    """Of what has happened: what is dated later than this was dated by a wrong clock."""
    return column <= now_ms + SLACK_MS


def is_due(now_ms: int | sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
    """Of a pending task: it need not wait any more."""
    return has_come(tasks.c.not_before_ms, now_ms, WAIT_MAX_MS)


IS_SENT_BEFORE = sa.and_(IS_PENDING, tasks.c.first_sent_at_ms.is_not(None))
"""A task that is to be sent again."""
IS_POLLED = tasks.c.next_poll_at_ms.between(0, (1 << 62))
"""A task that the provider will be asked about: not null, so written that PostgreSQL expects few rows also
where it has no statistics yet, after a large file was loaded."""
WAS_RETRIED = tasks.c.attempt > sa.literal_column("1")
# Of versions before, whose processes may run alongside ours; on PostgreSQL until an upgrade is finished.
sa.Index(
    "ix_tasks_pending", tasks.c.priority.desc(), tasks.c.run_id, tasks.c.ordinal, sqlite_where=IS_PENDING
).ddl_if(dialect="sqlite")


# What a record of a source says for its author (domain.own_columns): a row only where it says something,
# written once when it is loaded. By record, so that all tasks of one would share it.
task_metadata = sa.Table(
    "task_metadata",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("line", sa.Integer, nullable=False),  # of the source, from 1; 0: unknown
    sa.Column("custom_id", sa.Text),
    sa.Column("metadata", sa.Text),  # a JSON object; each value as its author wrote it
    sqlite_with_rowid=False,
)
HAS_CUSTOM_ID = task_metadata.c.custom_id.is_not(None)

# Records that ask for several samples, which are as many tasks: their ordinals follow each other, and what is
# kept for the author stands with the first.
task_repeats = sa.Table(
    "task_repeats",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("first_ordinal", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("repeats", sa.Integer, nullable=False),
    sqlite_with_rowid=False,
)

# The run of a token's tasks that come one by one on a day (UTC). A row for the newest: of one that was
# cancelled another takes the place.
standing_runs = sa.Table(
    "standing_runs",
    metadata,
    sa.Column("token_id", Id, primary_key=True),
    sa.Column("day_ms", Millis, primary_key=True, autoincrement=False),  # midnight (UTC)
    sa.Column("run_id", Id, nullable=False, unique=True),
    sa.Column("last_ordinal", sa.Integer, nullable=False),  # given to a task
)
# Idempotency keys of callers, each for its token: whoever repeats one buys nothing twice.
task_keys = sa.Table(
    "task_keys",
    metadata,
    sa.Column("token_id", Id, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("task_id", Id, nullable=False),
    sa.Index("ix_task_keys_task_id", "task_id"),
)

# Tasks that a sender has claimed, and whose rows do not show it yet (claims.py).
claims = sa.Table(
    "claims",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("claim", sa.Text, nullable=False),  # token of the process that is sending them
    sa.Column("run_id", Id, nullable=False),
    sa.Column("first_ordinal", sa.Integer, nullable=False),
    sa.Column("last_ordinal", sa.Integer, nullable=False),
    sa.Column("claimed_at_ms", Millis, nullable=False),
    sa.Column("lease_until_ms", Millis, nullable=False),
)

# Engines that were paused at an account because their answers failed: a row for each, kept when it goes on.
engine_pauses = sa.Table(
    "engine_pauses",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("task_type", sa.Text, primary_key=True),
    sa.Column("paused_at_ms", Millis),  # null: it goes on
    sa.Column("judged_seq", sa.BigInteger, nullable=False),  # results up to this one are judged
    sa.Column("tasks", sa.Integer, nullable=False),  # for which it was paused: so many of its results,
    sa.Column("usable", sa.Integer, nullable=False),  # of which so many were usable
    sa.Column("probe_at_ms", Millis, nullable=False),  # when the next task of it is let through
    sa.Column("usable_in_row", sa.Integer, nullable=False),  # of the newest results of what was sent since
)

# An attempt that a retry replaced, as it stood then; its money may still move. Columns as in tasks.
attempts = sa.Table(
    "attempts",
    metadata,
    sa.Column("task_id", Id, sa.ForeignKey("tasks.id"), primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("state", sa.Text, nullable=False),
    sa.Column("money", sa.Text, nullable=False),
    sa.Column("credits_estimate", Credits, nullable=False),
    sa.Column("credits_to_charge", Credits),
    sa.Column("credits_held", Credits),
    sa.Column("credits_charged", Credits),
    sa.Column("reported", sa.Text),
    sa.Column("verdict", sa.Text),
    sa.Column("provider_task_id", sa.Text),
    sa.Column("error_code", sa.Text),
    sa.Column("error_message", sa.Text),
    sa.Column("sends", sa.Integer, nullable=False),
    sa.Column("first_sent_at_ms", Millis),
    sa.Column("submitted_at_ms", Millis),
    sa.Column("settled_at_ms", Millis),
    sa.Column("settled_by", sa.Text),
    sa.Index("ix_attempts_provider_task_id", "provider_task_id"),
)
_REPLACED = attempts.join(
    tasks,
    # The second says to the database that most tasks need not be looked at.
    sa.and_(tasks.c.id == attempts.c.task_id, WAS_RETRIED),
)
EVERY_ATTEMPT: Final[tuple[tuple[sa.Table, sa.FromClause], ...]] = ((tasks, tasks), (attempts, _REPLACED))
"""Where attempts stand, as (their columns, what to select from): the current one of each task, and those that
retries replaced. A figure of credits, and a count of verdicts, is over both: each of them was paid for."""

# What each run has spent, as its budget counts it: the sum, and on PostgreSQL what changed since it was last
# added up. The database keeps both by triggers (spending.py).
run_spending = sa.Table(
    "run_spending",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("credits", Credits, nullable=False),
)
spending_changes = sa.Table(
    "spending_changes",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("credits", Credits, nullable=False),
    sa.Index("ix_spending_changes_run_id", "run_id"),
)


def _rollup_columns(is_key: bool) -> list[sa.Column[Any]]:
    return [
        sa.Column("run_id", Id, primary_key=is_key, nullable=False),
        sa.Column("is_current", sa.Boolean, primary_key=is_key, nullable=False),  # or replaced by a retry
        sa.Column("task_type", sa.Text, primary_key=is_key, nullable=False),
        sa.Column("state", sa.Text, primary_key=is_key, nullable=False),
        sa.Column("verdict", sa.Text, primary_key=is_key, nullable=False),  # empty: none yet
        sa.Column("attempts", sa.BigInteger, nullable=False),
        sa.Column("held", Credits, nullable=False),  # of those whose money is open
        sa.Column("charged", Credits, nullable=False),
        sa.Column("estimate", Credits, nullable=False),
    ]


# Counts and credits of each run, by state, engine and verdict: the sums, and on PostgreSQL what changed since
# they were last added up. The database keeps both by triggers (rollup.py).
run_rollup = sa.Table(
    "run_rollup",
    metadata,
    *_rollup_columns(is_key=True),
    sa.Column("changes", sa.BigInteger, nullable=False),  # how many were added up
    sqlite_with_rowid=False,
)
rollup_changes = sa.Table(
    "rollup_changes",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    *_rollup_columns(is_key=False),
    sa.Index("ix_rollup_changes_run_id", "run_id"),
)

# Append-only: the end of each send, so that what we believe about acceptance can be derived again.
submissions = sa.Table(
    "submissions",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("task_id", Id, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("answer", sa.Text, nullable=False),  # domain.retry.Answer
    sa.Column("http_status", sa.Integer),  # null: no response
    sa.Column("code", sa.Text),
    sa.Column("message", sa.Text),
    sa.Column("provider_task_id", sa.Text),
    sa.Column("credits_to_charge", Credits),
    sa.Column("request_id", sa.Text),
    # Refused: earlier sends of the key that nobody answered for; null: not refused, or older than this.
    sa.Column("open_sends", sa.Integer),
    sa.Index("ix_submissions_task_id", "task_id"),
)

# The inbox: raw deliveries, and polls that found a finished task. Nothing is parsed before it stands here.
deliveries = sa.Table(
    "deliveries",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("source", sa.Text, nullable=False),  # delivery, poll or sync
    sa.Column("account", sa.Text),  # at whose address it came; null: ours to trust, or older than this
    sa.Column("received_at_ms", Millis, nullable=False),
    sa.Column("webhook_id", sa.Text),  # X-Cloro-Webhook-Id, differs per attempt
    sa.Column("signed_at", sa.Text),  # X-Cloro-Timestamp as sent
    sa.Column("signature", sa.Text),  # X-Cloro-Signature as sent; with body and signed_at it verifies again
    sa.Column("encoding", sa.Text, nullable=False),  # how body is stored: identity or zstd
    sa.Column("body", sa.LargeBinary, nullable=False),
    sa.Column("state", sa.Text, nullable=False),  # new, done, unmatched, quarantined
    sa.Column("effect", sa.Text),  # domain.settlement.Effect; null until done
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due_at_ms", Millis, nullable=False),  # new or unmatched: look at it again at
    sa.Column("error", sa.Text),  # why it is quarantined, or waits though it was looked at
    sa.Column("task_id", Id),
    sa.Column("attempt", sa.Integer),
    sa.Column("repeats", sa.Integer, nullable=False, server_default="0"),  # times it came again
    sa.Index("ix_deliveries_task_id", "task_id"),
)
IS_WAITING = deliveries.c.state.in_([sa.literal_column("'new'"), sa.literal_column("'unmatched'")])
"""A delivery that still has to be looked at."""
IS_SET_ASIDE = deliveries.c.state == sa.literal_column("'quarantined'")
"""A delivery that waits for a person."""

# What a report was taken for an attempt. The answer itself stands once, in the body of its delivery.
results = sa.Table(
    "results",
    metadata,
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("attempt", sa.Integer, primary_key=True),
    sa.Column("delivery_id", Id, nullable=False),  # where it came from; its body may have been dropped since
    sa.Column("status", sa.Text, nullable=False),  # completed or failed
    sa.Column("stored_at_ms", Millis, nullable=False),
    # Of the answer, unwrapped, in UTF-8. Null: of the version before, until a sweep fills it in.
    sa.Column("answer_bytes", sa.BigInteger),
    sa.Column("answer_sha256", sa.LargeBinary),  # 32 bytes
    # Of its text: domain.answer_text. Null: of the version before; its bytes tell as much as is known.
    sa.Column("answer_chars", sa.Integer),
    # Its place in the order of settlement, committed in that order; null: of the version before, as above.
    sa.Column("seq", sa.BigInteger),
    sa.Index("uq_results_seq", "seq", unique=True),
)
IS_INCOMPLETE = sa.or_(results.c.seq.is_(None), results.c.answer_sha256.is_(None))
"""A result that a process of the version before wrote, or copied, and no sweep has seen yet."""

# One row: the last number given to a result. Taken as the last lock of a transaction, so that numbers are
# committed in their order.
settle_sequence = sa.Table(
    "settle_sequence",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("value", sa.BigInteger, nullable=False),
)

# Append-only: objects of the archive that were read back and compared, each with deliveries of one day.
archive_blocks = sa.Table(
    "archive_blocks",
    metadata,
    sa.Column("day_ms", Millis, primary_key=True),  # midnight (UTC)
    sa.Column("number", sa.Integer, primary_key=True),  # from 1: of two that archive a day one is refused
    sa.Column("path", sa.Text, nullable=False),  # within the archive
    sa.Column("first_id", Id, nullable=False),
    sa.Column("last_id", Id, nullable=False),
    sa.Column("deliveries", sa.Integer, nullable=False),
    sa.Column("body_bytes", sa.BigInteger, nullable=False),  # of the bodies, as they were received
    sa.Column("block_bytes", sa.BigInteger, nullable=False),
    sa.Column("sha256", sa.Text, nullable=False),  # of the object, in hex
    sa.Column("archive", sa.Text, nullable=False),  # which one, for people
    sa.Column("stored_at_ms", Millis, nullable=False),
)
# Days that are archived, or are about to be.
archived_days = sa.Table(
    "archived_days",
    metadata,
    sa.Column("day_ms", Millis, primary_key=True),
    sa.Column("left_out", sa.Text, nullable=False),  # JSON: ids that were not closed, and are in no block yet
    sa.Column("archived_at_ms", Millis),  # when all others were in blocks; null: not yet
)

# Append-only. A correction is a new entry with a reason, never an edit.
ledger = sa.Table(
    "ledger",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("task_id", Id, nullable=False),
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # hold, post, void
    sa.Column("credits", Credits, nullable=False),
    sa.Column("delivery_id", Id),  # the report that closed it; null for a hold written at acceptance
    sa.Column("reason", sa.Text),  # why a post is not its hold; null: it is, or nobody can say
    sa.Index("ix_ledger_run_id", "run_id"),
)

# Append-only, next to the ledger: entries of the account itself, and corrections of what stands there.
account_entries = sa.Table(
    "account_entries",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # allocation, expiry, foreign, adjustment
    sa.Column("credits", Credits, nullable=False),  # an adjustment may be negative
    sa.Column("cycle_ms", Millis),  # start of the billing cycle; null: none known
    sa.Column("run_id", Id),  # of an adjustment about a task; otherwise null, as the next two
    sa.Column("task_id", Id),
    sa.Column("attempt", sa.Integer),
    sa.Column("reason", sa.Text, nullable=False),
    sa.Index("ix_account_entries_account_at_ms", "account", "at_ms"),
)

# What somebody should know, written in the transaction that found it out; sent from here with retries.
notices = sa.Table(
    "notices",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # run.finished, run.paused, budget.reached, …
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("run_id", Id),  # null: about the account
    sa.Column("occasion", sa.Text, nullable=False, unique=True),  # the dedupe key: one notice for each
    sa.Column("body", sa.Text, nullable=False),  # JSON, as it is sent
    sa.Column("state", sa.Text, nullable=False),  # new, sent, logged (nowhere to send it), failed
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("due_at_ms", Millis, nullable=False),
    sa.Column("sent_at_ms", Millis),
    sa.Column("error", sa.Text),
    sa.Index("ix_notices_run_id", "run_id"),
    sa.Index("ix_notices_account_kind", "account", "kind", "id"),
)
IS_NEW_NOTICE = notices.c.state == sa.literal_column("'new'")

# What needs explaining, with its evidence: every verdict but matched, free_failure, explained.
findings = sa.Table(
    "findings",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("run_id", Id),  # null: unmatched
    sa.Column("task_id", Id),
    sa.Column("attempt", sa.Integer),
    sa.Column("verdict", sa.Text, nullable=False),
    sa.Column("expected", Credits),
    sa.Column("actual", Credits),
    sa.Column("detail", sa.Text, nullable=False),
    sa.Column("delivery_id", Id),  # null: found at submit
    sa.Index("ix_findings_run_id", "run_id"),
    sa.Index("ix_findings_run_id_id", "run_id", "id"),  # in the order of its list
    sa.Index("ix_findings_task_id", "task_id"),
)

# Who may do a thing that only one process may do at a time; judged by the database's rows, not by Redis.
leases = sa.Table(
    "leases",
    metadata,
    sa.Column("name", sa.Text, primary_key=True),
    sa.Column("owner", sa.Text, nullable=False),
    sa.Column("until_ms", Millis, nullable=False),
)

# Who worked here lately, by the database's time.
processes = sa.Table(
    "processes",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # worker, web; with -ended behind it when it has
    sa.Column("started_at_ms", Millis, nullable=False),
    sa.Column("seen_at_ms", Millis, nullable=False),
    sa.Column("address", sa.Text),  # of web: where the provider reaches it, without our path
)

# Who may use the API. Of the token itself only a hash is kept (domain.access).
tokens = sa.Table(
    "tokens",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("name", sa.Text, nullable=False),
    sa.Column("prefix", sa.Text, nullable=False, unique=True),  # its beginning, by which it is found
    sa.Column("sha256", sa.Text, nullable=False),  # in hex
    sa.Column("scope", sa.Text, nullable=False),  # domain.access.Scope
    sa.Column("account", sa.Text),  # it sees and spends this one's only; null: every account's
    sa.Column("created_at_ms", Millis, nullable=False),
    sa.Column("expires_at_ms", Millis),  # null: never
    sa.Column("revoked_at_ms", Millis),  # null: it is valid
    sa.Column("last_used_at_ms", Millis),  # to the minute; null: never
    sa.Column("webhook_url", sa.Text),  # where its runs' results are posted to; null: where each says
)
IS_VALID_TOKEN = tokens.c.revoked_at_ms.is_(None)

# Who is signed in to the page; a row goes when its session ends.
page_sessions = sa.Table(
    "page_sessions",
    metadata,
    sa.Column("sha256", sa.Text, primary_key=True),  # of what the browser has, in hex
    sa.Column("token_id", Id, nullable=False),
    sa.Column("created_at_ms", Millis, nullable=False),
    sa.Column("expires_at_ms", Millis, nullable=False),
)

# Append-only but for `status` and `subject`: what was changed through the API, and by commands about tokens.
actions = sa.Table(
    "actions",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("actor", sa.Text, nullable=False),  # the token's name, or "command line"
    sa.Column("token_id", Id),  # null: the command line
    sa.Column("action", sa.Text, nullable=False),  # run.pause, token.create, …
    sa.Column("subject", sa.Text),  # the id of what it was done to; null: nothing came of it
    sa.Column("request_id", sa.Text),
    sa.Column("status", sa.Integer),  # HTTP; null: it goes on, or its process died
)

# What is done to all tasks, or runs, that match a filter (domain.bulk_change), once it was tried out.
bulk_changes = sa.Table(
    "bulk_changes",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("created_at_ms", Millis, nullable=False),
    sa.Column("verb", sa.Text, nullable=False),
    sa.Column("filter", sa.Text, nullable=False),  # as domain.task_filter writes it
    sa.Column("even_if_held", sa.Boolean, nullable=False),
    sa.Column("account", sa.Text),  # of this one's runs only; null: of every account's
    sa.Column("actor", sa.Text, nullable=False),
    sa.Column("token_id", Id),  # null: the command line
    sa.Column("state", sa.Text, nullable=False),
    # As it was tried out, and confirmed: no more is done.
    sa.Column("matched", sa.BigInteger, nullable=False),
    sa.Column("credits", Credits, nullable=False),
    sa.Column("left_held", sa.BigInteger, nullable=False),
    sa.Column("left_answered", sa.BigInteger, nullable=False),
    sa.Column("held", Credits, nullable=False),
    # The same of what is done so far, and how far that is: written with the tasks themselves.
    sa.Column("done_matched", sa.BigInteger, nullable=False),
    sa.Column("done_credits", Credits, nullable=False),
    sa.Column("done_left_held", sa.BigInteger, nullable=False),
    sa.Column("done_left_answered", sa.BigInteger, nullable=False),
    sa.Column("done_held", Credits, nullable=False),
    sa.Column("place_run_id", Id),  # null: at the beginning
    sa.Column("place_ordinal", sa.Integer),  # null: all of the run is looked at
    sa.Column("confirmed_at_ms", Millis),
    sa.Column("finished_at_ms", Millis),
    sa.Column("reason", sa.Text),
    sa.Index("ix_bulk_changes_account_id", "account", "id"),
)
IS_RUNNING_CHANGE = bulk_changes.c.state == sa.literal_column("'running'")

# What was asked for under an idempotency key, and what was answered; one request works under it at a time.
idempotency_keys = sa.Table(
    "idempotency_keys",
    metadata,
    sa.Column("token_id", Id, primary_key=True),
    sa.Column("key", sa.Text, primary_key=True),
    sa.Column("target", sa.Text, nullable=False),  # SHA-256 of method, address and kind of body
    sa.Column("content", sa.Text),  # SHA-256 of the body; null: it has not ended yet
    sa.Column("owner", sa.Text, nullable=False),  # the request that works under it
    sa.Column("lease_until_ms", Millis, nullable=False),  # then another may go on
    sa.Column("run_id", Id),  # what it has made so far; null: nothing
    sa.Column("progress", sa.Text),  # how far it came, as JSON; null: nothing is changed yet
    sa.Column("status", sa.Integer),  # HTTP; null: there is no answer yet
    sa.Column("headers", sa.Text),  # of the answer, as JSON
    sa.Column("body", sa.Text),
    sa.Column("created_at_ms", Millis, nullable=False),
)

# Where results are pushed to; a row for each URL of an account's, or of a token's.
relay_endpoints = sa.Table(
    "relay_endpoints",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("token_id", sa.Text, nullable=False),  # whose it is; empty: the command line's
    sa.Column("url", sa.Text, nullable=False),
    sa.Column("scheme", sa.Text, nullable=False),  # domain.relay.message.Scheme
    sa.Column("secret", sa.Text, nullable=False),
    sa.Column("old_secret", sa.Text),  # signs too while the receiver changes it
    sa.Column("old_secret_until_ms", Millis),
    sa.Column("state", sa.Text, nullable=False),  # domain.relay.message.EndpointState
    sa.Column("created_at_ms", Millis, nullable=False),
    sa.Column("from_seq", sa.BigInteger, nullable=False),  # results up to this one are none of its
    sa.Column("due_at_ms", Millis),  # when it is looked at next; null: nothing waits for it
    sa.Column("rests", sa.Integer, nullable=False),  # since it last took a message
    sa.Column("failing_since_ms", Millis),  # null: it took the last one
    sa.Column("last_error", sa.Text),
    sa.Column("last_taken_at_ms", Millis),
    sa.Column("taken", sa.BigInteger, nullable=False),  # messages, so far
    sa.Column("owner", sa.Text),  # the worker that posts to it
    sa.Column("lease_until_ms", Millis),
    sa.UniqueConstraint("account", "token_id", "url", "scheme"),
    sa.Index("ix_relay_endpoints_account_id", "account", "id"),
)
IS_ACTIVE_ENDPOINT = relay_endpoints.c.state == sa.literal_column("'active'")
# All results of a run go to an endpoint.
relay_runs = sa.Table(
    "relay_runs",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("endpoint_id", Id, primary_key=True),
    sa.Column("told_finished_ms", Millis),  # the end of the run that was told last; null: none
    sa.Index("ix_relay_runs_endpoint_id", "endpoint_id"),
    sa.Index("ix_relay_runs_endpoint_id_run_id", "endpoint_id", "run_id"),
)
# The result of one task goes to an endpoint.
relay_tasks = sa.Table(
    "relay_tasks",
    metadata,
    sa.Column("task_id", Id, primary_key=True),
    sa.Column("endpoint_id", Id, nullable=False),
)
# One row: results up to this place in the order of settlement have their messages.
relay_position = sa.Table(
    "relay_position",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
# What each engine did on each day (UTC), by how long it took: from results as they are settled.
engine_days = sa.Table(
    "engine_days",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("task_type", sa.Text, primary_key=True),
    sa.Column("day_ms", Millis, primary_key=True, autoincrement=False),  # midnight (UTC), of settlement
    sa.Column("latency_class", sa.Integer, primary_key=True, autoincrement=False),  # -1: unknown
    sa.Column("answers", sa.BigInteger, nullable=False),  # completed or failed
    sa.Column("completed", sa.BigInteger, nullable=False),
    sa.Column("usable", sa.BigInteger, nullable=False),
    sa.Column("charged", Credits, nullable=False),
    sa.Column("charge_known", sa.BigInteger, nullable=False),  # of how many answers that is
)
# One row: results up to this place in the order of settlement are counted.
engine_days_position = sa.Table(
    "engine_days_position",
    metadata,
    sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("seq", sa.BigInteger, nullable=False),
)
# What is known of an account, as the last audit found it: what takes long to add up, for whoever looks often.
account_sheets = sa.Table(
    "account_sheets",
    metadata,
    sa.Column("account", sa.Text, primary_key=True),
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("body", sa.Text, nullable=False),  # JSON: views.sheets
)
# Deliveries that receivers refused, by hour and reason; of a process that was killed the last seconds lack.
intake_refusals = sa.Table(
    "intake_refusals",
    metadata,
    sa.Column("hour_ms", Millis, primary_key=True, autoincrement=False),
    sa.Column("reason", sa.Text, primary_key=True),
    sa.Column("count", sa.BigInteger, nullable=False),
)
# What is to be posted; deleted once it is taken. What a message says is read from the task when it is posted.
relay_messages = sa.Table(
    "relay_messages",
    metadata,
    sa.Column("id", BigId, sa.Identity(), primary_key=True),
    sa.Column("endpoint_id", Id, nullable=False),
    sa.Column("run_id", Id, nullable=False),
    sa.Column("task_id", Id),  # null: about the run
    sa.Column("attempt", sa.Integer, nullable=False),
    sa.Column("kind", sa.Text, nullable=False),  # finished, or the state in which the task ended
    sa.Column("at_ms", Millis, nullable=False),
    sa.Column("due_at_ms", Millis),  # null: given up, until a person puts it back
    sa.Column("tries", sa.Integer, nullable=False),
    sa.Column("status", sa.Integer),  # of the last try; null: no answer, or none yet
    sa.Column("error", sa.Text),
    sa.Index("ix_relay_messages_due", "endpoint_id", "due_at_ms", "id"),
    sa.Index("ix_relay_messages_task_id", "task_id"),
)

# Files that were uploaded to be run as batches, their bytes in pieces.
batch_files = sa.Table(
    "batch_files",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("created_at_ms", Millis, nullable=False),
    sa.Column("expires_at_ms", Millis, nullable=False),
    sa.Column("filename", sa.Text, nullable=False),
    sa.Column("body_bytes", sa.BigInteger, nullable=False),  # unpacked
    sa.Column("sha256", sa.Text),  # in hex; null: it was not uploaded to its end
    sa.Index("ix_batch_files_account_id", "account", "id"),
    sa.Index("ix_batch_files_expires_at_ms", "expires_at_ms"),
)
batch_file_pieces = sa.Table(
    "batch_file_pieces",
    metadata,
    sa.Column("file_id", Id, primary_key=True),
    sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),  # from 1
    sa.Column("body", sa.LargeBinary, nullable=False),  # zstd
)
# Runs that were made by the batch dialect, and what its objects say beyond a run.
batches = sa.Table(
    "batches",
    metadata,
    sa.Column("run_id", Id, primary_key=True),  # there is no such run once the file is refused
    sa.Column("token_id", Id, nullable=False),
    sa.Column("account", sa.Text, nullable=False),
    sa.Column("idempotency_key", sa.Text),
    sa.Column("request_sha256", sa.Text, nullable=False),  # what was asked, in hex
    sa.Column("input_file_id", Id, nullable=False),
    sa.Column("endpoint", sa.Text, nullable=False),
    sa.Column("completion_window", sa.Text, nullable=False),
    sa.Column("metadata", sa.Text),  # a JSON object of texts
    sa.Column("created_at_ms", Millis, nullable=False),
    sa.Column("expires_at_ms", Millis, nullable=False),  # then what was not sent yet is cancelled
    sa.Column("expired_at_ms", Millis),
    sa.Column("failed_at_ms", Millis),  # its file was refused, for `errors`
    sa.Column("errors", sa.Text),  # a JSON list
    sa.UniqueConstraint("token_id", "idempotency_key"),
    sa.Index("ix_batches_account_run_id", "account", "run_id"),
)

# What was pruned: one receipt for each kind of rows and day (UTC), by the transactions that dropped them.
receipts = sa.Table(
    "receipts",
    metadata,
    sa.Column("id", Id, primary_key=True),
    sa.Column("kind", sa.Text, nullable=False),  # domain.retention.Kind
    sa.Column("from_ms", Millis, nullable=False),  # of a body by its delivery's id, of others by at_ms
    sa.Column("until_ms", Millis, nullable=False),
    sa.Column("begun_at_ms", Millis, nullable=False),  # when the first of its rows was dropped
    sa.Column("at_ms", Millis, nullable=False),  # when the last one was
    sa.Column("state", sa.Text, nullable=False),  # open while batches go on, then done
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("body_bytes", sa.BigInteger, nullable=False),  # as they stood, packed
    sa.Column("credits_charged", Credits, nullable=False),  # of attempts whose result a dropped body was
    sa.Column("kept", sa.BigInteger),  # rows of the day that stayed; null: not counted (yet)
    sa.Column("sha256", sa.Text, nullable=False),  # over the dropped rows: domain.retention.chain
    sa.Column("location", sa.Text),  # where the archive has them; null: nowhere
    sa.UniqueConstraint("kind", "from_ms"),
)

# What was pruned of the findings of a run: every count of findings, and a certificate's hash, is over both.
pruned_findings = sa.Table(
    "pruned_findings",
    metadata,
    sa.Column("run_id", Id, primary_key=True),
    sa.Column("verdict", sa.Text, primary_key=True),
    sa.Column("row_count", sa.BigInteger, nullable=False),
    sa.Column("at_ms", Millis, nullable=False),  # when the last one was dropped
)


def payload_text(name: str, is_sqlite: bool) -> sa.ColumnElement[str | None]:
    """A field of a task's payload; null where it has none."""
    # Literals: with bound parameters no two uses of it are the same expression to GROUP BY.
    if is_sqlite:
        return sa.func.json_extract(tasks.c.payload, sa.literal_column(f"'$.{name}'"))
    return sa.func.json_extract_path_text(sa.cast(tasks.c.payload, sa.JSON), sa.literal_column(f"'{name}'"))


def asked_from(is_sqlite: bool) -> sa.ColumnElement[str | None]:
    """The country that a task is asked from: its payload's `country`, or `gl` of the Google engines (C-K)."""
    return sa.func.upper(sa.func.coalesce(*(payload_text(name, is_sqlite) for name in ("country", "gl"))))
