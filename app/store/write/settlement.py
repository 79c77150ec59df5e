"""Applies settlements: state, ledger, result, verdict and findings of many reports in one transaction.

The decision is made by `decide`, a pure function, on rows read in the same transaction. Whoever changed a row
in between wins: an update whose condition no longer holds changes nothing, and the delivery stays for another
look.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from msgspec.structs import replace
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.delivery import ParsedDelivery
from app.domain.settlement import Attempt, Effect, Finding, Report, Settlement, Source, StoredAnswer
from app.domain.task import Money, TaskState, new_id, parse_idempotency_key
from app.domain.verdicts import Verdict
from app.ports import Decide, ReadAnswer, RowsRefused, StoreRefused
from app.store.database import Database
from app.store.days import within
from app.store.part import StorePart, writes
from app.store.provider_ids import owners_of
from app.store.read.bodies import read_answers
from app.store.tables import Id, attempts, deliveries, findings, ledger, results, tasks
from app.store.write.results import take_numbers
from app.store.write.settlement_rows import (
    CURRENT_COLUMNS,
    LEDGER_COLUMNS,
    PAST_COLUMNS,
    RESULT_COLUMNS,
    attempt_of,
    change_row,
    finding_row,
    ledger_rows,
    result_row,
    unmatched_row,
)
from app.store.write.settlement_statements import SettlementStatements

ASK_AGAIN_MS = 60_000
"""After a report without a charge: when to ask the provider for it."""

AttemptKey = tuple[str, int]


@dataclass(slots=True)
class SettleCount:
    """What one call did."""

    effects: dict[Effect, int] = field(default_factory=dict)
    verdicts: dict[str, int] = field(default_factory=dict)
    lost_updates: int = 0
    """Left for another look, because somebody else changed the row meanwhile."""


@dataclass(slots=True)
class _Change:
    """All that one batch decided for one attempt, folded."""

    before: Attempt
    after: Attempt
    decisions: list[tuple[ParsedDelivery, Settlement]] = field(default_factory=list)

    def row(self, now_ms: int) -> dict[str, Any]:
        """Of the bulk update; by the first report that changes anything."""
        first = next(parsed for parsed, settlement in self.decisions if settlement.after != settlement.before)
        return change_row(self.before, self.after, first, now_ms=now_ms, poll_ms=now_ms + ASK_AGAIN_MS)


class SettlementWrites(StorePart):
    """Part of the store."""

    def __init__(self, db: Database, read_answer: ReadAnswer) -> None:
        super().__init__(db)
        self._read_answer = read_answer
        self._statements = SettlementStatements(db)

    @writes
    async def apply(
        self,
        connection: AsyncConnection,
        parsed: Sequence[ParsedDelivery],
        decide: Decide,
        *,
        now_ms: int,
        unmatched_until_ms: int,
    ) -> SettleCount:
        """Settle parsed deliveries that are still waiting. One that fits no task stays unmatched, to be
        looked at again, until it is older than `unmatched_until_ms`; then it becomes a finding."""
        count = SettleCount()
        locked = await self._lock_waiting(connection, parsed)
        found = await self._attempts_of(connection, locked)
        stored = await self._stored_answers(connection, locked, found)
        marked = await self._mark_anothers_ids(connection, locked, found)
        changes, unmatched = _decide_all(marked, found, stored, decide)
        won = await self._move_attempts(connection, changes, now_ms)
        count.lost_updates = sum(len(change.decisions) for change in changes) - sum(
            len(change.decisions) for change in won
        )
        await self._write_entries(connection, won, now_ms)
        await self._set_unmatched(connection, unmatched, now_ms, unmatched_until_ms)
        await self._close_deliveries(connection, won)
        await self._write_results(connection, won, now_ms)
        _count_effects(count, won, unmatched)
        return count

    async def probe(self) -> None:
        """Write what a settlement writes, with values that are known to be good, and take it back. Raises
        StoreUnavailable when the database would take no settlement, whatever it said."""

        try:
            await self._apply_and_roll_back(_trial_change())
        except _RolledBack:
            return
        except RowsRefused as error:
            raise StoreRefused(f"takes no settlement: {error}") from error

    @writes
    async def _apply_and_roll_back(self, connection: AsyncConnection, change: _Change) -> None:
        past = _Change(replace(change.before, current=False), change.after, change.decisions)
        await self._move_attempts(connection, [change, past], 0)
        await self._write_entries(connection, [change], 0)
        await self._close_deliveries(connection, [change])
        await self._write_results(connection, [change], 0)
        raise _RolledBack

    async def _lock_waiting(
        self, connection: AsyncConnection, parsed: Sequence[ParsedDelivery]
    ) -> list[ParsedDelivery]:
        if not parsed:
            return []
        ids, its = [p.id for p in parsed], self._statements
        parameters = its.ids.parameters([{"id": i} for i in ids]) | its.range.parameters(ids)
        waiting = set(await connection.scalars(its.lock_waiting, parameters))
        return [p for p in parsed if p.id in waiting]

    async def _attempts_of(
        self, connection: AsyncConnection, parsed: Sequence[ParsedDelivery]
    ) -> dict[str, Attempt]:
        """Delivery id -> the attempt it is about; by our key first, else by the provider's id."""
        by_key: dict[str, AttemptKey] = {}
        for p in parsed:
            key = parse_idempotency_key(p.report.idempotency_key or "")
            if key is not None:
                by_key[p.id] = key
        known = await self._attempts_by_key(connection, set(by_key.values()))
        found = {i: known[key] for i, key in by_key.items() if key in known}
        rest = [p for p in parsed if p.id not in found and p.id not in by_key]
        if rest:
            ids = {p.report.provider_task_id for p in rest}
            by_id = await self._attempts_by_provider_id(connection, ids)
            found |= {
                p.id: by_id[p.report.provider_task_id] for p in rest if p.report.provider_task_id in by_id
            }
        return await self._drop_other_accounts(connection, parsed, found)

    async def _mark_anothers_ids(
        self, connection: AsyncConnection, parsed: Sequence[ParsedDelivery], found: dict[str, Attempt]
    ) -> list[ParsedDelivery]:
        """With a mark on each that names the key of an attempt whose id nobody knows yet, and an id that is
        known to be another's."""
        blank = {
            p.id: p.report.provider_task_id
            for p in parsed
            if p.id in found and found[p.id].provider_task_id is None and p.source is not Source.SYNC
        }
        if not blank:
            return list(parsed)
        owners = await owners_of(self.db, connection, blank.values())

        def is_anothers(p: ParsedDelivery) -> bool:
            # Its own by now, when the submit response was recorded since the attempt was read: what is
            # decided about the attempt as it was is not applied, and the delivery is looked at again.
            own = found[p.id].task_id, found[p.id].attempt
            return bool(owners.get(blank[p.id], set()) - {own})

        return [replace(p, has_anothers_id=True) if p.id in blank and is_anothers(p) else p for p in parsed]

    async def _drop_other_accounts(
        self, connection: AsyncConnection, parsed: Sequence[ParsedDelivery], found: dict[str, Attempt]
    ) -> dict[str, Attempt]:
        """Without what came at another account's address: its secret signs for its own tasks only."""
        came_at = {p.id: p.account for p in parsed if p.account is not None and p.id in found}
        if not came_at:
            return found
        run_ids = {found[delivery_id].run_id for delivery_id in came_at}
        rows = await connection.execute(self._statements.accounts, {"run_ids": sorted(run_ids)})
        whose = {row.id: row.account for row in rows}
        return {i: a for i, a in found.items() if came_at.get(i) in (None, whose[a.run_id])}

    async def _attempts_by_key(
        self, connection: AsyncConnection, keys: set[AttemptKey]
    ) -> dict[AttemptKey, Attempt]:
        if not keys:
            return {}
        ids = self._statements.ids.parameters([{"id": i} for i in sorted({task_id for task_id, _ in keys})])
        rows = await connection.execute(self._statements.current_attempts, ids)
        known = {(a.task_id, a.attempt): a for a in map(attempt_of, rows)}
        retried = {task_id for task_id, n in known if n > 1}
        if retried:
            known = {key: a for key, a in known.items() if key[0] not in retried}
            known |= await self._lock_current(connection, retried)
            known |= await self._past_attempts(connection, attempts.c.task_id, retried)
        return _mark_charged_elsewhere(known)

    async def _lock_current(
        self, connection: AsyncConnection, task_ids: set[str]
    ) -> dict[AttemptKey, Attempt]:
        """The current attempts of tasks that had others before, for this transaction alone: of two attempts
        settled side by side each would find the other one uncharged."""
        rows = await connection.execute(
            sa.select(*CURRENT_COLUMNS)
            .where(tasks.c.id.in_(sorted(task_ids)))
            .order_by(tasks.c.id)
            .with_for_update()
        )
        return {(a.task_id, a.attempt): a for a in map(attempt_of, rows)}

    async def _past_attempts(
        self, connection: AsyncConnection, column: sa.ColumnElement[Any], values: set[str]
    ) -> dict[AttemptKey, Attempt]:
        rows = await connection.execute(
            sa.select(*PAST_COLUMNS).join(tasks, tasks.c.id == attempts.c.task_id).where(column.in_(values))
        )
        return {(a.task_id, a.attempt): a for a in map(attempt_of, rows)}

    async def _attempts_by_provider_id(
        self, connection: AsyncConnection, ids: set[str]
    ) -> dict[str, Attempt]:
        v = self.db.batch(
            "v", {"provider_task_id": sa.Text()}, [{"provider_task_id": i} for i in sorted(ids)]
        )
        rows = await connection.execute(
            sa.select(tasks.c.id, tasks.c.attempt).join(v, tasks.c.provider_task_id == v.c.provider_task_id)
        )
        keys = {(row.id, row.attempt) for row in rows}
        past = await self._past_attempts(connection, attempts.c.provider_task_id, ids)
        known = await self._attempts_by_key(connection, keys | set(past))
        return {a.provider_task_id: a for a in known.values() if a.provider_task_id in ids}

    async def _stored_answers(
        self, connection: AsyncConnection, parsed: Sequence[ParsedDelivery], found: dict[str, Attempt]
    ) -> dict[AttemptKey, StoredAnswer]:
        """The answers taken before, of attempts that are reported on again: their hashes, and their content
        where a report has another hash, and the body still stands."""
        keys = sorted({(a.task_id, a.attempt) for a in found.values() if a.reported is not None})
        if not keys:
            return {}
        data = [{"id": i, "attempt": n} for i, n in keys]
        v = self.db.batch("v", {"id": Id, "attempt": sa.Integer()}, data)
        c = results.c
        rows = await connection.execute(
            sa.select(c.task_id, c.attempt, c.delivery_id, c.answer_sha256).join(
                v, sa.and_(c.task_id == v.c.id, c.attempt == v.c.attempt)
            )
        )
        stored = {(row.task_id, row.attempt): row for row in rows}
        differing = set()
        for p in parsed:
            attempt = found.get(p.id)
            row = attempt and stored.get((attempt.task_id, attempt.attempt))
            if row and row.answer_sha256 != hashlib.sha256(p.report.response).digest():
                differing.add(row.delivery_id)
        content = await read_answers(self.db, connection, self._read_answer, differing)
        return {
            key: StoredAnswer(row.answer_sha256, content.get(row.delivery_id)) for key, row in stored.items()
        }

    async def _move_attempts(
        self, connection: AsyncConnection, changes: Sequence[_Change], now_ms: int
    ) -> list[_Change]:
        """Move the attempts whose rows are still as they were read; those are won."""
        # Compared once: two attempts have seventeen fields each.
        changed: list[_Change] = []
        won: list[_Change] = []
        for change in changes:
            (won if change.after == change.before else changed).append(change)
        for table, current in ((tasks, True), (attempts, False)):
            moving = [c for c in changed if c.before.current is current]
            if moving:
                moved = await self._update_if_unchanged(connection, table, moving, now_ms)
                won += [c for c in moving if (c.before.task_id, c.before.attempt) in moved]
        return won

    async def _update_if_unchanged(
        self, connection: AsyncConnection, table: sa.Table, moving: Sequence[_Change], now_ms: int
    ) -> set[AttemptKey]:
        learns_id = any(c.after.provider_task_id != c.before.provider_task_id for c in moving)
        changes = self._statements.changes.parameters([change.row(now_ms) for change in moving])
        moved = await connection.execute(self._statements.move(table, learns_id=learns_id), changes)
        return {(row[0], row[1]) for row in moved}

    async def _write_entries(self, connection: AsyncConnection, won: Sequence[_Change], now_ms: int) -> None:
        entries, found = [], []
        for change in won:
            for parsed, settlement in change.decisions:
                entries += ledger_rows(parsed, settlement, now_ms, self.db.driver_id)
                found += [finding_row(parsed, settlement.before, f, now_ms) for f in settlement.findings]
        await self.db.insert_plain(connection, ledger, LEDGER_COLUMNS, entries)
        await self.db.insert(connection, findings, found)

    async def _write_results(self, connection: AsyncConnection, won: Sequence[_Change], now_ms: int) -> None:
        """Last of all: from the numbers on, everybody else who settles waits."""
        rows = [
            result_row(parsed, settlement.after, now_ms, self.db.driver_id)
            for change in won
            for parsed, settlement in change.decisions
            if settlement.stores_result
        ]
        if not rows:
            return
        first = await take_numbers(connection, len(rows))
        numbered = [(*row, first + n) for n, row in enumerate(rows)]
        await self.db.insert_plain(connection, results, RESULT_COLUMNS, numbered)

    async def _set_unmatched(
        self, connection: AsyncConnection, unmatched: Sequence[ParsedDelivery], now_ms: int, until_ms: int
    ) -> None:
        if not unmatched:
            return
        final = [p for p in unmatched if p.received_at_ms <= until_ms]
        v = self.db.batch("v", {"id": Id}, [{"id": p.id} for p in unmatched if p.received_at_ms > until_ms])
        among = within(connection, deliveries.c.id, (p.id for p in unmatched))
        await connection.execute(
            sa.update(deliveries).where(deliveries.c.id == v.c.id, among).values(state="unmatched")
        )
        v = self.db.batch("v", {"id": Id}, [{"id": p.id} for p in final])
        await connection.execute(
            sa.update(deliveries)
            .where(deliveries.c.id == v.c.id, among)
            .values(state="done", effect=Effect.UNMATCHED)
        )
        rows = [unmatched_row(p, now_ms) for p in final]
        await self.db.insert(connection, findings, rows)

    async def _close_deliveries(self, connection: AsyncConnection, won: Sequence[_Change]) -> None:
        rows = [
            {"id": p.id, "effect": s.effect, "task_id": s.before.task_id, "attempt": s.before.attempt}
            for change in won
            for p, s in change.decisions
        ]
        if not rows:
            return
        its = self._statements
        parameters = its.closed.parameters(rows) | its.range.parameters(
            [p.id for change in won for p, _ in change.decisions]
        )
        await connection.execute(its.close_deliveries, parameters)


