"""Tasks that come one by one: the standing run of each token and day, and the callers' own keys.

Revision: 0027, after 0025. Only adds: code of the version before runs beside it; a standing run that it marks
as finished goes on with the next task.
"""

import sqlalchemy as sa
from alembic import op

revision = "0027"
down_revision = "0025"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "standing_runs",
        sa.Column("token_id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("day_ms", sa.BigInteger(), primary_key=True, autoincrement=False),
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("last_ordinal", sa.Integer(), nullable=False),
        sa.UniqueConstraint("run_id", name="uq_standing_runs_run_id"),
    )
    op.create_table(
        "task_keys",
        sa.Column("token_id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("key", sa.Text(), primary_key=True),
        sa.Column("task_id", sa.Uuid(as_uuid=False), nullable=False),
    )


def downgrade() -> None:
    op.drop_table("task_keys")
    op.drop_table("standing_runs")
