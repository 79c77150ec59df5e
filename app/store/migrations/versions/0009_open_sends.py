"""How many earlier sends of its key nobody had answered for when a refusal was recorded.

Revision: 0009, after 0008. Only adds: code of 0008 runs beside it and leaves it null.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("submissions", sa.Column("open_sends", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("submissions", "open_sends")
