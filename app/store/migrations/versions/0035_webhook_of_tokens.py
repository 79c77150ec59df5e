"""Where results of all that a token brings are pushed to.

Revision: 0035, after 0033. Only adds: code of the version before runs beside it, and pushes what names a URL
itself.
"""

import sqlalchemy as sa
from alembic import op

revision = "0035"
down_revision = "0033"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("tokens", sa.Column("webhook_url", sa.Text()))


def downgrade() -> None:
    op.drop_column("tokens", "webhook_url")
