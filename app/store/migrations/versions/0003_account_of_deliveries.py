"""The account at whose address a delivery came.

Revision: 0003, after 0002. Only adds: code of 0002 runs alongside it, and its rows are not bound to an account.
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("deliveries", sa.Column("account", sa.Text(), nullable=True))


def downgrade() -> None:
    op.drop_column("deliveries", "account")
