"""The batch dialect: files, and what its batches say beyond runs.

Revision: 0029, after 0028. Only adds: code of the version before runs beside it.
"""

import sqlalchemy as sa
from alembic import op

revision = "0029"
down_revision = "0028"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "batch_files",
        sa.Column("id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("filename", sa.Text(), nullable=False),
        sa.Column("body_bytes", sa.BigInteger(), nullable=False),
        sa.Column("sha256", sa.Text()),
        sa.PrimaryKeyConstraint("id", name="pk_batch_files"),
    )
    op.create_index("ix_batch_files_account_id", "batch_files", ["account", "id"])
    op.create_index("ix_batch_files_expires_at_ms", "batch_files", ["expires_at_ms"])
    op.create_table(
        "batch_file_pieces",
        sa.Column("file_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("number", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("body", sa.LargeBinary(), nullable=False),
        sa.PrimaryKeyConstraint("file_id", "number", name="pk_batch_file_pieces"),
    )
    op.create_table(
        "batches",
        sa.Column("run_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("token_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("account", sa.Text(), nullable=False),
        sa.Column("idempotency_key", sa.Text()),
        sa.Column("request_sha256", sa.Text(), nullable=False),
        sa.Column("input_file_id", sa.Uuid(as_uuid=False), nullable=False),
        sa.Column("endpoint", sa.Text(), nullable=False),
        sa.Column("completion_window", sa.Text(), nullable=False),
        sa.Column("metadata", sa.Text()),
        sa.Column("created_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expires_at_ms", sa.BigInteger(), nullable=False),
        sa.Column("expired_at_ms", sa.BigInteger()),
        sa.Column("failed_at_ms", sa.BigInteger()),
        sa.Column("errors", sa.Text()),
        sa.PrimaryKeyConstraint("run_id", name="pk_batches"),
        sa.UniqueConstraint("token_id", "idempotency_key", name="uq_batches_token_id_idempotency_key"),
    )
    op.create_index("ix_batches_account_run_id", "batches", ["account", "run_id"])


def downgrade() -> None:
    for table in ("batches", "batch_file_pieces", "batch_files"):
        op.drop_table(table)
