"""How often a delivery came again: a row is kept of each, and its repeats are counted.

Revision: 0007, after 0006. Only adds: code of 0006 runs alongside it, and keeps a row of each repeat as before.
Rows of repeats that are there already stay as they are.
"""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("repeats", sa.Integer(), nullable=False, server_default="0"))


def downgrade() -> None:
    op.drop_column("deliveries", "repeats")
