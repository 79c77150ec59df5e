"""How many findings of a run were pruned, and an index by which the newest notice of a kind is found.

Revision: 0019, after 0018. Only adds: code of 0018 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0019"
down_revision = "0018"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pruned_findings",
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", "verdict", name="pk_pruned_findings"),
    )
    op.create_index("ix_notices_account_kind", "notices", ["account", "kind", "id"])


def downgrade() -> None:
    op.drop_index("ix_notices_account_kind", "notices")
    op.drop_table("pruned_findings")
