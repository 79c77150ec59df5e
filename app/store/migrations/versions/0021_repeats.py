"""Which tasks are samples of one record.

Revision: 0021, after 0020. Only adds: code of 0020 runs beside it, and knows each sample as a task.
"""

import sqlalchemy as sa
from alembic import op

revision = "0021"
down_revision = "0020"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_repeats",
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("first_ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("repeats", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "first_ordinal", name="pk_task_repeats"),
        sqlite_with_rowid=False,
    )


def downgrade() -> None:
    op.drop_table("task_repeats")
