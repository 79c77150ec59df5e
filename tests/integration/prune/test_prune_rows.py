"""Submissions, balances, notices and findings: what goes, what stays, and figures that stay as they were."""

import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.accounting.balances import Balance
from app.domain.evidence.certificate import certificate_sha256
from app.domain.evidence.completeness import certify
from app.domain.notices.notice import Notice, NoticeKind, NoticeState
from app.domain.retention import DONE, Kind, Reason
from app.domain.time_format import DAY_MS
from app.services.notice_triggers import Watcher
from app.services.prune import Pruner
from app.store import Store
from app.store.read import notice_triggers
from app.store.tables import notices, receipts, submissions
from app.store.write import pruning_reasons, pruning_rows
from app.store.write.pruning_rows import TABLES, id_of, page_of
from app.store.write.receipts import Dropped, receipts_of
from app.views.report import full_report_document
from tests.clock import SteppedClock
from tests.integration.prune.test_prune import change, no_pause, verify
from tests.integration.verify.scene import Scene, make_scene

OLD_DAYS = 60
ROWS = (Kind.SUBMISSIONS, Kind.BALANCES, Kind.NOTICES, Kind.FINDINGS)
NEVER = "00000000-0000-0000-0000-000000000000"
PLAIN = {"matched", "failed", "overcharged", "filled", "duplicate", "retried", "clusters", "keyless", "asked"}
"""Tasks that were accepted once, by their create call, and are closed and undisputed."""
SMALL = {"page", "answer", "archive_blocks", "its_run", "every", "stray"}
"""Read once for a statement: corrections by hand, an entry for 64 MB, runs; of the last two one row."""


def pruner_of(scene: Scene, *kinds: Kind, **options: Any) -> Pruner:
    policy = {kind.value: 10 for kind in kinds}
    return Pruner(scene.store, policy, clock=scene.clock, pause=no_pause, **options)


async def prune(scene: Scene, *kinds: Kind) -> Mapping[Kind, list[Dropped]]:
    """Plans, prunes, and sees that the two say the same."""
    planned = [one for one in await pruner_of(scene, *kinds).plan() if one.rows]
    dropped = await pruner_of(scene, *kinds).turn()
    assert dropped == planned
    assert await pruner_of(scene, *kinds).turn() == [], "nothing to do is quiet"
    totals = await verify(scene.store)
    assert [str(d) for d in totals.differences] == []
    return {kind: [one for one in dropped if one.kind is kind] for kind in kinds}


async def ids(store: Store, table: sa.Table) -> list[Any]:
    query = sa.select(id_of(table)).order_by(id_of(table))
    return await store.db.read(lambda c: _scalars(c, query))


async def accepted(store: Store) -> set[tuple[str, int]]:
    """(task id, attempt) of sends that stand and were accepted."""
    s = submissions.c
    query = sa.select(s.task_id, s.attempt).where(s.answer == "accepted")
    return await store.db.read(lambda c: _rows(c, query))


async def _rows(connection: AsyncConnection, query: sa.Select[Any]) -> set[Any]:
    return {tuple(row) for row in await connection.execute(query)}


async def _scalars(connection: AsyncConnection, query: sa.Select[Any]) -> list[Any]:
    return list(await connection.scalars(query))


async def figures(scene: Scene) -> dict[str, Any]:
    """What people are told of the run, without what says that something was pruned."""
    store = scene.store
    row = next(run for run in await store.queries.list_runs() if run.id == scene.run_id)
    report = full_report_document(await store.reports.full_report(row, 100))
    totals, facts = await store.certificates.total_run(scene.run_id)
    certificate = certify(totals, facts, 0)
    assert certificate["certificate_sha256"] == certificate_sha256(certificate)
    certificate.pop("pruned", None)
    # These are the rows themselves; of the bodies that are gone nobody counts the repetitions any more.
    return {
        "report": report | {"findings": None, "duplicates": None, "pruned": None},
        "certificate": certificate,
    }


async def old_scene(store: Store) -> Scene:
    scene = await make_scene(store)
    clock = scene.clock
    for minute in range(6):
        balance = Balance(
            clock.advance(60_000), Decimal(900 - minute), Decimal(1_000), clock() + 20 * DAY_MS, "credits"
        )
        await store.accounts.store_balance("default", replace(balance, resets_at_ms=20 * DAY_MS + 10**12))
    await Watcher(store, clock=clock).look()
    await store.db.write(
        lambda c: c.execute(sa.update(notices).values(state=NoticeState.SENT, sent_at_ms=clock()))
    )
    clock.advance(OLD_DAYS * DAY_MS)
    await store.accounts.store_balance(
        "default", Balance(clock(), Decimal(1), Decimal(1_000), None, "credits")
    )
    return scene


