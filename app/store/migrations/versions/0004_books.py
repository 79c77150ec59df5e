"""Entries of an account beside those of its tasks, why an entry is what it is, notices.

Revision: 0004, after 0003. Only adds: code of 0003 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ID = sa.Uuid(as_uuid=False)
CYCLE_KINDS = sa.text("kind IN ('allocation', 'expiry')")


def upgrade() -> None:
    op.add_column("ledger", sa.Column("reason", sa.Text(), nullable=True))
    op.add_column("balances", sa.Column("source", sa.Text(), nullable=False, server_default="credits"))
    op.create_table(
        "account_entries",
        sa.Column("id", BIG_ID, sa.Identity(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("cycle_ms", sa.BigInteger(), nullable=True),
        sa.Column("run_id", ID, nullable=True),
        sa.Column("task_id", ID, nullable=True),
        sa.Column("attempt", sa.Integer(), nullable=True),
        sa.Column("reason", sa.Text(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_account_entries"),
    )
    op.create_index("ix_account_entries_account_at_ms", "account_entries", ["account", "at_ms"])
    op.create_index(
        "uq_account_entries_cycle", "account_entries", ["account", "kind", "cycle_ms"], unique=True,
        postgresql_where=CYCLE_KINDS, sqlite_where=CYCLE_KINDS,
    )
    op.create_table(
        "notices",
        sa.Column("id", ID, nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("run_id", ID, nullable=True),
        sa.Column("occasion", sa.Text(), nullable=False),
        sa.Column("body", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("tries", sa.Integer(), nullable=False),
        sa.Column("due_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("sent_at_ms", sa.BigInteger(), nullable=True),
        sa.Column("error", sa.Text(), nullable=True),
        sa.PrimaryKeyConstraint("id", name="pk_notices"),
        sa.UniqueConstraint("occasion", name="uq_notices_occasion"),
    )


def downgrade() -> None:
    op.drop_table("notices")
    op.drop_index("uq_account_entries_cycle", table_name="account_entries")
    op.drop_index("ix_account_entries_account_at_ms", table_name="account_entries")
    op.drop_table("account_entries")
    op.drop_column("balances", "source")
    op.drop_column("ledger", "reason")
