"""Runs of a restored backup; findings by task, of which a changed price makes one for every task of a run.

Revision: 0005, after 0004. Only adds: code of 0004 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("restored", sa.Boolean(), nullable=False, server_default=sa.false()))
    op.create_index("ix_findings_task_id", "findings", ["task_id"])


def downgrade() -> None:
    op.drop_index("ix_findings_task_id", table_name="findings")
    op.drop_column("runs", "restored")
