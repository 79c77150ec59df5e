"""The page: who is signed in.

Revision: 0031, after 0030. Only adds: code of the version before runs beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0031"
down_revision = "0030"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "page_sessions",
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("sha256", name="pk_page_sessions"),
    )
    op.create_index("ix_page_sessions_expires_at_ms", "page_sessions", ["expires_at_ms"])


def downgrade() -> None:
    op.drop_table("page_sessions")