async def test_rows_go_by_kind_and_no_figure_changes(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pruning_rows, "ROWS", 4)
    scene = await old_scene(store)
    before = await figures(scene)
    sent = await accepted(store)

    (sends,) = (await prune(scene, Kind.SUBMISSIONS))[Kind.SUBMISSIONS]
    assert set(sends.kept) == {Reason.OPEN, Reason.DISPUTED, Reason.NEEDED}
    gone = sent - await accepted(store)
    assert {name for name, task_id in scene.ids.items() if (task_id, 1) in gone} == PLAIN
    assert (scene.ids["retried"], 2) in gone, "attempts of a task go together, or stay"
    assert sends.credits_charged == 5 * 5 + 9 + 7 + 7, "five at 5, overcharged, clusters, asked"
    assert await figures(scene) == before

    (taken,) = (await prune(scene, Kind.BALANCES))[Kind.BALANCES]
    assert (taken.rows, taken.kept) == (4, Counter({Reason.NEEDED: 3}))
    assert (await prune(scene, Kind.FINDINGS))[Kind.FINDINGS] == [], "their evidence stands"
    await prune(scene, Kind.BODIES)
    (found,) = (await prune(scene, Kind.FINDINGS))[Kind.FINDINGS]
    assert (found.rows, found.kept[Reason.DISPUTED], found.kept[Reason.OPEN]) == (3, 3, 1)
    assert await figures(scene) == before
    totals = await verify(store)
    assert (totals.counts["pruned_findings"], totals.counts["pruned_sends"]) == (1, len(gone))
    states = sa.select(receipts.c.kind, receipts.c.state).where(receipts.c.kind != Kind.BODIES)
    rows = await store.db.read(lambda c: _rows(c, states))
    assert rows == {("submissions", DONE), ("balances", DONE), ("findings", DONE)}


async def test_the_ends_of_cycles_and_allocations_are_explained_after(store: Store) -> None:
    scene = await old_scene(store)

    async def explained() -> Any:
        whole = "default", 0, scene.clock()
        return await store.audits.seen_resets("default"), await store.audits.plan_snapshots(*whole)

    before = await explained()
    assert await prune(scene, Kind.BALANCES)
    assert await explained() == before


async def test_no_notice_is_sent_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    scene = await old_scene(store)
    clock = SteppedClock(scene.clock() - 50 * DAY_MS)
    about = NoticeKind.BUDGET_REACHED, "default"
    old = [Notice(*about, f"budget:default:{n}", "Reached.", clock.advance(1)) for n in range(3)]
    await store.notices.add_notices(old, clock(), state=NoticeState.SENT)
    unsent = [replace(old[0], dedupe_key=f"budget:default:unsent{n}") for n in range(2)]
    await store.notices.add_notices(unsent, clock.advance(1))

    (dropped,) = (await prune(scene, Kind.NOTICES))[Kind.NOTICES]
    assert (dropped.rows, dropped.kept[Reason.WAITING]) == (3, 1), (
        "one is still to be sent, and the newest is not looked at"
    )
    assert await Watcher(store, clock=scene.clock).look() == 0

    for module in (pruning_reasons, notice_triggers):
        monkeypatch.setattr(module, "RUNS_MAX", 1)
    newest = await store.runs.create_run(name="newest", source="-", budget=None, now_ms=scene.clock())
    await store.runs.start_run_if_loading(newest, sha256="0" * 64, bad_lines=0)
    (dropped,) = (await prune(scene, Kind.NOTICES))[Kind.NOTICES]
    assert (dropped.rows, dropped.kept[Reason.DISPUTED]) == (1, 6), "of a run that nobody looks at"
    assert await Watcher(store, clock=scene.clock).look() == 0


async def test_of_a_retained_run_all_rows_stay(store: Store) -> None:
    scene = await old_scene(store)
    for run in await store.queries.list_runs():
        await store.pruning.retain_run(run.id, scene.clock())
    before = {table.name: await ids(store, table) for table in (submissions, notices)}
    await prune(scene, Kind.SUBMISSIONS, Kind.NOTICES)
    await prune(scene, Kind.BODIES)
    (strange,) = (await prune(scene, Kind.FINDINGS))[Kind.FINDINGS]
    assert (strange.rows, strange.kept[Reason.RETAINED]) == (1, 5), "a stranger's is of no run"
    assert {table.name: await ids(store, table) for table in (submissions, notices)} == before


