"""Writes of loading: a chunk of the source at a time, stored once however many read the same source.

A record is known by its ordinal within its run, and compared by its fingerprint: whoever reads a source
again, after an interruption or in parallel with another producer, either finds the same records or is
refused.
"""

import json
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.source_change import OwnText, SourceChanged, StoredRecord, refuse_difference
from app.domain.task import Money, RunState, TaskSpec, TaskState, idempotency_key, new_id
from app.store.database import Database
from app.store.part import StorePart, reads, writes
from app.store.read.own_columns import is_later_sample
from app.store.tables import HAS_CUSTOM_ID, Id, runs, task_metadata, task_repeats, tasks
from app.store.write.reuse import find_answers, point_results
from app.store.write.run_times import entering

SETTLED_BY_REUSE = "reuse"
"""In tasks.settled_by: answered from another task's result. No report was taken, so `reported` and `verdict`
stay null; nothing was bought, so the charge is a known 0, without hold and post."""
NEW_BEFORE = "was bad or left out when the run was made, and is a prompt now"


@dataclass(frozen=True, slots=True)
class StoredChunk:
    """What became of one chunk of a source."""

    kept: int
    """Its tasks in the run, whoever stored them."""
    merged: int
    """Records left out because an earlier one asks the same."""
    reused: int
    """Of `kept`: answered from another task's result."""
    estimate: Decimal
    """Credits of those that will be sent."""
    repeated: int
    """Records of which the first of several samples is kept."""
    samples: int
    """Of `kept`: samples of records that ask for several."""


