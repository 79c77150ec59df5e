"""Accounts, schedules, reuse, batches and balances.

Revision: 0002, after 0001. Only adds: code of 0001 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ID = sa.Uuid(as_uuid=False)


def upgrade() -> None:
    op.create_table(
        "schedules",
        sa.Column("id", ID, nullable=False),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("source", sa.Text(), nullable=False),
        sa.Column("options", sa.Text(), nullable=False),
        sa.Column("every_ms", sa.BigInteger(), nullable=False),
        sa.Column("next_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("enabled", sa.Boolean(), nullable=False),
        sa.Column("last_error", sa.Text(), nullable=True),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_schedules"),
        sa.UniqueConstraint("name", name="uq_schedules_name"),
    )
    op.create_table(
        "balances",
        sa.Column("id", BIG_ID, sa.Identity(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("remaining", sa.BigInteger(), nullable=False),
        sa.Column("per_cycle", sa.BigInteger(), nullable=True),
        sa.Column("resets_at_ms", sa.BigInteger(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_balances"),
    )
    op.create_index("ix_balances_account_at_ms", "balances", ["account", "at_ms"])
    # Plain ALTER TABLE: a batch would copy and drop tables that others refer to.
    op.add_column("runs", sa.Column("account", sa.Text(), nullable=False, server_default="default"))
    op.add_column("runs", sa.Column("batch_size", sa.Integer(), nullable=True))
    op.add_column("runs", sa.Column("reuse_within_ms", sa.BigInteger(), nullable=True))
    op.add_column("runs", sa.Column("schedule_id", ID, nullable=True))
    op.add_column("runs", sa.Column("slot_ms", sa.BigInteger(), nullable=True))
    op.create_index("uq_runs_slot", "runs", ["schedule_id", "slot_ms"], unique=True)
    op.add_column("tasks", sa.Column("fingerprint", sa.Text(), nullable=True))
    op.add_column("tasks", sa.Column("reused_from", ID, nullable=True))
    op.create_index("ix_tasks_fingerprint", "tasks", ["fingerprint", "settled_at_ms"])


def downgrade() -> None:
    op.drop_index("ix_tasks_fingerprint", table_name="tasks")
    op.drop_column("tasks", "reused_from")
    op.drop_column("tasks", "fingerprint")
    op.drop_index("uq_runs_slot", table_name="runs")
    for name in ("slot_ms", "schedule_id", "reuse_within_ms", "batch_size", "account"):
        op.drop_column("runs", name)
    op.drop_index("ix_balances_account_at_ms", table_name="balances")
    op.drop_table("balances")
    op.drop_table("schedules")