@pytest.mark.parametrize(
    ("kind", "damage", "found"),
    [
        (
            Kind.SUBMISSIONS,
            "DELETE FROM submissions WHERE task_id = :undercharged",
            {("receipts", "credits_charged")},
        ),
        (Kind.SUBMISSIONS, "DELETE FROM receipts", {("tasks", "submitted_at_ms")}),
        (
            Kind.SUBMISSIONS,
            "UPDATE results SET answer_sha256 = :undercharged WHERE task_id = :matched",
            {("results", "answer_sha256")},
        ),
        (Kind.FINDINGS, "DELETE FROM pruned_findings", {("tasks", "verdict")}),
        (
            Kind.FINDINGS,
            "UPDATE tasks SET verdict = 'overcharged' WHERE id = :clusters",
            {("pruned_findings", "row_count")},
        ),
        (Kind.FINDINGS, "UPDATE pruned_findings SET row_count = 7", {("pruned_findings", "row_count")}),
    ],
)
async def test_what_went_beside_the_receipts_is_found(
    sqlite_store: Store, kind: Kind, damage: str, found: set[tuple[str, str]]
) -> None:
    scene = await old_scene(sqlite_store)
    if kind is Kind.FINDINGS:
        await prune(scene, Kind.BODIES)
    await prune(scene, kind)
    statement = sa.text(damage)
    values = {name: scene.ids[name].replace("-", "") for name in statement._bindparams}
    await change(sqlite_store, statement.bindparams(**values))
    assert {(d.table, d.column) for d in (await verify(sqlite_store)).differences} >= found


async def test_it_goes_on_where_it_was_stopped(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed between two batches, or told to end."""
    monkeypatch.setattr(pruning_rows, "ROWS", 2)
    scene = await old_scene(store)
    (planned,) = [one for one in await pruner_of(scene, Kind.SUBMISSIONS).plan() if one.rows]
    looks = iter([False, False, True])
    pruner = pruner_of(scene, Kind.SUBMISSIONS, is_over=lambda: next(looks, False))
    (first,) = await pruner.turn()
    assert 0 < first.rows < planned.rows
    assert (await verify(store)).differences == []
    (rest,) = await pruner.turn()
    assert first.rows + rest.rows == planned.rows
    (receipt,) = await store.db.read(receipts_of)
    assert (receipt.row_count, receipt.body_bytes, receipt.state) == (planned.rows, planned.body_bytes, DONE)
    assert (await verify(store)).differences == []


@pytest.mark.parametrize("kind", [*ROWS, Kind.KEYS])
async def test_each_batch_is_answered_from_an_index(store: Store, kind: Kind) -> None:
    """Whatever stands before it and behind it, a batch reads its rows and what these name."""
    text = page_of(kind, NEVER if kind in (Kind.NOTICES, Kind.KEYS) else 1).compile(
        store.db.engine, compile_kwargs={"literal_binds": True}
    )
    query = str(text).replace("LIMIT ?", "LIMIT -1")  # which is bound all the same
    plan = await store.db.read(lambda c: explained(c, query, is_sqlite=store.db.is_sqlite))
    name = TABLES[kind].name
    index = "ix_task_keys_task_id" if kind is Kind.KEYS else f"pk_{name}"
    if store.db.is_sqlite:
        assert re.search(
            r"SEARCH every USING (INTEGER PRIMARY KEY|COVERING INDEX .*) \((rowid|id|task_id)>\?", plan
        ), plan
        scanned = set(re.findall(r"SCAN (\w+)\b(?! USING)", plan))
        assert scanned <= SMALL, plan
    else:
        # Of small tables PostgreSQL reads the rest as it likes.
        assert re.search(rf"Limit .*(.*\n){{1,7}}.*Index.* Scan (using|on) {index}", plan), plan
        assert re.search(rf"Index Scan (using {index} on {name}|on {index})", plan), plan


async def explained(connection: AsyncConnection, query: str, *, is_sqlite: bool) -> str:
    """The plan, where the tables are large."""
    if is_sqlite:
        rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}")
        return "\n".join(str(tuple(row)[-1]) for row in rows)
    await connection.exec_driver_sql("SET LOCAL enable_seqscan = off")
    rows = await connection.exec_driver_sql(f"EXPLAIN {query}")
    return "\n".join(str(row[0]) for row in rows)