class LoadWrites(StorePart):
    """Part of the store."""

    @reads
    async def last_ordinal(self, connection: AsyncConnection, run_id: str) -> int:
        """The last record of its source that a run holds; 0: none yet."""
        return await connection.scalar(_last_ordinal(run_id)) or 0

    @reads
    async def loading_runs(self, connection: AsyncConnection, source: str) -> list[str]:
        """Runs of a source that is still being read, or whose reading was interrupted; newest first."""
        query = (
            sa.select(runs.c.id)
            .where(runs.c.state == RunState.LOADING, runs.c.source == source, runs.c.schedule_id.is_(None))
            .order_by(runs.c.created_at_ms.desc())
        )
        return list((await connection.scalars(query)).all())

    @reads
    async def lines_of_custom_ids(
        self, connection: AsyncConnection, run_id: str, custom_ids: Sequence[str], *, through: int
    ) -> dict[str, int]:
        """custom_id -> line, of those that records of a run have up to ordinal `through`."""
        ids = [{"custom_id": custom_id} for custom_id in custom_ids]
        batch = self.db.batch("v", {"custom_id": sa.Text()}, ids)
        c = task_metadata.c
        # One look by the index for each. The ordinal is hidden from the key, by which all records of the run
        # would be gone through for each.
        is_earlier = sa.func.coalesce(c.ordinal, 0) <= through
        line = sa.select(c.line).where(
            c.run_id == run_id, c.custom_id == batch.c.custom_id, HAS_CUSTOM_ID, is_earlier
        )
        found = await connection.execute(
            sa.select(batch.c.custom_id, line.correlate(batch).scalar_subquery().label("line"))
        )
        return {row.custom_id: row.line for row in found if row.line is not None}

    async def store_chunk(
        self,
        run_id: str,
        specs: Sequence[tuple[TaskSpec, Decimal]],
        *,
        after: int,
        known_to: int,
        merge: bool,
        now_ms: int,
    ) -> StoredChunk:
        """Store the records after ordinal `after`, each with our own estimate, unless they are stored.

        `known_to`: the last record the run held when this producer began; one up to there that is missing is
        new in the file. `merge`: leave out what an earlier record asks. A run that is not loading any more
        takes nothing and is only compared with. Raises SourceChanged, and then nothing is stored.
        """
        records = [(new_id(now_ms), spec, estimate) for spec, estimate in specs]
        return await self._store_missing(run_id, records, after, known_to, merge, now_ms)

    @writes(long=True)
    async def _store_missing(
        self,
        connection: AsyncConnection,
        run_id: str,
        records: Sequence[tuple[str, TaskSpec, Decimal]],
        after: int,
        known_to: int,
        merge: bool,
        now_ms: int,
    ) -> StoredChunk:
        run = await _lock_run(connection, run_id)
        specs = [(spec, estimate) for _, spec, estimate in records]
        earlier = await self._asked_earlier(connection, run_id, specs, after) if merge else set()
        # Not ours any more: what is left out is judged by what the run holds, so every producer agrees.
        kept = [record for record in records if record[1].ordinal not in earlier]
        asked = [spec for _, spec, _ in kept]
        last = records[-1][1].ordinal
        # Nobody pays for a look at own columns who has none.
        with_own = bool(known_to) or any(spec.own is not None or spec.repeats > 1 for spec in asked)
        stored = await _stored_records(connection, run_id, after, last, with_own=with_own)
        begun = {n: record for n, record in stored.items() if n <= known_to}
        refuse_difference([spec for spec in asked if spec.ordinal <= known_to], begun, missing=NEW_BEFORE)
        refuse_difference(asked, stored, missing=_refusal(run.state))
        new = [record for record in kept if record[1].ordinal not in stored]
        if new:
            await self._insert(connection, run, new, now_ms)
            # Another producer's rows may have come first: what is stored now is what counts.
            stored = await _stored_records(connection, run_id, after, last, with_own=with_own)
            refuse_difference(asked, stored, missing="could not be stored")
        reused = {n for n, record in stored.items() if record.reused}
        estimated = sum((credits for _, spec, credits in kept if spec.ordinal not in reused), Decimal(0))
        merged = sum(spec.ordinal in earlier and spec.sample == 1 for spec, _ in specs)
        samples = [spec for spec in asked if spec.repeats > 1]
        repeated = sum(spec.sample == 1 for spec in samples)
        return StoredChunk(len(kept), merged, len(reused), estimated, repeated, len(samples))

    @writes(long=True)
    async def finish_loading(
        self, connection: AsyncConnection, run_id: str, *, sha256: str, bad_lines: int, last: int
    ) -> bool:
        """Let a run begin to send, its source being read to its end at ordinal `last`. True also when another
        producer of the same records was faster; False for a run that was cancelled. Raises SourceChanged
        when the run holds more than the source."""
        await connection.execute(
            sa.update(runs)
            .where(runs.c.id == run_id, runs.c.state == RunState.LOADING)
            .values(source_sha256=sha256, bad_lines=bad_lines, **entering(self.db, RunState.RUNNING))
        )
        beyond = sa.select(sa.func.min(tasks.c.ordinal)).where(
            tasks.c.run_id == run_id, tasks.c.ordinal > last
        )
        if (ordinal := await connection.scalar(beyond)) is not None:
            record = (await _record_numbers(connection, run_id, [ordinal]))[ordinal]
            raise SourceChanged(record, "is in the run, and the file ends before it")
        return bool((await _lock_run(connection, run_id)).state != RunState.CANCELLED)

    @reads(long=True)
    async def duplicates(
        self, connection: AsyncConnection, run_id: str, limit: int
    ) -> tuple[int, list[tuple[int, int]]]:
        """How many records ask what an earlier one of the run asks, and the first of them: (number, number of
        the earlier one). Samples of one record repeat nothing."""
        first = sa.func.min(tasks.c.ordinal).over(partition_by=tasks.c.fingerprint).label("first")
        of_run = tasks.c.run_id == run_id, ~is_later_sample(run_id)
        each = sa.select(tasks.c.ordinal, first).where(*of_run).subquery()
        query = sa.select(each).where(each.c.ordinal > each.c.first).order_by(each.c.ordinal).limit(limit)
        count = sa.select(sa.func.count() - sa.func.count(tasks.c.fingerprint.distinct())).where(*of_run)
        found = await connection.scalar(count) or 0
        named = (await connection.execute(query)).all() if found and limit else []
        records = await _record_numbers(connection, run_id, {n for pair in named for n in pair})
        return found, [(records[row.ordinal], records[row.first]) for row in named]

    async def _asked_earlier(
        self, connection: AsyncConnection, run_id: str, specs: Sequence[tuple[TaskSpec, Decimal]], after: int
    ) -> set[int]:
        """Ordinals of the specs whose record asks what another one before it does."""
        prints = {spec.ordinal: spec.fingerprint() for spec, _ in specs}
        batch = self.db.batch(
            "v", {"fingerprint": sa.Text()}, [{"fingerprint": f} for f in set(prints.values())]
        )
        found = await connection.execute(
            sa.select(tasks.c.fingerprint, sa.func.min(tasks.c.ordinal))
            .join(batch, tasks.c.fingerprint == batch.c.fingerprint)
            # Hidden from the index on run and ordinal: going through the whole run for each chunk would
            # make reading a file quadratic, while a fingerprint has few rows.
            .where(
                sa.func.coalesce(tasks.c.run_id, sa.literal(run_id, Id)) == run_id, tasks.c.ordinal <= after
            )
            .group_by(tasks.c.fingerprint)
        )
        first = {row[0]: row[1] for row in found}
        return {
            spec.ordinal
            for spec, _ in specs
            if first.setdefault(prints[spec.ordinal], spec.first_ordinal) < spec.first_ordinal
        }

    async def _insert(
        self,
        connection: AsyncConnection,
        run: sa.Row[Any],
        new: Sequence[tuple[str, TaskSpec, Decimal]],
        now_ms: int,
    ) -> None:
        answers = None
        if run.reuse_within_ms is not None:
            since_ms = now_ms - run.reuse_within_ms
            answers = await find_answers(self.db, connection, run, [spec for _, spec, _ in new], since_ms)
        rows = [
            task_row(run.id, i, spec, estimate)
            | _answered(answers.take(spec) if answers else None, estimate, now_ms)
            for i, spec, estimate in new
        ]
        await self.db.insert(connection, tasks, rows, ignore=True)
        await insert_of_records(self.db, connection, run.id, [spec for _, spec, _ in new])
        if answers is not None:
            await point_results(self.db, connection, [i for i, _, _ in new], now_ms)


