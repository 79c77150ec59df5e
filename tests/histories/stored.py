"""Books in the real store, by the real services; one database for all histories, emptied before each."""

import asyncio
import contextlib
import os
import tempfile
from collections.abc import Coroutine, Iterator, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

from app.domain.credits import ExplanationCode
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import Money, TaskSpec, TaskState, idempotency_key, new_id, parse_idempotency_key
from app.domain.verdicts import Verdict
from app.provider.wire import read_answer, read_report
from app.services.settle import settle
from app.store import Database, Store
from app.store.migrate import migrate
from tests.books import check_books, read_books
from tests.database import delete_all_rows
from tests.histories.books import SAFE_MS, AttemptRow, FindingRow, LedgerRow, Rows

T = TypeVar("T")
YEAR_MS = 365 * 86_400_000


@contextlib.contextmanager
def stored_books() -> "Iterator[StoredBooks]":
    """Books in an SQLite file of their own, in memory where the machine has a place for it: what a history
    costs is the statements, and no disk need be waited for."""
    memory = Path("/dev/shm")
    place = memory if os.access(memory, os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=place) as folder, asyncio.Runner() as runner:
        database = Database(f"sqlite:///{folder}/histories.db")
        runner.run(migrate(database))
        store = Store(database, read_answer)
        try:
            yield StoredBooks(runner, store)
        finally:
            runner.run(store.close())


class StoredBooks:
    """What a history asks of our books. Times are UTC milliseconds."""

    def __init__(self, runner: asyncio.Runner, store: Store) -> None:
        self._runner = runner
        self._store = store
        self._run_id = ""

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def load(self, specs: Sequence[tuple[TaskSpec, Decimal]], now_ms: int) -> None:
        async def work() -> None:
            await self._store.db.write(delete_all_rows)
            self._run_id = await self._store.runs.create_run(
                name="history", source="-", budget=None, now_ms=now_ms
            )
            await self._store.runs.add_tasks(self._run_id, specs, now_ms)
            await self._store.runs.start_run_if_loading(self._run_id, sha256="", bad_lines=0)

        self._run(work())

    def claim(self, limit: int, now_ms: int) -> list[ClaimedTask]:
        async def work() -> list[ClaimedTask]:
            await self._store.runs.resume_run_if_halted(self._run_id)
            await self._store.submissions.expire_unidentified(
                sent_before_ms=now_ms - SAFE_MS, reason="history"
            )
            return await self._store.submissions.claim_pending(
                limit=limit, claim="history", now_ms=now_ms, lease_until_ms=now_ms + YEAR_MS
            )

        return self._run(work())

    def record(self, ended: Sequence[Submission]) -> None:
        self._run(self._store.submissions.record_submissions(ended))

    def receive(self, bodies: Sequence[bytes], source: Source, now_ms: int) -> None:
        """Commit raw reports and settle them, all in one batch."""

        async def work() -> None:
            raw = [RawDelivery(new_id(now_ms), source, now_ms, body) for body in bodies]
            await self._store.inbox.store_deliveries(raw, due_at_ms=now_ms)
            ids = [delivery.id for delivery in raw]
            done = await settle(self._store, read_report, ids, clock=lambda: now_ms, unmatched_ms=0)
            assert (done.quarantined, done.left) == (0, 0)

        self._run(work())

    def give_up(self, key: str) -> None:
        """The provider no longer knows the task: the work is closed, the money stays open."""
        attempt = parse_idempotency_key(key)
        assert attempt is not None
        self._run(self._store.polls.expire_if_unreported([attempt], code="vanished", reason="history"))

    def retry(self, task_id: str, now_ms: int) -> None:
        assert self._run(self._store.retries.retry_tasks_if_closed([task_id], now_ms)) == 1

    def rows(self) -> Rows:
        books = self._run(read_books(self._store))
        check_books(books)
        types = {row["id"]: row["task_type"] for row in books.tasks}
        order = {row["id"]: row["ordinal"] for row in books.tasks}
        every = sorted(books.every_attempt(), key=lambda a: (a["attempt"], order[a["task_id"]]))
        return Rows(
            [_attempt(row, types[row["task_id"]]) for row in every],
            [
                LedgerRow(
                    _key(row),
                    row["kind"],
                    row["credits"],
                    row["at_ms"],
                    ExplanationCode(row["reason"]) if row["reason"] else None,
                )
                for row in sorted(books.ledger, key=lambda row: int(row["id"]))
            ],
            [
                FindingRow(_key(row) if row["task_id"] else None, Verdict(row["verdict"]), row["detail"])
                for row in books.findings
            ],
        )


def _key(row: dict[str, Any]) -> str:
    return idempotency_key(row["task_id"], row["attempt"])


def _attempt(row: dict[str, Any], task_type: str) -> AttemptRow:
    return AttemptRow(
        _key(row),
        row["task_id"],
        TaskState(row["state"]),
        Money(row["money"]),
        task_type,
        row["credits_estimate"],
        row["credits_held"],
        row["credits_to_charge"],
        row["credits_charged"],
        Verdict(row["verdict"]) if row["verdict"] else None,
        row["provider_task_id"],
        row["first_sent_at_ms"],
    )
