"""Old tasks with all their rows, in finished runs, made by statements that make their own rows: a history of
millions in minutes. Nothing here is timed.
"""

import sys
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncConnection

from app.store import Database, Store
from app.store.tables import metadata, results

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

START_MS = 1_790_812_800_000
"""When the history ends, and what is measured begins."""
DAY_MS = 86_400_000
DAYS = 92
OLD_MS = START_MS - DAYS * DAY_MS
STRETCH = 50_000
"""Old tasks written by one statement."""
MICRO = 5_000_000
REPORT = b'{"task":{"status":"COMPLETED"},"response":{"text":"yes","sources":[]}}'
"""Short, so that ten million fit on a disk."""
_INDEXES = """
    SELECT c.relname, pg_get_indexdef(c.oid) FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
    WHERE i.indrelid IN ('tasks'::regclass, 'submissions'::regclass, 'results'::regclass, 'ledger'::regclass)
      AND NOT EXISTS (SELECT 1 FROM pg_constraint WHERE conindid = c.oid)
"""


async def add_history(store: Store, *, tasks: int, runs: int, paused: int) -> None:
    """Settled tasks, evenly over DAYS days, in finished runs; a paused run that was never sent."""
    words = Words(store.db.is_sqlite, DAYS * DAY_MS // max(tasks, 1))
    each = tasks // runs
    old = [
        await store.runs.create_run(name=f"old {n}", source="-", budget=None, now_ms=words.ms_of(n * each))
        for n in range(runs)
    ]
    halted = await store.runs.create_run(name="paused", source="-", budget=None, now_ms=OLD_MS - 1)
    for n, run_id in enumerate(old):
        for first in range(0, each, STRETCH):
            rows = Rows(words, run_id, n * each, n * each + first, min(STRETCH, each - first))
            await execute(store.db, rows.settled())
    for first in range(0, paused, STRETCH):
        rows = Rows(words, halted, tasks, tasks + first, min(STRETCH, paused - first))
        await execute(store.db, [rows.tasks(is_old=False)])
    ends = [
        f"UPDATE runs SET state = 'paused' WHERE id = '{store.db.driver_id(halted)}'",
        f"UPDATE runs SET state = 'finished', finished_at_ms = {START_MS - 1} WHERE state = 'loading'",
    ]
    if "settle_sequence" in metadata.tables:
        ends.append(f"UPDATE settle_sequence SET value = {tasks}")
    await execute(store.db, ends)
    while await store.spending.fold_spending():
        pass


@dataclass(frozen=True, slots=True)
class Words:
    """The few words in which the two databases differ."""

    is_sqlite: bool
    step_ms: int
    """Between two old tasks."""

    def ms_of(self, number: int) -> int:
        """When the task of that number was."""
        return OLD_MS + number * self.step_ms

    @property
    def at_ms(self) -> str:
        """The same of the number n, for the database."""
        return f"({OLD_MS} + n * {self.step_ms})"

    def numbers(self, first: int, count: int) -> str:
        """A table of the numbers n."""
        last = first + count - 1
        if self.is_sqlite:
            step = f"SELECT {first} UNION ALL SELECT n + 1 FROM g WHERE n < {last}"
            return f"(WITH RECURSIVE g(n) AS ({step}) SELECT n FROM g)"
        return f"generate_series({first}::bigint, {last}) g(n)"

    def text(self, kind: str) -> str:
        """An id as text, made of the time and the number n; ids of each kind are in the order of n."""
        time = self._hex(self.at_ms)
        return f"substr({time}, 1, 8) || '-' || substr({time}, 9) || '-7{kind}-8000-' || {self._hex('n')}"

    def id(self, kind: str) -> str:
        """The same as the database keeps it."""
        return f"replace({self.text(kind)}, '-', '')" if self.is_sqlite else f"({self.text(kind)})::uuid"

    def digest(self, kind: str) -> str:
        """Made of the number n; on PostgreSQL in no order, as real ones are."""
        return f"'{kind}' || n" if self.is_sqlite else f"md5('{kind}' || n)"

    def given(self, run_id: str) -> str:
        """A known id."""
        return f"'{run_id.replace('-', '')}'" if self.is_sqlite else f"'{run_id}'::uuid"

    def binary(self, data: bytes) -> str:
        """Bytes."""
        return f"x'{data.hex()}'" if self.is_sqlite else f"decode('{data.hex()}', 'hex')"

    def _hex(self, number: str) -> str:
        return f"printf('%012x', {number})" if self.is_sqlite else f"lpad(to_hex({number}), 12, '0')"


@dataclass(frozen=True, slots=True)
class Rows:
    """Statements for the tasks of a stretch of a run."""

    words: Words
    run_id: str
    run_first: int
    """The number of the run's first task."""
    first: int
    count: int

    def settled(self) -> list[str]:
        """Every row that a settled task has."""
        w = self.words
        about = {"task_id": w.id("aaa"), "attempt": "1"}
        delivered = {"delivery_id": w.id("bbb")}
        entry = {"at_ms": w.at_ms, "run_id": w.given(self.run_id), **about, "credits": f"{MICRO}"}
        sent = {"answer": "'accepted'", "http_status": "200", "provider_task_id": w.digest("p")}
        return [
            self.tasks(is_old=True),
            self._insert("submissions", {"at_ms": w.at_ms, **about, **sent, "credits_to_charge": f"{MICRO}"}),
            self._insert("deliveries", {"id": w.id("bbb"), **about, **self._delivery()}),
            self._insert("results", {**about, **delivered, **self._result()}),
            self._insert("ledger", entry | {"kind": "'hold'"}),
            self._insert("ledger", entry | delivered | {"kind": "'post'"}),
        ]

    def tasks(self, *, is_old: bool) -> str:
        """Settled, or never sent."""
        w = self.words
        values = {
            "id": w.id("aaa"),
            "run_id": w.given(self.run_id),
            "ordinal": f"n - {self.run_first} + 1",
            "task_type": "'CHATGPT'",
            "payload": """'{"prompt":"prompt ' || n || '","country":"US"}'""",
            "priority": "1",
            "state": "'completed'" if is_old else "'pending'",
            "attempt": "1",
            "idempotency_key": f"{w.text('aaa')} || '.1'",
            "money": "'posted'" if is_old else "'none'",
            "credits_estimate": f"{MICRO}",
            "sends": f"{is_old:d}",
            "not_before_ms": "0",
            "polls": "0",
            "fingerprint": w.digest("f"),
        }
        return self._insert("tasks", values | (self._settlement() if is_old else {}))

    def _settlement(self) -> dict[str, str]:
        return {
            **dict.fromkeys(("credits_to_charge", "credits_held", "credits_charged"), f"{MICRO}"),
            **dict.fromkeys(("first_sent_at_ms", "submitted_at_ms"), self.words.at_ms),
            "reported": "'completed'",
            "verdict": "'matched'",
            "provider_task_id": self.words.digest("p"),
            "settled_at_ms": f"{self.words.at_ms} + 9000",
            "settled_by": "'delivery'",
        }

    def _delivery(self) -> dict[str, str]:
        w = self.words
        return {
            "source": "'delivery'",
            "account": "'default'",
            "received_at_ms": f"{w.at_ms} + 9000",
            "webhook_id": f"{w.digest('p')} || '-1'",
            "signed_at": "'1790812800'",
            "signature": f"'v1=' || {w.digest('s')} || {w.digest('t')}",
            "encoding": "'zstd'",
            "body": w.binary(zstd.compress(REPORT, 1)),
            "state": "'done'",
            "effect": "'settled'",
            "tries": "0",
            "due_at_ms": w.at_ms,
        }

    def _result(self) -> dict[str, str]:
        values = {
            "status": "'completed'",
            "stored_at_ms": f"{self.words.at_ms} + 9000",
            "answer_bytes": "29",
            "answer_sha256": self.words.binary(bytes(32)),
            "seq": "n + 1",
        }
        return {name: value for name, value in values.items() if name in results.c}

    def _insert(self, table: str, values: dict[str, str]) -> str:
        names, source = ", ".join(values), self.words.numbers(self.first, self.count)
        return f"INSERT INTO {table} ({names}) SELECT {', '.join(values.values())} FROM {source}"


async def execute(db: Database, statements: list[str]) -> None:
    """In one transaction, as long as it takes."""

    async def work(connection: AsyncConnection) -> None:
        for statement in statements:
            await connection.exec_driver_sql(statement)

    await db.write(work, long=True)


async def drop_indexes(db: Database) -> list[str]:
    """Those of the large tables that are no constraints, on PostgreSQL; the statements that make them again.
    Filled first and indexed then, a database of ten million tasks takes half the time."""

    async def work(connection: AsyncConnection) -> list[str]:
        found = (await connection.exec_driver_sql(_INDEXES)).all()
        for name, _ in found:
            await connection.exec_driver_sql(f"DROP INDEX {name}")
        return [definition for _, definition in found]

    return await db.write(work, long=True)
