"""Indexes in the order of lists: findings of a run, endpoints of an account, runs of an endpoint; and by which
old keys of tasks are found.

Revision: 0030, after 0029. Only adds: code of the version before runs beside it.
"""

from alembic import op

revision = "0030"
down_revision = "0029"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_index("ix_findings_run_id_id", "findings", ["run_id", "id"])
    op.create_index("ix_relay_endpoints_account_id", "relay_endpoints", ["account", "id"])
    op.create_index("ix_relay_runs_endpoint_id_run_id", "relay_runs", ["endpoint_id", "run_id"])
    op.create_index("ix_task_keys_task_id", "task_keys", ["task_id"])


def downgrade() -> None:
    op.drop_index("ix_task_keys_task_id", table_name="task_keys")
    op.drop_index("ix_relay_runs_endpoint_id_run_id", table_name="relay_runs")
    op.drop_index("ix_relay_endpoints_account_id", table_name="relay_endpoints")
    op.drop_index("ix_findings_run_id_id", table_name="findings")
