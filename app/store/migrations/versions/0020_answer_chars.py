"""How much text each answer has, so that a report counts those that are of no use.

Revision: 0020, after 0019. Only adds: code of 0019 runs beside it, and leaves the column blank.
"""

import sqlalchemy as sa
from alembic import op

revision = "0020"
down_revision = "0019"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("results", sa.Column("answer_chars", sa.Integer()))


def downgrade() -> None:
    op.drop_column("results", "answer_chars")
