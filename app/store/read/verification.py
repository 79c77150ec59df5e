"""Reads for `tallyhook verify`: every row about a task, page by page, all in one snapshot. Never writes.

Pages follow the source of a run, so that memory stays flat and several processes can share the work.
"""

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.retention import Kind, Receipt, Receipts
from app.domain.time_format import DAY_MS
from app.domain.verification.stored_rows import Miscounted, Misnumbered, Orphan, Row, TaskBooks, VerifiedRun
from app.ports import ArchivedDeliveries, StoreUnavailable
from app.store.by_index import is_one_of, read_as_estimated, read_by_index
from app.store.database import Database
from app.store.days import first_id, since_tasks, within
from app.store.provider_ids import owners_of
from app.store.read.sequence import misnumbered
from app.store.tables import (
    Id,
    account_entries,
    attempts,
    balances,
    deliveries,
    findings,
    ledger,
    pruned_findings,
    results,
    runs,
    submissions,
    task_metadata,
    task_repeats,
    tasks,
)
from app.store.write.archives import blocks_of
from app.store.write.inbox import unpack
from app.store.write.partitions import hold_partitions
from app.store.write.receipts import receipts_of
from app.store.write.rollup import CELL, FIGURES, kept_cells, runs_with_rollup, unkept_cells
from app.store.write.spending import spending, spending_from_rows

PAGE = 250
"""Records of a source in one page."""
PAGE_BODY_BYTES_MAX = 8 * 1024 * 1024
"""Stored bodies of one page, about a tenth of what they unpack to, their results beside them."""
CYCLE_MAX_MS = 32 * DAY_MS
"""A billing cycle is a month (C-F)."""
ORPHANS_MAX = 1_000
"""Rows of one table without a task that are named; one deleted task leaves some five."""


@contextlib.asynccontextmanager
async def open_snapshot(
    db: Database, joined: str | None = None, archive: ArchivedDeliveries | None = None
) -> "AsyncIterator[BooksSnapshot]":
    """One snapshot of the database, until the block ends. `joined`: the one that another process exported,
    on PostgreSQL. `archive`: where deliveries are that are not stored any more."""
    try:
        async with db.engine.connect() as connection:
            if not db.is_sqlite:
                await connection.execution_options(
                    isolation_level="REPEATABLE READ", postgresql_readonly=True
                )
                if joined is None:
                    await hold_partitions(connection)
                else:
                    await connection.exec_driver_sql(f"SET TRANSACTION SNAPSHOT '{joined}'")
            yield BooksSnapshot(db, connection, archive)
    except OSError as error:  # asyncpg lets it through as it is
        raise StoreUnavailable(str(error)) from error


