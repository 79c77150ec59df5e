"""Results pushed: endpoints, whose results they get, and what is to be posted.

Revision: 0025, after 0024. Only adds: code of the version before runs beside it, and what it settles is
pushed all the same.
"""

import sqlalchemy as sa
from alembic import op

revision = "0025"
down_revision = "0024"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")


def upgrade() -> None:
    op.create_table(
        "relay_endpoints",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Text(), nullable=False),
        sa.Column("url", sa.Text(), nullable=False),
        sa.Column("scheme", sa.Text(), nullable=False),
        sa.Column("secret", sa.Text(), nullable=False),
        sa.Column("old_secret", sa.Text()),
        sa.Column("old_secret_until_ms", sa.BigInteger()),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("from_seq", sa.BigInteger(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger()),
        sa.Column("rests", sa.Integer(), nullable=False),
        sa.Column("failing_since_ms", sa.BigInteger()),
        sa.Column("last_error", sa.Text()),
        sa.Column("last_taken_at_ms", sa.BigInteger()),
        sa.Column("taken", sa.BigInteger(), nullable=False),
        sa.Column("owner", sa.Text()),
        sa.Column("lease_until_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("id", name="pk_relay_endpoints"),
        sa.UniqueConstraint(
            "account", "token_id", "url", "scheme", name="uq_relay_endpoints_account_token_id_url_scheme"
        ),
    )
    is_active = sa.text("state = 'active'")
    op.create_index(
        "ix_relay_endpoints_due",
        "relay_endpoints",
        ["due_at_ms"],
        postgresql_where=is_active,
        sqlite_where=is_active,
    )
    op.create_table(
        "relay_runs",
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("told_finished_ms", sa.BigInteger()),
        sa.PrimaryKeyConstraint("run_id", "endpoint_id", name="pk_relay_runs"),
    )
    op.create_index("ix_relay_runs_endpoint_id", "relay_runs", ["endpoint_id"])
    op.create_table(
        "relay_tasks",
        sa.Column("task_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.PrimaryKeyConstraint("task_id", name="pk_relay_tasks"),
    )
    op.create_table(
        "relay_position",
        sa.Column("id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("seq", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_relay_position"),
    )
    op.create_table(
        "relay_messages",
        sa.Column("id", BIG_ID, sa.Identity(), nullable=False),
        sa.Column("endpoint_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("task_id", sa.Uuid(as_uuid=False)),
        sa.Column("attempt", sa.Integer(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger()),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("status", sa.Integer()),
        sa.Column("error", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_relay_messages"),
    )
    op.create_index("ix_relay_messages_due", "relay_messages", ["endpoint_id", "due_at_ms", "id"])


def downgrade() -> None:
    for table in ("relay_messages", "relay_position", "relay_tasks", "relay_runs", "relay_endpoints"):
        op.drop_table(table)
