"""Counts and credits of each run, kept by the database itself, so that nobody counts tasks to show a run.

Revision: 0024, after 0023. Only adds: code of 0023 runs beside it, and its writes are counted by the triggers as
ours are. Nothing is counted here: of a run that is older than the triggers, these note what changes, and a sweep
adds what it was before. To make them, writers of tasks are waited for once, and kept waiting for no longer.
"""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0024"
down_revision = "0023"
branch_labels = None
depends_on = None

BIG_ID = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
ID = sa.Uuid(as_uuid=False)
CELL = ("run_id", "is_current", "task_type", "state", "verdict")
FIGURES = ("attempts", "held", "charged", "estimate")
SEEN = (
    "state", "verdict", "money", "credits_held", "credits_charged", "credits_estimate",
)


def upgrade() -> None:
    op.create_table(
        "run_rollup",
        *_columns(),
        sa.Column("changes", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint(*CELL, name="pk_run_rollup"),
        sqlite_with_rowid=False,
    )
    op.create_table(
        "rollup_changes",
        sa.Column("id", BIG_ID, sa.Identity(), nullable=False),
        *_columns(),
        sa.PrimaryKeyConstraint("id", name="pk_rollup_changes"),
    )
    op.create_index("ix_rollup_changes_run_id", "rollup_changes", ["run_id"])
    op.add_column(
        "runs", sa.Column("has_rollup", sa.Boolean(), nullable=False, server_default=sa.false())
    )
    op.create_index(
        "ix_runs_without_rollup", "runs", ["id"],
        postgresql_where=sa.text("NOT has_rollup"), sqlite_where=sa.text("has_rollup = 0"),
    )
    _keep_counts()


def downgrade() -> None:
    on_postgresql = op.get_bind().dialect.name == "postgresql"
    for table in ("tasks", "attempts"):
        for event in ("insert", "update", "delete"):
            where = f" ON {table}" if on_postgresql else ""
            op.execute(f"DROP TRIGGER rollup_{table}_{event}{where}")
        if on_postgresql:
            op.execute(f"DROP FUNCTION note_rollup_{table}()")
    op.drop_index("ix_runs_without_rollup", table_name="runs")
    op.drop_column("runs", "has_rollup")
    op.drop_table("rollup_changes")
    op.drop_table("run_rollup")


def _columns() -> list[sa.Column[Any]]:
    return [
        sa.Column("run_id", ID, nullable=False),
        sa.Column("is_current", sa.Boolean(), nullable=False),
        sa.Column("task_type", sa.Text(), nullable=False),
        sa.Column("state", sa.Text(), nullable=False),
        sa.Column("verdict", sa.Text(), nullable=False),
        *(sa.Column(name, sa.BigInteger(), nullable=False) for name in FIGURES),
    ]


def _keep_counts() -> None:
    statements = _postgresql() if op.get_bind().dialect.name == "postgresql" else _sqlite()
    for statement in statements:
        op.execute(statement)


def _figures(row: str, sign: str) -> str:
    return (
        f"{sign}1, {sign}CASE WHEN {row}.money = 'held' THEN coalesce({row}.credits_held, 0) ELSE 0 END, "
        f"{sign}coalesce({row}.credits_charged, 0), {sign}{row}.credits_estimate"
    )


def _cell(table: str, row: str, yes: str, no: str) -> str:
    """A row of a table as CELL; a replaced attempt is of its task `t`."""
    of, is_current = (row, yes) if table == "tasks" else ("t", no)
    return f"{of}.run_id, {is_current}, {of}.task_type, {row}.state, coalesce({row}.verdict, '')"


def _postgresql() -> list[str]:
    """A row for each statement and cell, so that settlements of a run do not wait for each other."""
    statements = []
    columns = ", ".join((*CELL, *FIGURES))
    sums = ", ".join(f"sum({name})" for name in FIGURES)
    any_left = " OR ".join(f"sum({name}) <> 0" for name in FIGURES)
    for table in ("tasks", "attempts"):
        join = "" if table == "tasks" else " JOIN tasks t ON t.id = r.task_id"
        cell = _cell(table, "r", "true", "false")
        new, old = (
            f"SELECT {cell}, {_figures('r', sign)} FROM {rows} r{join}"
            for rows, sign in (("new_rows", ""), ("old_rows", "-"))
        )
        noting = f"INSERT INTO rollup_changes ({columns}) SELECT {', '.join(CELL)}, {sums} "
        noting += f"FROM ({{of}}) each ({columns}) GROUP BY {', '.join(CELL)} HAVING {any_left};"
        statements.append(
            f"CREATE FUNCTION note_rollup_{table}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
            f"IF TG_OP = 'INSERT' THEN {noting.format(of=new)} "
            f"ELSIF TG_OP = 'DELETE' THEN {noting.format(of=old)} "
            f"ELSE {noting.format(of=f'{new} UNION ALL {old}')} END IF; RETURN NULL; END $$"
        )
        for event, seen in (
            ("insert", "NEW TABLE AS new_rows"), ("delete", "OLD TABLE AS old_rows"),
            ("update", "OLD TABLE AS old_rows NEW TABLE AS new_rows"),
        ):
            statements.append(
                f"CREATE TRIGGER rollup_{table}_{event} AFTER {event.upper()} ON {table} "
                f"REFERENCING {seen} FOR EACH STATEMENT EXECUTE FUNCTION note_rollup_{table}()"
            )
    return statements


def _sqlite() -> list[str]:
    """The sums themselves: there is one writer at a time."""
    statements = []
    columns = ", ".join((*CELL, *FIGURES, "changes"))
    adding = ", ".join(f"{name} = {name} + excluded.{name}" for name in (*FIGURES, "changes"))
    for table in ("tasks", "attempts"):
        source = "" if table == "tasks" else "FROM tasks t WHERE t.id = {row}.task_id"
        # Without a condition of its own, ON would be read as that of a join.
        source = source or "WHERE true"

        def noting(row: str, sign: str, table: str = table, source: str = source) -> str:
            return (
                f"INSERT INTO run_rollup ({columns}) SELECT {_cell(table, row, '1', '0')}, "
                f"{_figures(row, sign)}, 1 {source.format(row=row)} ON CONFLICT DO UPDATE SET {adding};"
            )

        seen = SEEN if table == "attempts" else ("run_id", "task_type", *SEEN)
        changed = " OR ".join(f"new.{name} IS NOT old.{name}" for name in seen)
        for event, when, body in (
            ("INSERT", "", noting("new", "")),
            (f"UPDATE OF {', '.join(seen)}", f"WHEN {changed} ", noting("old", "-") + noting("new", "")),
            ("DELETE", "", noting("old", "-")),
        ):
            name = f"rollup_{table}_{event.split()[0].lower()}"
            statements.append(f"CREATE TRIGGER {name} AFTER {event} ON {table} {when}BEGIN {body} END")
    return statements