def task_row(run_id: str, task_id: str, spec: TaskSpec, estimate: Decimal) -> dict[str, object]:
    """A task that nothing was done for yet, with the key under which it will be sent."""
    return {
        "id": task_id,
        "run_id": run_id,
        "ordinal": spec.ordinal,
        "task_type": spec.task_type,
        "payload": json.dumps(spec.payload, ensure_ascii=False, separators=(",", ":")),
        "priority": spec.priority,
        "state": TaskState.PENDING,
        "attempt": 1,
        "idempotency_key": idempotency_key(task_id, 1),
        "money": Money.NONE,
        "credits_estimate": estimate,
        "sends": 0,
        "not_before_ms": 0,
        "polls": 0,
        "fingerprint": spec.fingerprint(),
    }


def own_row(run_id: str, spec: TaskSpec) -> dict[str, object] | None:
    """What is kept for a record's author; None: nothing."""
    if (own := spec.own) is None or spec.sample > 1:
        return None
    return {
        "run_id": run_id,
        "ordinal": spec.ordinal,
        "line": own.line,
        "custom_id": own.custom_id,
        "metadata": own.metadata,
    }


async def insert_of_records(
    db: Database, connection: AsyncConnection, run_id: str, specs: Sequence[TaskSpec]
) -> None:
    """Insert what is stored of the records of tasks, unless it is stored: nothing for most."""
    own = [row for spec in specs if (row := own_row(run_id, spec)) is not None]
    await db.insert(connection, task_metadata, own, ignore=True)
    repeats = {spec.first_ordinal: spec.repeats for spec in specs if spec.repeats > 1}
    rows = [{"run_id": run_id, "first_ordinal": n, "repeats": count} for n, count in repeats.items()]
    await db.insert(connection, task_repeats, rows, ignore=True)


