"""A code beside the reason of a run, for what programs compare.

Revision: 0006, after 0005. Only adds: code of 0005 runs alongside it and leaves it null.
"""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("reason_code", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("runs", "reason_code")
