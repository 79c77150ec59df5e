"""Indexes for what looks at notices and balances over and over.

Revision: 0009, after 0008. Only adds: code of 0008 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None

NEW = sa.text("state = 'new'")


def upgrade() -> None:
    op.create_index("ix_notices_run_id", "notices", ["run_id"])
    op.create_index("ix_notices_due", "notices", ["due_at_ms"], postgresql_where=NEW, sqlite_where=NEW)
    op.create_index("ix_balances_account_source_at_ms", "balances", ["account", "source", "at_ms"])


def downgrade() -> None:
    op.drop_index("ix_balances_account_source_at_ms", table_name="balances")
    op.drop_index("ix_notices_due", table_name="notices")
    op.drop_index("ix_notices_run_id", table_name="notices")
