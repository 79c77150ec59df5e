"""Receipts of what was pruned, and runs of which nothing may be.

Revision: 0015, after 0014. Only adds: code of 0014 runs alongside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0015"
down_revision = "0014"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("runs", sa.Column("retained_at_ms", sa.BigInteger()))
    op.create_table(
        "receipts",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("kind", sa.Text(), nullable=False),
        sa.Column("from_ms", sa.BigInteger(), nullable=False),
        sa.Column("until_ms", sa.BigInteger(), nullable=False),
        sa.Column("begun_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("row_count", sa.BigInteger(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("credits_charged", sa.BigInteger(), nullable=False),
        sa.Column("kept", sa.BigInteger()),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("location", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_receipts"),
        sa.UniqueConstraint("kind", "from_ms", name="uq_receipts_kind_from_ms"),
    )


def downgrade() -> None:
    op.drop_table("receipts")
    op.drop_column("runs", "retained_at_ms")
