"""What must not grow with the history: ends of runs, sums of what they spent, indexes of what is open.

Revision: 0008, after 0007. Only adds: code of 0007 runs alongside it. The sums are kept by triggers, so they are
right whichever version writes. Going through the tasks once for the sums and once for each index takes about
10 s for each million; meanwhile nobody writes them, and deliveries are received as ever.
"""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ID = sa.Uuid(as_uuid=False)
OPEN_RUN = sa.text("state IN ('loading', 'running', 'paused', 'stopped')")
CANCELLED_OPEN_RUN = sa.text("state = 'cancelled' AND finished_at_ms IS NULL")
OPEN = sa.text("state IN ('pending', 'submitting', 'submitted')")
SENT_BEFORE = sa.text("state = 'pending' AND first_sent_at_ms IS NOT NULL")
RETRIED = sa.text("attempt > 1")

SPENT = (
    "coalesce({row}credits_charged, {row}credits_held, CASE WHEN {row}sends > 0 "
    "AND {row}state NOT IN ('rejected', 'cancelled') THEN {row}credits_estimate ELSE 0 END)"
)
COLUMNS = "state, sends, credits_estimate, credits_held, credits_charged"


def upgrade() -> None:
    op.create_table(
        "run_spending",
        sa.Column("run_id", ID, nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("run_id", name="pk_run_spending"),
    )
    op.create_table(
        "spending_changes",
        sa.Column("id", BIG_ID, sa.Identity(), nullable=False),
        sa.Column("run_id", ID, nullable=False),
        sa.Column("credits", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_spending_changes"),
    )
    op.create_index("ix_spending_changes_run_id", "spending_changes", ["run_id"])
    # From here on nobody writes tasks until all is committed, so that the sums begin right.
    _keep_sums()
    op.create_index(
        "ix_tasks_open", "tasks",
        ["run_id", "state", sa.literal_column("priority DESC"), "ordinal", "not_before_ms"],
        postgresql_where=OPEN, sqlite_where=OPEN,
    )
    op.create_index(
        "ix_tasks_sent_before", "tasks", ["first_sent_at_ms"],
        postgresql_where=SENT_BEFORE, sqlite_where=SENT_BEFORE,
    )
    op.create_index(
        "ix_tasks_retried", "tasks", ["run_id"], postgresql_where=RETRIED, sqlite_where=RETRIED
    )
    _sum_up()
    op.add_column("runs", sa.Column("finished_at_ms", sa.BigInteger(), nullable=True))
    op.create_index(
        "ix_runs_open", "runs", ["account", "state"], postgresql_where=OPEN_RUN, sqlite_where=OPEN_RUN
    )
    op.create_index(
        "ix_runs_cancelled_open", "runs", ["id"],
        postgresql_where=CANCELLED_OPEN_RUN, sqlite_where=CANCELLED_OPEN_RUN,
    )
    _note_ends()


def downgrade() -> None:
    _let_sums_go()
    op.drop_index("ix_runs_cancelled_open", table_name="runs")
    op.drop_index("ix_runs_open", table_name="runs")
    op.drop_column("runs", "finished_at_ms")
    for name in ("ix_tasks_retried", "ix_tasks_sent_before", "ix_tasks_open"):
        op.drop_index(name, table_name="tasks")
    op.drop_table("spending_changes")
    op.drop_table("run_spending")


def _keep_sums() -> None:
    statements = _postgresql() if op.get_bind().dialect.name == "postgresql" else _sqlite()
    for statement in statements:
        op.execute(statement)


def _let_sums_go() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for table in ("tasks", "attempts"):
        for event in ("insert", "update", "delete"):
            where = f" ON {table}" if on_postgresql else ""
            op.execute(f"DROP TRIGGER spending_{table}_{event}{where}")
        if on_postgresql:
            op.execute(f"DROP FUNCTION note_spending_{table}()")


def _postgresql() -> list[str]:
    """A row for each statement and run: a sum in one row would make all settlements of a run wait for each
    other until they are committed."""
    statements = []
    for table in ("tasks", "attempts"):
        run_id = "r.run_id" if table == "tasks" else "t.run_id"
        join = "" if table == "tasks" else " JOIN tasks t ON t.id = r.task_id"
        new, old = (
            f"SELECT {run_id} AS run_id, {sign}({SPENT.format(row='r.')}) AS credits FROM {rows} r{join}"
            for rows, sign in (("new_rows", ""), ("old_rows", "-"))
        )
        noting = "INSERT INTO spending_changes (run_id, credits) SELECT run_id, sum(credits) FROM ({of}) each "
        noting += "GROUP BY run_id HAVING sum(credits) <> 0;"
        statements.append(
            f"CREATE FUNCTION note_spending_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF TG_OP = 'INSERT' THEN {noting.format(of=new)} "
            f"ELSIF TG_OP = 'DELETE' THEN {noting.format(of=old)} "
            f"ELSE {noting.format(of=f'{new} UNION ALL {old}')} END IF; RETURN NULL; END $$"
        )
        for event, seen in (
            ("insert", "NEW TABLE AS new_rows"), ("delete", "OLD TABLE AS old_rows"),
            ("update", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        ):
            statements.append(
                f"CREATE TRIGGER spending_{table}_{event} AFTER {event.upper()} ON {table} "
                f"REFERENCING {seen} FOR EACH STATEMENT EXECUTE FUNCTION note_spending_{table}()"
            )
    return statements


def _sqlite() -> list[str]:
    """The sums themselves: there is one writer at a time."""
    statements = []
    for table in ("tasks", "attempts"):
        new, old = SPENT.format(row="new."), SPENT.format(row="old.")
        for event, row, change in (
            ("insert", "new", new), ("update", "new", f"{new} - {old}"), ("delete", "old", f"-{old}")
        ):
            run_id = f"{row}.run_id"
            if table == "attempts":
                run_id = f"(SELECT run_id FROM tasks WHERE id = {row}.task_id)"
            of = f" OF {COLUMNS}" if event == "update" else ""
            statements.append(
                f"CREATE TRIGGER spending_{table}_{event} AFTER {event.upper()}{of} ON {table} "
                f"WHEN {change} <> 0 BEGIN INSERT INTO run_spending (run_id, credits) "
                f"VALUES ({run_id}, {change}) ON CONFLICT (run_id) DO UPDATE "
                "SET credits = credits + excluded.credits; END"
            )
    return statements


def _sum_up() -> None:
    """What was spent before there were triggers; those have noted nothing yet."""
    now, before = SPENT.format(row=""), SPENT.format(row="a.")
    op.execute(
        "INSERT INTO run_spending (run_id, credits) SELECT run_id, sum(credits) FROM ("  # noqa: S608
        f"SELECT run_id, {now} AS credits FROM tasks UNION ALL "
        f"SELECT t.run_id, {before} FROM attempts a JOIN tasks t ON t.id = a.task_id) each GROUP BY run_id"
    )


def _note_ends() -> None:
    """When runs ended that are over. Their state stays: processes of the version before know no other. The
    sweep marks them."""
    op.execute(
        "UPDATE runs SET finished_at_ms = coalesce((SELECT max(settled_at_ms) FROM tasks "
        "WHERE tasks.run_id = runs.id), created_at_ms) WHERE state <> 'loading' AND NOT EXISTS "
        "(SELECT 1 FROM tasks WHERE tasks.run_id = runs.id AND state IN ('pending', 'submitting', 'submitted'))"
    )
