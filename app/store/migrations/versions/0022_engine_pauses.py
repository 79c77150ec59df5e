"""Engines that are paused because their answers fail, and the runs that want that.

Revision: 0022, after 0021. Only adds: code of 0021 runs beside it, and sends what is paused.
"""

import sqlalchemy as sa
from alembic import op

revision = "0022"
down_revision = "0021"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column(
        "runs",
        sa.Column("pause_failing_engines", sa.Boolean(), nullable=False, server_default=sa.false()),
    )
    op.create_table(
        "engine_pauses",
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("paused_at_ms", sa.BigInteger()),
        sa.Column("judged_seq", sa.BigInteger(), nullable=False),
        sa.Column("tasks", sa.Integer(), nullable=False),
        sa.Column("usable", sa.Integer(), nullable=False),
        sa.Column("probe_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("usable_in_row", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("account", "task_type", name="pk_engine_pauses"),
    )


def downgrade() -> None:
    op.drop_table("engine_pauses")
    op.drop_column("runs", "pause_failing_engines")