class BooksSnapshot:
    """Reads in one snapshot."""

    def __init__(
        self, db: Database, connection: AsyncConnection, archive: ArchivedDeliveries | None = None
    ) -> None:
        self._db = db
        self._archive = archive
        self._connection = connection
        self._receipts: Receipts | None = None
        self._pruned_findings: dict[tuple[str, str], int] | None = None

    async def receipts(self) -> Receipts:
        """All of them: what they cover may be gone."""
        if self._receipts is None:
            self._receipts = await receipts_of(self._connection)
        return self._receipts

    async def pruned_findings(self) -> dict[tuple[str, str], int]:
        """(run id, verdict) -> findings that were pruned."""
        if self._pruned_findings is None:
            p = pruned_findings.c
            rows = await self._connection.execute(sa.select(p.run_id, p.verdict, p.row_count))
            self._pruned_findings = {(row[0], row[1]): row[2] for row in rows}
        return self._pruned_findings

    async def left_of_receipts(self) -> list[tuple[Receipt, int | None]]:
        """Each receipt with how many deliveries of its day still stand; None: it is not about deliveries."""
        found: list[tuple[Receipt, int | None]] = []
        for receipt in await self.receipts():
            left = None
            if receipt.kind == Kind.BODIES:
                d, ends = deliveries.c.id, (first_id(receipt.from_ms), first_id(receipt.until_ms))
                of_day = sa.select(sa.func.count()).where(d >= ends[0], d < ends[1])
                left = await self._connection.scalar(of_day) or 0
            found.append((receipt, left))
        return found

    async def export(self) -> str | None:
        """A name under which other processes join this snapshot; None on SQLite, where each has its own, and
        a task's rows still belong together."""
        if self._db.is_sqlite:
            return None
        name: str = (await self._connection.execute(sa.text("SELECT pg_export_snapshot()"))).scalar_one()
        return name

    async def runs(self, account: str | None, run_ids: Sequence[str]) -> list[VerifiedRun]:
        """The runs chosen, oldest first; no ids: all of the account, or of all accounts."""
        last = sa.select(sa.func.max(tasks.c.ordinal)).where(tasks.c.run_id == runs.c.id).scalar_subquery()
        query = sa.select(runs.c.id, runs.c.account, sa.func.coalesce(last, 0)).order_by(runs.c.id)
        if account is not None:
            query = query.where(runs.c.account == account)
        if run_ids:
            query = query.where(runs.c.id.in_(run_ids))
        return [VerifiedRun(*row) for row in await self._connection.execute(query)]

    async def books(self, run: VerifiedRun, share: int, of: int) -> AsyncIterator[list[TaskBooks]]:
        """Every task of a run with all its rows, a page at a time; of each `of` pages only ours."""
        await read_by_index(self._connection)
        for after in range(share * PAGE, run.last_ordinal, of * PAGE):
            page = await self._tasks(run.id, after)
            for part in await self._parts(page):
                yield await self._fill(part)

    async def unfiled(self) -> AsyncIterator[Sequence[Row]]:
        """Deliveries that belong to no task, with `known`: that their finding stands."""
        d, after = deliveries.c, "00000000-0000-0000-0000-000000000000"
        known = sa.exists().where(findings.c.delivery_id == d.id, findings.c.verdict == "unmatched")
        while True:
            query = (
                sa.select(deliveries, known.label("known"))
                .where(d.task_id.is_(None), d.id > after)
                .order_by(d.id)
                .limit(PAGE // 5)
            )
            rows = [_unpacked(row) for row in await self._connection.execute(query)]
            if not rows:
                return
            yield rows
            after = rows[-1]["id"]

    async def sent_of(self, task_ids: Iterable[str]) -> dict[tuple[str, int], tuple[str, int | None]]:
        """(task id, attempt) -> (account, when it was first sent), of all attempts of those that exist."""
        v = self._db.batch("v", {"id": Id}, [{"id": i} for i in sorted(set(task_ids))])
        current = sa.select(tasks.c.id, tasks.c.attempt, runs.c.account, tasks.c.first_sent_at_ms)
        past = sa.select(attempts.c.task_id, attempts.c.attempt, runs.c.account, attempts.c.first_sent_at_ms)
        sent: dict[tuple[str, int], tuple[str, int | None]] = {}
        for query in (
            current.join(v, tasks.c.id == v.c.id),
            past.join(v, attempts.c.task_id == v.c.id).join(tasks),
        ):
            for row in await self._connection.execute(query.join(runs, runs.c.id == tasks.c.run_id)):
                sent[row[0], row[1]] = row[2], row[3]
        return sent

    async def owners_of(self, provider_task_ids: Iterable[str]) -> dict[str, set[tuple[str, int]]]:
        """Id of the provider's -> (task id, attempt) of all that it was given to."""
        return await owners_of(self._db, self._connection, provider_task_ids)

    async def account_entries(self, account: str | None) -> AsyncIterator[Row]:
        """Entries of the account itself; those about a task come with the task. `granted`: whether a balance
        of its cycle reported the credits of an allocation."""
        c, after = account_entries.c, 0
        granted = sa.exists().where(
            balances.c.account == c.account,
            balances.c.per_cycle == c.credits,
            balances.c.at_ms.between(c.cycle_ms - DAY_MS, c.cycle_ms + CYCLE_MAX_MS),
        )
        query = sa.select(account_entries, granted.label("granted")).where(c.task_id.is_(None))
        if account is not None:
            query = query.where(c.account == account)
        query = query.order_by(c.id).limit(PAGE)
        while rows := [
            dict(row._mapping) for row in await self._connection.execute(query.where(c.id > after))
        ]:
            for row in rows:
                yield row
            after = rows[-1]["id"]

    async def _own_columns_of_nobody(self) -> list[Orphan]:
        m = task_metadata.c
        query = (
            sa.select(m.run_id, m.ordinal)
            .outerjoin(tasks, sa.and_(tasks.c.run_id == m.run_id, tasks.c.ordinal == m.ordinal))
            .where(tasks.c.id.is_(None))
            .limit(ORPHANS_MAX)
        )
        rows = await self._connection.execute(query)
        return [Orphan("task_metadata", f"{row.run_id}.{row.ordinal}", row.run_id, "ordinal") for row in rows]

    async def _samples_of_nobody(self) -> list[Orphan]:
        r = task_repeats.c
        first = sa.and_(tasks.c.run_id == r.run_id, tasks.c.ordinal == r.first_ordinal)
        query = sa.select(r.run_id, r.first_ordinal).outerjoin(tasks, first).where(tasks.c.id.is_(None))
        rows = await self._connection.execute(query.limit(ORPHANS_MAX))
        return [
            Orphan("task_repeats", f"{row.run_id}.{row.first_ordinal}", row.run_id, "ordinal") for row in rows
        ]

    async def misnumbered(self) -> list[Misnumbered]:
        """Results whose numbers cannot be right, up to a thousand of each kind."""
        return await misnumbered(self._db, self._connection)

    async def orphans(self) -> list[Orphan]:
        """Rows about tasks that are not there, and what belongs to no delivery or to no known kind."""
        await read_as_estimated(self._connection)
        found: list[Orphan] = []
        for table, key in (
            (attempts, attempts.c.attempt),
            (submissions, submissions.c.id),
            (deliveries, deliveries.c.id),
            (results, results.c.attempt),
            (ledger, ledger.c.id),
            (findings, findings.c.id),
            (account_entries, account_entries.c.id),
        ):
            query = (
                sa.select(key, table.c.task_id)
                .outerjoin(tasks, tasks.c.id == table.c.task_id)
                .where(tasks.c.id.is_(None), table.c.task_id.is_not(None))
                .limit(ORPHANS_MAX)
            )
            found += [Orphan(table.name, str(k), i) for k, i in await self._connection.execute(query)]
        found += await self._own_columns_of_nobody()
        found += await self._samples_of_nobody()
        odd = sa.select(ledger.c.id, ledger.c.task_id).where(ledger.c.kind.not_in(("hold", "post", "void")))
        rows = await self._connection.execute(odd.limit(ORPHANS_MAX))
        found += [Orphan("ledger", str(row[0]), row[1], "kind") for row in rows]
        alone = sa.exists().where(
            deliveries.c.id == findings.c.delivery_id, deliveries.c.effect == "unmatched"
        )
        f, receipts = findings.c, await self.receipts()
        invented = sa.select(f.id, f.delivery_id).where(f.verdict == "unmatched", ~alone)
        odd_rows = (await self._connection.execute(invented)).all()
        uncovered = [row for row in odd_rows if row[1] is None or receipts.of_body(row[1]) is None]
        return found + [Orphan("findings", str(row[0]), "", "delivery_id") for row in uncovered[:ORPHANS_MAX]]

    async def spending(self, run_ids: Sequence[str]) -> list[tuple[str, Decimal, Decimal]]:
        """(run id, what is kept as spent, what its attempts say) of runs where the two differ."""
        found = []
        for start in range(0, len(run_ids), PAGE):
            page = run_ids[start : start + PAGE]
            kept = sa.select(runs.c.id, spending(runs.c.id)).where(runs.c.id.in_(page))
            rows = await self._connection.execute(spending_from_rows(page))
            reported = {row[0]: row[1] for row in rows}
            for run_id, credits in await self._connection.execute(kept):
                should_be = reported.get(run_id, Decimal(0))
                found += [(run_id, credits, should_be)] if credits != should_be else []
        return found

    async def rollup(self, run_ids: Sequence[str]) -> list[Miscounted]:
        """Where what is kept of a run is not what its attempts say. Without runs of which not all is kept
        yet."""
        found: list[Miscounted] = []
        for start in range(0, len(run_ids), PAGE):
            kept = sorted(await runs_with_rollup(self._connection, run_ids[start : start + PAGE]))
            found += await self._miscounted(kept) if kept else []
        return found

    async def _miscounted(self, run_ids: Sequence[str]) -> list[Miscounted]:
        lacking = (await self._connection.execute(unkept_cells(run_ids))).all()
        if not lacking:
            return []
        kept: defaultdict[tuple[Any, ...], Any] = defaultdict(int)
        for row in await self._connection.execute(kept_cells(run_ids)):
            for name in FIGURES:
                kept[*row[: len(CELL)], name] += row._mapping[name]
        return [
            Miscounted(row.run_id, _figure(name, row), stands, stands + lacks)
            for row in lacking
            for name in FIGURES
            if (lacks := row._mapping[name])
            for stands in [kept[*row[: len(CELL)], name]]
        ]

    async def _tasks(self, run_id: str, after: int) -> list[TaskBooks]:
        asked = sa.and_(runs.c.source == "ask", runs.c.source_sha256.is_(None))
        query = (
            sa.select(
                tasks,
                runs.c.account,
                runs.c.state.label("run_state"),
                runs.c.retained_at_ms,
                asked.label("asked"),
            )
            .join(runs, runs.c.id == tasks.c.run_id)
            .where(tasks.c.run_id == run_id, tasks.c.ordinal > after, tasks.c.ordinal <= after + PAGE)
            .order_by(tasks.c.ordinal)
        )
        receipts, gone = await self.receipts(), await self.pruned_findings()
        verdicts = frozenset(verdict for of_run, verdict in gone if of_run == run_id)
        rows = await self._connection.execute(query)
        return [TaskBooks(dict(row._mapping), receipts=receipts, pruned_verdicts=verdicts) for row in rows]

    async def _parts(self, page: list[TaskBooks]) -> list[list[TaskBooks]]:
        """A page cut so that its bodies fit in memory, however large the answers are."""
        if not page:
            return []
        d = deliveries.c
        size = sa.func.sum(sa.func.length(d.body))
        mine = is_one_of(self._connection, d.task_id, [books.task["id"] for books in page])
        query = sa.select(d.task_id, size).where(mine, self._since(page)).group_by(d.task_id)
        sizes = {row[0]: int(row[1]) for row in await self._connection.execute(query)}
        parts: list[list[TaskBooks]] = [[]]
        room = PAGE_BODY_BYTES_MAX
        for books in page:
            room -= sizes.get(books.task["id"], 0)
            if room < 0 and parts[-1]:
                parts.append([])
                room = PAGE_BODY_BYTES_MAX - sizes.get(books.task["id"], 0)
            parts[-1].append(books)
        return parts

    async def _fill(self, part: list[TaskBooks]) -> list[TaskBooks]:
        of = {books.task["id"]: books for books in part}

        async def file(
            query: sa.Select[Any], where: Callable[[TaskBooks], list[Row]], unpacked: bool = False
        ) -> None:
            for row in await self._connection.execute(query):
                where(of[row._mapping["task_id"]]).append(_unpacked(row) if unpacked else dict(row._mapping))

        def about(table: sa.Table) -> sa.Select[Any]:
            return sa.select(table).where(is_one_of(self._connection, table.c.task_id, list(of)))

        await file(about(attempts).order_by(attempts.c.attempt), lambda books: books.attempts)
        await file(about(submissions).order_by(submissions.c.id), lambda books: books.submissions)
        reports = about(deliveries).where(self._since(part)).order_by(deliveries.c.id)
        await file(reports, lambda books: books.deliveries, unpacked=True)
        await file(about(results), lambda books: books.results)
        # One after the other, in the words of the two partial indexes.
        await file(
            about(ledger).where(ledger.c.kind == sa.literal_column("'hold'")), lambda books: books.ledger
        )
        closing = ledger.c.kind.in_([sa.literal_column("'post'"), sa.literal_column("'void'")])
        await file(about(ledger).where(closing), lambda books: books.ledger)
        # Without an index on the task: gone through once, not once for each task.
        for table, rows in (
            (findings, lambda books: books.findings),
            (account_entries, lambda books: books.adjustments),
        ):
            await file(about(table).order_by(table.c.id), rows)
        await self._fetch_elsewhere(part)
        return part

    async def _fetch_elsewhere(self, part: list[TaskBooks]) -> None:
        wanted: dict[str, list[TaskBooks]] = defaultdict(list)
        for books in part:
            named = {row["delivery_id"] for row in (*books.results, *books.ledger, *books.findings)}
            for delivery_id in named - {row["id"] for row in books.deliveries} - {None}:
                wanted[delivery_id].append(books)
        if not wanted:
            return
        v = self._db.batch("v", {"id": Id}, [{"id": i} for i in sorted(wanted)])
        among = within(self._connection, deliveries.c.id, wanted)
        query = sa.select(deliveries).join(v, deliveries.c.id == v.c.id).where(among)
        stored = [_unpacked(row) for row in await self._connection.execute(query)]
        for row in stored:
            for books in wanted.pop(row["id"]):
                books.elsewhere.append(row)
        await self._fetch_archived(wanted)

    async def _fetch_archived(self, wanted: dict[str, list[TaskBooks]]) -> None:
        """What is named and is not stored any more, from the archive. Raises what the archive raises."""
        for block in await blocks_of(self._db, self._connection, wanted) if self._archive else ():
            ids = [i for i in wanted if block.first_id <= i <= block.last_id]
            rows = await self._archive.deliveries(block, ids) if self._archive else {}
            for delivery_id, row in rows.items():
                for books in wanted[delivery_id]:
                    own = row["task_id"] == books.task["id"]
                    (books.deliveries if own else books.elsewhere).append(
                        row | {"fault": None, "archived": True}
                    )
                    books.deliveries.sort(key=lambda delivery: str(delivery["id"]))

    def _since(self, page: Sequence[TaskBooks]) -> sa.ColumnElement[bool]:
        """No report of theirs is older; one that is named and older is fetched by its id."""
        return since_tasks(self._connection, deliveries.c.id, (books.task["id"] for books in page))


def _figure(name: str, cell: sa.Row[Any]) -> str:
    parts = "" if cell.is_current else "replaced", cell.task_type, cell.state, cell.verdict
    return f"{name} of {' '.join(part for part in parts if part)}"


def _unpacked(row: sa.Row[Any]) -> dict[str, Any]:
    unpacked = dict(row._mapping)
    try:
        unpacked["body"], unpacked["fault"] = unpack(row.encoding, row.body), None
    except Exception as error:  # whatever an altered frame makes of its reader
        unpacked["body"], unpacked["fault"] = None, f"does not unpack as {row.encoding}: {error}"
    return unpacked
