"""Where each process says that it is reached.

Revision: 0016, after 0015. Only adds: code of 0015 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0016"
down_revision = "0015"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("processes", sa.Column("address", sa.Text()))


def downgrade() -> None:
    op.drop_column("processes", "address")
