"""One copy of each answer: a result points to the body it came in, and says its size and hash.

Revision: 0013, after 0012. Processes of the version before go on: what they insert loses its text by a trigger.
`migrate` copies most rows before, in batches; here the rest follows, and the old table goes (narrow_results.py).
"""

from alembic import op

from app.store.migrations import narrow_results

revision = "0013"
down_revision = "0012"
branch_labels = None
depends_on = None


def upgrade() -> None:
    connection = op.get_bind()
    if narrow_results.begin(connection):
        narrow_results.end(connection)


def downgrade() -> None:
    raise NotImplementedError("answers are not written out again: restore a backup from before 0013")
