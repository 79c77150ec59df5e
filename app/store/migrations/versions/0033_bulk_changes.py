"""What is done to all tasks, or runs, that match a filter.

Revision: 0033, after 0031. Only adds: code of the version before runs beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0033"
down_revision = "0031"
branch_labels = None
depends_on = None

IS_RUNNING = sa.text("state = 'running'")


def upgrade() -> None:
    op.create_table(
        "bulk_changes",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("verb", sa.Text(), nullable=False),
        sa.Column("filter", sa.Text(), nullable=False),
        sa.Column("even_if_held", sa.Boolean(), nullable=False),
        sa.Column("account", sa.Text()),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Uuid(as_uuid=False)),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("matched", sa.BigInteger(), nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.Column("left_held", sa.BigInteger(), nullable=False),
        sa.Column("left_answered", sa.BigInteger(), nullable=False),
        sa.Column("held", sa.BigInteger(), nullable=False),
        sa.Column("done_matched", sa.BigInteger(), nullable=False),
        sa.Column("done_credits", sa.BigInteger(), nullable=False),
        sa.Column("done_left_held", sa.BigInteger(), nullable=False),
        sa.Column("done_left_answered", sa.BigInteger(), nullable=False),
        sa.Column("done_held", sa.BigInteger(), nullable=False),
        sa.Column("place_run_id", sa.Uuid(as_uuid=False)),
        sa.Column("place_ordinal", sa.Integer()),
        sa.Column("confirmed_at_ms", sa.BigInteger()),
        sa.Column("finished_at_ms", sa.BigInteger()),
        sa.Column("reason", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_bulk_changes"),
    )
    op.create_index("ix_bulk_changes_account_id", "bulk_changes", ["account", "id"])
    op.create_index(
        "ix_bulk_changes_running",
        "bulk_changes",
        ["id"],
        postgresql_where=IS_RUNNING,
        sqlite_where=IS_RUNNING,
    )


def downgrade() -> None:
    op.drop_table("bulk_changes")
