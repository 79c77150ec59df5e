"""What records say for their authors, in a table of its own.

Revision: 0017, after 0016. Only adds: code of 0016 runs beside it, and stores no such columns.
"""

import sqlalchemy as sa
from alembic import op

revision = "0017"
down_revision = "0016"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "task_metadata",
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("ordinal", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("line", sa.Integer(), nullable=False),
        sa.Column("custom_id", sa.Text()),
        sa.Column("metadata", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", "ordinal", name="pk_task_metadata"),
        sqlite_with_rowid=False,
    )
    has_custom_id = sa.text("custom_id IS NOT NULL")
    op.create_index(
        "uq_task_metadata_custom_id",
        "task_metadata",
        ["run_id", "custom_id"],
        unique=True,
        postgresql_where=has_custom_id,
        sqlite_where=has_custom_id,
    )


def downgrade() -> None:
    op.drop_table("task_metadata")
