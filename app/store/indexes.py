"""Indexes that say what one dialect or the other makes of them; with them `metadata` is complete. Only
migrations compare it with a database, and SQLAlchemy loads both dialects for it.
"""

import sqlalchemy as sa

from app.store.tables import (
    HAS_CUSTOM_ID,
    IS_ACTIVE_ENDPOINT,
    IS_CANCELLED_OPEN_RUN,
    IS_INCOMPLETE,
    IS_NEW_NOTICE,
    IS_OPEN,
    IS_OPEN_RUN,
    IS_RETRYABLE,
    IS_RUNNING_CHANGE,
    IS_SENT_BEFORE,
    IS_SET_ASIDE,
    IS_SUBMITTING,
    IS_VALID_TOKEN,
    IS_WAITING,
    IS_WITHOUT_ROLLUP,
    WAS_RETRIED,
    account_entries,
    bulk_changes,
    deliveries,
    idempotency_keys,
    ledger,
    metadata,
    notices,
    page_sessions,
    relay_endpoints,
    results,
    runs,
    task_metadata,
    tasks,
    tokens,
)

__all__ = ["metadata"]

sa.Index("ix_runs_open", runs.c.account, runs.c.state, postgresql_where=IS_OPEN_RUN, sqlite_where=IS_OPEN_RUN)
sa.Index(
    "ix_runs_cancelled_open",
    runs.c.id,
    postgresql_where=IS_CANCELLED_OPEN_RUN,
    sqlite_where=IS_CANCELLED_OPEN_RUN,
)
sa.Index(
    "ix_runs_without_rollup", runs.c.id, postgresql_where=IS_WITHOUT_ROLLUP, sqlite_where=IS_WITHOUT_ROLLUP
)
# By run: rows of a paused run, or of one that is over, are before nobody's. With the time, so that rows
# that wait for theirs are passed over within the index.
sa.Index(
    "ix_tasks_open",
    tasks.c.run_id,
    tasks.c.state,
    tasks.c.priority.desc(),
    tasks.c.ordinal,
    tasks.c.not_before_ms,
    postgresql_where=IS_OPEN,
    sqlite_where=IS_OPEN,
)
sa.Index(
    "ix_tasks_sent_before",
    tasks.c.first_sent_at_ms,
    postgresql_where=IS_SENT_BEFORE,
    sqlite_where=IS_SENT_BEFORE,
)
# Few of a run, which are looked for among millions.
sa.Index(
    "ix_tasks_retryable",
    tasks.c.run_id,
    tasks.c.ordinal,
    postgresql_where=IS_RETRYABLE,
    sqlite_where=IS_RETRYABLE,
)
sa.Index("ix_tasks_retried", tasks.c.run_id, postgresql_where=WAS_RETRIED, sqlite_where=WAS_RETRIED)
sa.Index("ix_tasks_lease", tasks.c.lease_until_ms, postgresql_where=IS_SUBMITTING, sqlite_where=IS_SUBMITTING)
sa.Index(
    "ix_tasks_next_poll",
    tasks.c.next_poll_at_ms,
    postgresql_where=tasks.c.next_poll_at_ms.is_not(None),
    sqlite_where=tasks.c.next_poll_at_ms.is_not(None),
)
sa.Index(
    "ix_tasks_provider_task_id",
    tasks.c.provider_task_id,
    postgresql_where=tasks.c.provider_task_id.is_not(None),
    sqlite_where=tasks.c.provider_task_id.is_not(None),
)
sa.Index("ix_tasks_fingerprint", tasks.c.fingerprint, postgresql_using="hash")
sa.Index(
    "uq_task_metadata_custom_id",
    task_metadata.c.run_id,
    task_metadata.c.custom_id,
    unique=True,
    postgresql_where=HAS_CUSTOM_ID,
    sqlite_where=HAS_CUSTOM_ID,
)
sa.Index(
    "ix_deliveries_set_aside",
    deliveries.c.received_at_ms,
    postgresql_where=IS_SET_ASIDE,
    sqlite_where=IS_SET_ASIDE,
)
sa.Index("ix_deliveries_due", deliveries.c.due_at_ms, postgresql_where=IS_WAITING, sqlite_where=IS_WAITING)
sa.Index(
    "ix_results_incomplete",
    results.c.task_id,
    results.c.attempt,
    postgresql_where=IS_INCOMPLETE,
    sqlite_where=IS_INCOMPLETE,
)
sa.Index(
    "uq_ledger_hold",
    ledger.c.task_id,
    ledger.c.attempt,
    unique=True,
    postgresql_where=ledger.c.kind == "hold",
    sqlite_where=ledger.c.kind == "hold",
)
sa.Index(
    "uq_ledger_closing",
    ledger.c.task_id,
    ledger.c.attempt,
    unique=True,
    postgresql_where=ledger.c.kind.in_(("post", "void")),
    sqlite_where=ledger.c.kind.in_(("post", "void")),
)
sa.Index(
    "uq_account_entries_cycle",
    account_entries.c.account,
    account_entries.c.kind,
    account_entries.c.cycle_ms,
    unique=True,
    postgresql_where=account_entries.c.kind.in_(("allocation", "expiry")),
    sqlite_where=account_entries.c.kind.in_(("allocation", "expiry")),
)
sa.Index("ix_notices_due", notices.c.due_at_ms, postgresql_where=IS_NEW_NOTICE, sqlite_where=IS_NEW_NOTICE)
sa.Index(
    "uq_tokens_name", tokens.c.name, unique=True, postgresql_where=IS_VALID_TOKEN, sqlite_where=IS_VALID_TOKEN
)
sa.Index("ix_page_sessions_expires_at_ms", page_sessions.c.expires_at_ms)
sa.Index("ix_idempotency_keys_created_at_ms", idempotency_keys.c.created_at_ms)
sa.Index(
    "ix_relay_endpoints_due",
    relay_endpoints.c.due_at_ms,
    postgresql_where=IS_ACTIVE_ENDPOINT,
    sqlite_where=IS_ACTIVE_ENDPOINT,
)
sa.Index(
    "ix_bulk_changes_running",
    bulk_changes.c.id,
    postgresql_where=IS_RUNNING_CHANGE,
    sqlite_where=IS_RUNNING_CHANGE,
)
