"""The messages of one task, for its page: an endpoint that is away for days has millions of others.

Revision: 0037, after 0036. Only adds: code of the version before runs beside it.
"""

from alembic import op

revision = "0037"
down_revision = "0036"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_relay_messages_task_id", "relay_messages", ["task_id"])


def downgrade() -> None:
    op.drop_index("ix_relay_messages_task_id", "relay_messages")
