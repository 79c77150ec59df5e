"""Who may use the API, what they did, and when a run changed its state.

Revision: 0023, after 0022. Only adds: code of 0022 runs beside it, and leaves the times of states empty.
"""

import sqlalchemy as sa
from alembic import op

revision = "0023"
down_revision = "0022"
branch_labels = None
depends_on = None

TIMES = ("started_at_ms", "paused_at_ms", "stopped_at_ms", "cancelled_at_ms")


def upgrade() -> None:
    op.create_table(
        "tokens",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("name", sa.Text(), nullable=False),
        sa.Column("prefix", sa.Text(), nullable=False),
        sa.Column("sha256", sa.Text(), nullable=False),
        sa.Column("scope", sa.Text(), nullable=False),
        sa.Column("account", sa.Text()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger()),
        sa.Column("revoked_at_ms", sa.BigInteger()),
        sa.Column("last_used_at_ms", sa.BigInteger()),
        sa.UniqueConstraint("prefix", name="uq_tokens_prefix"),
    )
    is_valid = sa.text("revoked_at_ms IS NULL")
    op.create_index(
        "uq_tokens_name", "tokens", ["name"], unique=True, postgresql_where=is_valid, sqlite_where=is_valid
    )
    op.create_table(
        "actions",
        sa.Column("id", sa.Uuid(as_uuid=False), primary_key=True),
        sa.Column("at_ms", sa.BigInteger(), nullable=False),
        sa.Column("actor", sa.Text(), nullable=False),
        sa.Column("token_id", sa.Uuid(as_uuid=False)),
        sa.Column("action", sa.Text(), nullable=False),
        sa.Column("subject", sa.Text()),
        sa.Column("request_id", sa.Text()),
        sa.Column("status", sa.Integer()),
    )
    for name in TIMES:
        op.add_column("runs", sa.Column(name, sa.BigInteger()))
    op.create_index("ix_runs_account_id", "runs", ["account", "id"])


def downgrade() -> None:
    op.drop_index("ix_runs_account_id", "runs")
    for name in TIMES:
        op.drop_column("runs", name)
    op.drop_table("actions")
    op.drop_table("tokens")