def _decide_all(
    parsed: Sequence[ParsedDelivery],
    found: dict[str, Attempt],
    stored: dict[AttemptKey, StoredAnswer],
    decide: Decide,
) -> tuple[list[_Change], list[ParsedDelivery]]:
    """Decide in order of arrival; a second report in the same batch sees what the first one did."""
    changes: dict[AttemptKey, _Change] = {}
    charged: dict[str, set[int]] = {}
    taken: dict[str, AttemptKey] = {}  # id of the provider's -> the attempt that has it since this batch
    unmatched = []
    for p in parsed:
        attempt = found.get(p.id)
        if attempt is None:
            unmatched.append(p)
            continue
        key = attempt.task_id, attempt.attempt
        if key not in changes and charged.get(key[0], set()) - {key[1]}:
            attempt = replace(attempt, charged_elsewhere=True)
        change = changes.setdefault(key, _Change(attempt, attempt))
        named, blank = p.report.provider_task_id, change.after.provider_task_id is None
        is_taken = blank and taken.get(named, key) != key
        asked = replace(p, has_anothers_id=True) if is_taken else p
        settlement = decide(asked, change.after, stored.get(key))
        if settlement is not None and blank and settlement.after.provider_task_id is not None:
            taken[named] = key
        if settlement is None:
            continue
        if settlement.stores_result:
            stored[key] = StoredAnswer(None, p.report.response)
        change.after = settlement.after
        if settlement.after.charged and not attempt.charged:
            charged.setdefault(key[0], set()).add(key[1])
        change.decisions.append((p, settlement))
    return list(changes.values()), unmatched


