"""How many earlier sends of its key nobody had answered for when a refusal was recorded.

Revision: 0010, after 0009. Only adds: code of 0009 runs alongside it and leaves it null.
"""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("submissions", sa.Column("open_sends", sa.Integer(), nullable=True))


def downgrade() -> None:
    op.drop_column("submissions", "open_sends")