def _answered(origin: str | None, estimate: Decimal, now_ms: int) -> dict[str, object]:
    """What differs in the row of a task that another one's result answers; nothing for origin None. It will
    cost nothing, so it does not count in the run's estimate."""
    known = origin is not None
    return {
        "state": TaskState.COMPLETED if known else TaskState.PENDING,
        "credits_estimate": Decimal(0) if known else estimate,
        "credits_charged": Decimal(0) if known else None,
        "settled_at_ms": now_ms if known else None,
        "settled_by": SETTLED_BY_REUSE if known else None,
        "reused_from": origin,
    }


def _refusal(state: str) -> str | None:
    """Why a run takes no more records; None: it does."""
    return None if state == RunState.LOADING else f"is not in the run, which is {state} and takes no more"


async def _lock_run(connection: AsyncConnection, run_id: str) -> sa.Row[Any]:
    """The run's row; nobody lets it begin or cancels it before this transaction ends."""
    found: sa.Result[Any] = await connection.execute(
        sa.select(runs.c.id, runs.c.state, runs.c.account, runs.c.reuse_within_ms)
        .where(runs.c.id == run_id)
        .with_for_update(read=True)
    )
    return found.one()


async def _stored_records(
    connection: AsyncConnection, run_id: str, after: int, last: int, *, with_own: bool
) -> dict[int, StoredRecord]:
    t = tasks.c
    rows = await connection.execute(
        sa.select(t.ordinal, t.fingerprint, t.priority, t.reused_from).where(
            t.run_id == run_id, t.ordinal > after, t.ordinal <= last
        )
    )
    own = await _stored_own(connection, run_id, after, last) if with_own else {}
    repeats = await _stored_repeats(connection, run_id, after, last) if with_own else {}
    return {
        row.ordinal: StoredRecord(
            row.fingerprint,
            row.priority,
            row.reused_from is not None,
            own.get(row.ordinal),
            repeats.get(row.ordinal),
        )
        for row in rows
    }


async def _stored_repeats(connection: AsyncConnection, run_id: str, after: int, last: int) -> dict[int, int]:
    r = task_repeats.c
    rows = await connection.execute(
        sa.select(r.first_ordinal, r.repeats).where(
            r.run_id == run_id, r.first_ordinal > after, r.first_ordinal <= last
        )
    )
    return {row.first_ordinal: row.repeats for row in rows}


async def _record_numbers(
    connection: AsyncConnection, run_id: str, ordinals: Collection[int]
) -> dict[int, int]:
    """Ordinal of a first sample -> number of its record: each sample beyond the first of a record before it
    has an ordinal of its own."""
    r = task_repeats.c
    surplus = sa.select(sa.func.coalesce(sa.func.sum(r.repeats - 1), 0))
    return {
        n: n - int(await connection.scalar(surplus.where(r.run_id == run_id, r.first_ordinal < n)) or 0)
        for n in ordinals
    }


async def _stored_own(connection: AsyncConnection, run_id: str, after: int, last: int) -> dict[int, OwnText]:
    m = task_metadata.c
    rows = await connection.execute(
        sa.select(m.ordinal, m.custom_id, m.metadata).where(
            m.run_id == run_id, m.ordinal > after, m.ordinal <= last
        )
    )
    return {row.ordinal: (row.custom_id, row.metadata) for row in rows}


def _last_ordinal(run_id: str) -> sa.Select[tuple[int]]:
    return sa.select(sa.func.max(tasks.c.ordinal)).where(tasks.c.run_id == run_id)