class _RolledBack(Exception):  # noqa: N818 - how a transaction of ours is ended on purpose
    """Nothing of it is to stay."""


def _trial_change() -> _Change:
    """A good settlement of a task that does not exist."""
    nobody, nothing = new_id(0), Decimal(0)
    before = Attempt(
        task_id=nobody,
        run_id=nobody,
        attempt=1,
        current=True,
        state=TaskState.SUBMITTED,
        money=Money.NONE,
        task_type="",
        payload_json="{}",
        estimate=nothing,
        held=None,
        to_charge=None,
        charged=None,
        provider_task_id=None,
        verdict=None,
        reported=None,
    )
    after = replace(
        before,
        state=TaskState.COMPLETED,
        money=Money.POSTED,
        held=nothing,
        charged=nothing,
        verdict=Verdict.MATCHED,
        reported=TaskState.COMPLETED,
    )
    report = Report(nobody, None, completed=True, to_charge=nothing, charged=nothing, response=b"null")
    settlement = Settlement(
        Effect.SETTLED,
        before,
        after,
        hold=nothing,
        close=Money.POSTED,
        stores_result=True,
        findings=[Finding(Verdict.MATCHED, nothing, nothing, "")],
    )
    return _Change(before, after, [(ParsedDelivery(nobody, Source.DELIVERY, 0, report), settlement)])


def _mark_charged_elsewhere(known: dict[AttemptKey, Attempt]) -> dict[AttemptKey, Attempt]:
    charged: dict[str, set[int]] = {}
    for (task_id, n), attempt in known.items():
        if attempt.charged:
            charged.setdefault(task_id, set()).add(n)
    return {
        key: replace(a, charged_elsewhere=True) if charged.get(key[0], set()) - {key[1]} else a
        for key, a in known.items()
    }


def _count_effects(count: SettleCount, won: Sequence[_Change], unmatched: Sequence[ParsedDelivery]) -> None:
    for change in won:
        for _, settlement in change.decisions:
            count.effects[settlement.effect] = count.effects.get(settlement.effect, 0) + 1
            if settlement.stores_result and settlement.after.verdict:
                verdict = settlement.after.verdict
                count.verdicts[verdict] = count.verdicts.get(verdict, 0) + 1
    if unmatched:
        count.effects[Effect.UNMATCHED] = len(unmatched)
