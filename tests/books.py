"""Reads the tables directly and checks what must always be true of them (docs/architecture.md)."""

import contextlib
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa

from app.domain.task import idempotency_key
from app.ports import ReportError
from app.provider.wire import read_answer
from app.store import Store
from app.store.tables import (
    attempts,
    deliveries,
    findings,
    ledger,
    results,
    rollup_changes,
    run_rollup,
    runs,
    submissions,
    tasks,
)
from app.store.write.inbox import unpack, zstd

Row = dict[str, Any]


@dataclass(slots=True)
class Books:
    """Every row of every table that the pipeline writes, at one moment."""

    tasks: list[Row] = field(default_factory=list)
    attempts: list[Row] = field(default_factory=list)
    ledger: list[Row] = field(default_factory=list)
    results: list[Row] = field(default_factory=list)
    deliveries: list[Row] = field(default_factory=list)
    findings: list[Row] = field(default_factory=list)
    submissions: list[Row] = field(default_factory=list)
    runs: list[Row] = field(default_factory=list)
    rollup: list[Row] = field(default_factory=list)
    rollup_changes: list[Row] = field(default_factory=list)

    def every_attempt(self) -> list[Row]:
        """Current and archived attempts alike, with task id and attempt number."""
        return [row | {"task_id": row["id"]} for row in self.tasks] + self.attempts

    def task(self, task_id: str) -> Row:
        return next(row for row in self.tasks if row["id"] == task_id)

    def states(self) -> Counter[str]:
        return Counter(row["state"] for row in self.tasks)

    def entries(self, kind: str) -> dict[str, Decimal]:
        """Idempotency key -> credits of its entries of one kind."""
        return {
            idempotency_key(row["task_id"], row["attempt"]): row["credits"]
            for row in self.ledger
            if row["kind"] == kind
        }

    def posted(self) -> dict[str, Decimal]:
        """Idempotency key -> credits posted; 0 for a void. Keys whose money is open are left out."""
        return dict.fromkeys(self.entries("void"), Decimal(0)) | self.entries("post")


async def read_books(store: Store) -> Books:
    """All rows, read in one transaction; `response` of a result is what its body says."""
    tables = {
        "tasks": tasks,
        "attempts": attempts,
        "ledger": ledger,
        "results": results,
        "deliveries": deliveries,
        "findings": findings,
        "submissions": submissions,
        "runs": runs,
        "rollup": run_rollup,
        "rollup_changes": rollup_changes,
    }

    async def work(connection: Any) -> Books:
        found = {
            name: [dict(row._mapping) for row in await connection.execute(sa.select(table))]
            for name, table in tables.items()
        }
        packed = {d["id"]: (d["encoding"], d["body"]) for d in found["deliveries"]}
        for result in found["results"]:
            with contextlib.suppress(LookupError, ReportError, zstd.ZstdError):
                result["response"] = read_answer(unpack(*packed[result["delivery_id"]])).decode()
        return Books(**found)

    return await store.db.read(work)


def check_books(books: Books) -> None:
    """Invariants 1, 2 and 7 of the design, from the rows alone."""
    every = books.every_attempt()
    for kinds in (("hold",), ("post", "void")):
        entries = Counter((e["task_id"], e["attempt"]) for e in books.ledger if e["kind"] in kinds)
        assert all(n == 1 for n in entries.values()), f"two {kinds} for one attempt"
    posts = sum((e["credits"] for e in books.ledger if e["kind"] == "post"), Decimal(0))
    charged = sum((a["credits_charged"] or Decimal(0) for a in every), Decimal(0))
    assert posts == charged, f"posted {posts}, charged {charged}"
    closed = {(e["task_id"], e["attempt"]) for e in books.ledger if e["kind"] != "hold"}
    open_holds = {
        (e["task_id"], e["attempt"]): e["credits"]
        for e in books.ledger
        if e["kind"] == "hold" and (e["task_id"], e["attempt"]) not in closed
    }
    held = {(a["task_id"], a["attempt"]): a["credits_held"] for a in every if a["money"] == "held"}
    assert open_holds == held
    assert {(a["task_id"], a["attempt"]) for a in every if a["money"] in ("posted", "voided")} == closed
    bought = [a for a in every if a.get("reused_from") is None]
    for attempt in every:
        if attempt not in bought:
            _check_reused(attempt)
    for attempt in bought:
        # Unknown is never 0: the charge is known exactly when the money is closed.
        assert (attempt["credits_charged"] is not None) == (attempt["money"] in ("posted", "voided"))
    kept = {run["id"] for run in books.runs if run["has_rollup"]}
    assert rollup_kept(books, kept) == rollup_of_rows(books, kept)
    answered = {(row["task_id"], row["attempt"]) for row in books.results}
    reused = {(a["task_id"], a["attempt"]) for a in every if a not in bought}
    reported = {(a["task_id"], a["attempt"]) for a in every if a["reported"] is not None}
    assert answered == reported | reused


def rollup_kept(books: Books, run_ids: set[str]) -> dict[Any, list[Any]]:
    """Cell -> attempts and credits, as the database keeps them of runs."""
    return _summed(
        (_cell_of(row, row), [row[name] for name in ("attempts", "held", "charged", "estimate")])
        for row in books.rollup + books.rollup_changes
        if row["run_id"] in run_ids
    )


def rollup_of_rows(books: Books, run_ids: set[str]) -> dict[Any, list[Any]]:
    """The same from the attempts, one by one."""
    of = {row["id"]: row for row in books.tasks}
    nothing = Decimal(0)
    return _summed(
        (
            _cell_of(of[a["task_id"]], a | {"is_current": "id" in a}),
            [
                1,
                (a["credits_held"] or nothing) if a["money"] == "held" else nothing,
                a["credits_charged"] or nothing,
                a["credits_estimate"],
            ],
        )
        for a in books.every_attempt()
        if of[a["task_id"]]["run_id"] in run_ids
    )


def _cell_of(task: Row, row: Row) -> tuple[Any, ...]:
    return task["run_id"], row["is_current"], task["task_type"], row["state"], row["verdict"] or ""


def _summed(cells: Iterable[tuple[Any, list[Any]]]) -> dict[Any, list[Any]]:
    sums: dict[Any, list[Any]] = {}
    for cell, figures in cells:
        sums[cell] = [a + b for a, b in zip(sums.get(cell, [0] * len(figures)), figures, strict=True)]
    return {cell: figures for cell, figures in sums.items() if any(figures)}


async def checked_books(store: Store) -> Books:
    """The rows, after their invariants have been checked."""
    books = await read_books(store)
    check_books(books)
    return books


def _check_reused(attempt: Row) -> None:
    """Answered by another task's result: known to cost nothing, and no report was taken for it."""
    assert (attempt["state"], attempt["money"], attempt["settled_by"]) == ("completed", "none", "reuse")
    assert (attempt["credits_charged"], attempt["credits_held"]) == (Decimal(0), None)
    assert (attempt["reported"], attempt["verdict"], attempt["sends"]) == (None, None, 0)
