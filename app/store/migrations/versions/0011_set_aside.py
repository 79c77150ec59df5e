"""An index of the deliveries that are set aside: they are few, and are counted often.

Revision: 0011, after 0010. Only adds: code of 0010 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NAME = "ix_deliveries_set_aside"


def upgrade() -> None:
    is_set_aside = sa.text("state = 'quarantined'")
    op.create_index(
        NAME, "deliveries", ["received_at_ms"], postgresql_where=is_set_aside, sqlite_where=is_set_aside
    )


def downgrade() -> None:
    op.drop_index(NAME, "deliveries")
