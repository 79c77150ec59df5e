"""Tasks that may be sent again, in the order of their source: found among millions by who retries them.

Revision: 0038, after 0037. Only adds: code of the version before runs beside it. Goes through the tasks once;
meanwhile nobody writes them, and deliveries are received as ever.
"""

import sqlalchemy as sa
from alembic import op

revision = "0038"
down_revision = "0037"
branch_labels = None
depends_on = None

RETRYABLE = sa.text("state IN ('expired', 'failed', 'rejected')")


def upgrade() -> None:
    op.create_index(
        "ix_tasks_retryable", "tasks", ["run_id", "ordinal"], postgresql_where=RETRYABLE, sqlite_where=RETRYABLE
    )


def downgrade() -> None:
    op.drop_index("ix_tasks_retryable", "tasks")
