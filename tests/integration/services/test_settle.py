"""Settlement, named after the rows of the failure catalogue (tables R and W), on both stores."""

import asyncio
import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.task import TaskSpec, idempotency_key
from app.limits import to_ms
from app.ports import RowsRefused, StoreUnavailable
from app.provider.wire import read_answer
from app.services.settle import LOST_UPDATE_PASSES, decide_delivery
from app.store import Database, Store
from app.store.tables import deliveries, ledger, tasks
from app.store.write.inbox import HELD_UP_MS_MAX
from app.store.write.settlement import SettlementWrites
from tests.clock import SteppedClock
from tests.integration.services.pipeline import LIMITS, UNMATCHED_MS, Pipeline
from tests.scripted_provider import LOSE, Accepted
from tests.statements import OWNERS, before_each


async def submitted(pipeline: Pipeline, tasks: int) -> list[Accepted]:
    """A run whose tasks are all accepted and finished at the provider; nothing was delivered yet."""
    task_ids = await pipeline.start(tasks)
    await pipeline.submit()
    return [pipeline.provider.finish(idempotency_key(i, 1)) for i in task_ids]


@contextlib.asynccontextmanager
async def updating_nothing(db: Database) -> AsyncIterator[None]:
    """No update of a task finds its row, as if somebody else always came before."""
    on, off = (
        (
            ["CREATE TRIGGER lost BEFORE UPDATE ON tasks BEGIN SELECT RAISE(IGNORE); END"],
            ["DROP TRIGGER lost"],
        )
        if db.is_sqlite
        else (
            [
                "CREATE FUNCTION lost() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'",
                "CREATE TRIGGER lost BEFORE UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION lost()",
            ],
            ["DROP FUNCTION lost CASCADE"],
        )
    )

    async def execute(statements: list[str]) -> None:
        for statement in statements:
            await db.write(lambda connection, text=statement: connection.execute(sa.text(text)))  # type: ignore[misc]

    await execute(on)
    try:
        yield
    finally:
        await execute(off)


def effects(books: Any) -> Counter[str]:
    return Counter(row["effect"] or row["state"] for row in books.deliveries)


async def test_a_batch_settles_in_one_go(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 30)
    failed = pipeline.provider.finish(done[0].key, "FAILED")
    over = pipeline.provider.finish(done[1].key, charged=Decimal(9))
    summary = await pipeline.deliver(*done)
    assert (summary.settled, summary.quarantined, summary.left) == (30, 0, 0)
    assert summary.verdicts == {"matched": 28, "free_failure": 1, "overcharged": 1}
    books = await pipeline.books()
    assert books.posted() == pipeline.provider.bill()
    assert books.entries("void") == {failed.key: Decimal(5)}
    assert [(f["verdict"], f["expected"], f["actual"]) for f in books.findings] == [
        ("overcharged", Decimal(5), Decimal(9))
    ]
    assert books.posted()[over.key] == 9


@pytest.mark.parametrize("copies", [2, 25])
async def test_r1_copies_delivered_at_once_settle_once(pipeline: Pipeline, copies: int) -> None:
    [done] = await submitted(pipeline, 1)
    batches = [await pipeline.receive(done) for _ in range(copies)]
    await asyncio.gather(*(pipeline.settle(ids) for ids in batches))
    books = await pipeline.books()
    assert effects(books) == {"settled": 1, "duplicate": copies - 1}
    assert books.posted() == pipeline.provider.bill()
    assert books.findings == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_r2_any_order_ends_in_the_same_state(pipeline: Pipeline, order: tuple[int, ...]) -> None:
    done = await submitted(pipeline, 3)
    pipeline.provider.finish(done[1].key, "FAILED")
    for i in order:
        await pipeline.deliver(done[i])
    books = await pipeline.books()
    assert books.states() == {"completed": 2, "failed": 1}
    assert books.posted() == pipeline.provider.bill()


async def test_r20_a_shape_nobody_knows_is_quarantined_alone(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 3)
    strange = [
        b'{"event":"task.done"}',
        b"[]",
        done[0].body(status="RUNNING"),
        done[0].body(creditsCharged="5"),
    ]
    summary = await pipeline.deliver(*done, *strange)
    assert (summary.settled, summary.quarantined) == (3, 4)
    books = await pipeline.books()
    quarantined = [row for row in books.deliveries if row["state"] == "quarantined"]
    assert len(quarantined) == 4
    assert all(row["error"].startswith("ReportError") for row in quarantined)
    assert books.states() == {"completed": 3}


async def test_r21_a_report_about_nothing_of_ours_is_kept_and_reported(pipeline: Pipeline) -> None:
    await submitted(pipeline, 1)
    unknown_report = Accepted("pt-foreign", "somebody.else", Decimal(5), "COMPLETED", Decimal(5), {})
    await pipeline.deliver(unknown_report)
    books = await pipeline.books()
    assert effects(books) == {"unmatched": 1}
    assert [row["state"] for row in books.deliveries] == ["unmatched"], "it may be early"
    assert books.findings == []
    pipeline.clock.advance(UNMATCHED_MS)
    await pipeline.sweep()
    books = await pipeline.books()
    assert [(row["state"], row["effect"]) for row in books.deliveries] == [("done", "unmatched")]
    assert [(f["verdict"], f["actual"]) for f in books.findings] == [("unmatched", Decimal(5))]
    assert books.posted() == {}


@pytest.mark.parametrize(
    ("changes", "detail"),
    [
        ({"status": "FAILED", "creditsCharged": 0}, "first completed, then failed"),
        ({"creditsCharged": 3}, "same status, another charge"),
        ({"response": {"text": "another answer"}}, "same status and charge, another response"),
    ],
)
@pytest.mark.parametrize("together", [True, False])
async def test_r22_a_second_different_report_changes_nothing(
    pipeline: Pipeline, changes: dict[str, Any], detail: str, together: bool
) -> None:
    [done] = await submitted(pipeline, 1)
    other = done.body(**changes)
    if together:
        first = await pipeline.receive(done)
        pipeline.clock.advance(1)
        await pipeline.settle(first + await pipeline.receive(other))
    else:
        await pipeline.deliver(done)
        await pipeline.deliver(other)
    books = await pipeline.books()
    [row] = books.tasks
    assert (row["state"], row["credits_charged"], row["verdict"]) == ("completed", Decimal(5), "matched")
    assert json.loads(books.results[0]["response"]) == {"text": "answer"}
    assert [(f["verdict"], f["detail"]) for f in books.findings] == [("conflict", detail)]
    evidence = {d["id"]: d for d in books.deliveries}[books.findings[0]["delivery_id"]]
    assert evidence["effect"] == "conflict"
    assert books.posted() == pipeline.provider.bill()


async def test_a_poll_that_spells_the_same_answer_otherwise_is_no_conflict(pipeline: Pipeline) -> None:
    [done] = await submitted(pipeline, 1)
    done.response = {"a": 1, "b": [1.0, "é"]}
    await pipeline.deliver(done)
    respelled = done.body().replace(b'{"a": 1, "b": [1.0, "\\u00e9"]}', '{"b":[1.0,"é"],"a":1}'.encode())
    assert respelled != done.body()
    await pipeline.deliver(respelled)
    assert effects(await pipeline.books()) == {"settled": 1, "duplicate": 1}


POISON = [
    b'{"text":"\xff"}',  # not UTF-8, inside the part that is not decoded before it is stored
    b'{"text":"\xed\xa0\x80"}',  # a lone surrogate as bytes
]


@pytest.mark.parametrize("response", POISON)
@pytest.mark.parametrize("place", [0, 11, 12, 24])
async def test_r23_one_poisonous_delivery_stands_alone_in_the_end(
    pipeline: Pipeline, response: bytes, place: int
) -> None:
    done = await submitted(pipeline, 25)
    bodies = [task.body() for task in done]
    bodies[place] = bodies[place].replace(b'{"text": "answer"}', response)
    summary = await pipeline.deliver(*bodies)
    assert (summary.settled, summary.quarantined, summary.left) == (24, 1, 0)
    books = await pipeline.books()
    assert books.states() == {"completed": 24, "submitted": 1}
    [quarantined] = [row for row in books.deliveries if row["state"] == "quarantined"]
    assert quarantined["error"] == "ReportError: not readable as JSON: UnicodeDecodeError"
    assert books.task(pipeline.task_ids[place])["state"] == "submitted", "the sweep will ask for it"


@pytest.mark.parametrize("seed", range(2))
async def test_r23_several_poisonous_ones_are_all_found(pipeline: Pipeline, seed: int) -> None:
    done = await submitted(pipeline, 40)
    poisonous = set(random.Random(seed).sample(range(40), 5))
    bodies = [
        task.body().replace(b'{"text": "answer"}', POISON[0]) if i in poisonous else task.body()
        for i, task in enumerate(done)
    ]
    summary = await pipeline.deliver(*bodies)
    assert (summary.settled, summary.quarantined) == (35, 5)
    assert (await pipeline.books()).states() == {"completed": 35, "submitted": 5}


def raising_for(monkeypatch: pytest.MonkeyPatch, keys: set[str]) -> None:
    """A bug in the rules, which these reports meet."""

    def buggy(delivery: Any, attempt: Any, stored: Any) -> Any:
        if delivery.report.idempotency_key in keys:
            raise ZeroDivisionError("of what the answer says")
        return decide_delivery(delivery, attempt, stored)

    monkeypatch.setattr("app.services.settle.decide_delivery", buggy)


async def test_a_bug_that_one_delivery_meets_holds_up_that_one(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await submitted(pipeline, 9)
    with monkeypatch.context() as patch:
        raising_for(patch, {done[4].key})
        summary = await pipeline.deliver(*done)
        assert (summary.settled, summary.quarantined, len(summary.held_up)) == (8, 0, 1)
        [row] = [row for row in (await pipeline.books()).deliveries if row["state"] != "done"]
        assert (row["state"], row["tries"]) == ("new", 0)
        assert row["error"].startswith("ZeroDivisionError at test_settle.py:")
        for _ in range(2 * LIMITS.deliveries_tries_max):
            pipeline.clock.advance(HELD_UP_MS_MAX)
            await pipeline.sweep()
        # What a poll brought meanwhile meets it too.
        waiting = [row for row in (await pipeline.books()).deliveries if row["state"] != "done"]
        assert {(row["state"], row["tries"]) for row in waiting} == {("new", 0)}
    pipeline.clock.advance(HELD_UP_MS_MAX)
    await pipeline.sweep()
    books = await pipeline.books()
    assert books.states() == {"completed": 9}
    assert {row["error"] for row in books.deliveries} == {None}


async def test_a_bug_that_every_delivery_meets_sets_none_aside(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await submitted(pipeline, 30)
    with monkeypatch.context() as patch:
        raising_for(patch, {task.key for task in done})
        summary = await pipeline.deliver(*done)
        assert (summary.settled, summary.quarantined, len(summary.held_up)) == (0, 0, 30)
    pipeline.clock.advance(HELD_UP_MS_MAX)
    await pipeline.sweep()
    assert (await pipeline.books()).states() == {"completed": 30}


async def test_a_reader_that_is_broken_sets_nothing_aside(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await submitted(pipeline, 3)

    def broken(_: bytes) -> Any:
        raise ValueError("int() of something")

    with monkeypatch.context() as patch:
        patch.setattr("tests.integration.services.pipeline.read_report", broken)
        assert len((await pipeline.deliver(*done)).held_up) == 3
    pipeline.clock.advance(HELD_UP_MS_MAX)
    await pipeline.sweep()
    assert (await pipeline.books()).states() == {"completed": 3}


async def test_one_that_cannot_be_unpacked_takes_no_neighbour_along(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 20)
    for task in done:
        task.response = {"text": "x" * 2_000}
    ids = await pipeline.receive(*done)
    await pipeline.store.db.write(alter(deliveries.c.id == ids[7], body=b"no frame"))
    pipeline.clock.advance(to_ms(LIMITS.sweep_after_s))
    summary = await pipeline.sweep()
    assert summary.deliveries == 20
    books = await pipeline.books()
    assert books.states() == {"completed": 19, "submitted": 1}
    [row] = [row for row in books.deliveries if row["state"] == "quarantined"]
    assert row["id"] == ids[7] and row["error"].startswith("does not unpack as zstd")


async def test_what_a_later_version_packed_waits_for_it(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 5)
    ids = await pipeline.receive(*done)
    await pipeline.store.db.write(alter(deliveries.c.id == ids[2], encoding="zstd+dictionary"))
    summary = await pipeline.settle(ids)
    assert (summary.settled, summary.quarantined, list(summary.held_up)) == (4, 0, [ids[2]])


def alter(where: Any, **values: Any) -> Any:
    async def work(connection: Any) -> None:
        await connection.execute(sa.update(deliveries).where(where).values(**values))

    return work


def saying(sql: str) -> Any:
    async def work(connection: Any) -> None:
        for statement in sql.split(";;"):
            await connection.exec_driver_sql(statement)

    return work


TROUBLE = {
    "a table renamed": ("ALTER TABLE results RENAME TO elsewhere", "ALTER TABLE elsewhere RENAME TO results"),
    "a column gone": (
        "ALTER TABLE ledger RENAME COLUMN kind TO sort",
        "ALTER TABLE ledger RENAME COLUMN sort TO kind",
    ),
    "an inbox renamed": ("ALTER TABLE deliveries RENAME TO inbox", "ALTER TABLE inbox RENAME TO deliveries"),
}
POSTGRESQL_TROUBLE = {
    "a check that nothing passes": (
        "ALTER TABLE results ADD CONSTRAINT none CHECK (false) NOT VALID",
        "ALTER TABLE results DROP CONSTRAINT none",
    ),
    "a trigger that raises": (
        "CREATE FUNCTION no() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no'; END $$;;"
        "CREATE TRIGGER no BEFORE INSERT ON ledger FOR EACH ROW EXECUTE FUNCTION no()",
        "DROP TRIGGER no ON ledger;; DROP FUNCTION no",
    ),
    "a column too narrow": (
        "ALTER TABLE results ALTER COLUMN status TYPE varchar(1)",
        "ALTER TABLE results ALTER COLUMN status TYPE text",
    ),
}


@pytest.mark.parametrize("breaks, mends", TROUBLE.values(), ids=list(TROUBLE))
async def test_trouble_of_the_database_is_held_against_no_delivery(
    pipeline: Pipeline, breaks: str, mends: str
) -> None:
    await through_trouble(pipeline, breaks, mends)


@pytest.mark.parametrize("breaks, mends", POSTGRESQL_TROUBLE.values(), ids=list(POSTGRESQL_TROUBLE))
async def test_trouble_of_postgresql_is_held_against_no_delivery(
    postgres_url: str, clock: SteppedClock, breaks: str, mends: str
) -> None:
    store = Store(Database(postgres_url), read_answer)
    try:
        await through_trouble(Pipeline(store, clock), breaks, mends)
    finally:
        await store.close()


async def through_trouble(pipeline: Pipeline, breaks: str, mends: str) -> None:
    """More sweeps in trouble than a delivery has tries; then none is the worse for it."""
    done = await submitted(pipeline, 12)
    ids = await pipeline.receive(*done)
    unreleased: set[str] = set()
    await pipeline.store.db.write(saying(breaks))
    try:
        for _ in range(LIMITS.deliveries_tries_max + 2):
            pipeline.clock.advance(to_ms(LIMITS.sweep_after_s))
            with pytest.raises(StoreUnavailable):
                await pipeline.sweep(unreleased=unreleased)
            with pytest.raises(StoreUnavailable):
                await pipeline.settle(ids)
    finally:
        await pipeline.store.db.write(saying(mends))
    rows = (await pipeline.books()).deliveries
    assert {(row["state"], row["error"]) for row in rows} == {("new", None)}
    pipeline.clock.advance(to_ms(LIMITS.sweep_after_s))
    assert (await pipeline.sweep(unreleased=unreleased)).deliveries == 12
    assert (await pipeline.books()).states() == {"completed": 12}


async def test_one_that_alone_meets_trouble_waits_and_the_others_settle(
    postgres_url: str, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody holds a lock on one task, and the server does not wait for it."""

    async def at_once(_: float) -> None: ...

    monkeypatch.setattr("app.store.database.asyncio.sleep", at_once)
    other = Database(postgres_url)
    name = sa.make_url(postgres_url).database
    await other.write(saying(f"ALTER DATABASE {name} SET lock_timeout = '20ms'"))
    store = Store(Database(postgres_url), read_answer)
    pipeline = Pipeline(store, clock)
    try:
        done = await submitted(pipeline, 8)
        async with other.engine.begin() as holding:
            await holding.execute(
                sa.select(tasks).where(tasks.c.id == pipeline.task_ids[5]).with_for_update()
            )
            summary = await pipeline.deliver(*done)
        assert (summary.settled, summary.quarantined) == (7, 0)
        [message] = summary.held_up.values()
        assert message.startswith("StoreUnavailable") and "55P03" in message
        pipeline.clock.advance(HELD_UP_MS_MAX)
        await pipeline.sweep()
        assert (await pipeline.books()).states() == {"completed": 8}
    finally:
        await other.write(saying(f"ALTER DATABASE {name} RESET lock_timeout"))
        await other.close()
        await store.close()


async def test_w15_an_answer_that_explains_its_charge(pipeline: Pipeline) -> None:
    """AI Mode with expandProducts: one credit more for each product cluster (C-E.2)."""
    await pipeline.start(1)
    payload: dict[str, object] = {"prompt": "p", "country": "DE", "include": {"expandProducts": True}}
    [task_id] = await pipeline.store.runs.add_tasks(
        pipeline.run_id, [(TaskSpec(2, "AIMODE", payload), Decimal(4))], pipeline.clock()
    )
    await pipeline.submit()
    done = pipeline.provider.finish(idempotency_key(task_id, 1), charged=Decimal(6))
    done.response = {"productResults": [{}, {}]}
    assert (await pipeline.deliver(done)).verdicts == {"explained": 1}
    strange = done.body(response=["no object"])
    await pipeline.deliver(strange)
    assert [f["verdict"] for f in (await pipeline.books()).findings] == ["conflict"]


async def test_a_missing_charge_stays_open_and_is_filled_later(pipeline: Pipeline) -> None:
    [done] = await submitted(pipeline, 1)
    for place in (done.body(creditsCharged=None), done.body(credits=None)):
        await pipeline.deliver(place)
        books = await pipeline.books()
        [row] = books.tasks
        assert (row["state"], row["money"], row["verdict"]) == ("completed", "held", "unknown")
        assert row["credits_charged"] is None and books.posted() == {}
    await pipeline.deliver(done)
    books = await pipeline.books()
    assert books.posted() == {done.key: Decimal(5)}
    assert effects(books) == {"settled": 1, "duplicate": 1, "filled": 1}
    assert books.tasks[0]["verdict"] == "matched"


async def test_s11_a_task_that_fails_for_want_of_credits_pauses_its_run(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 3)
    out_of_credits = pipeline.provider.finish(done[0].key, "FAILED")
    out_of_credits.response = {"error": {"code": "INSUFFICIENT_CREDITS", "message": "Insufficient credits"}}
    pipeline.provider.finish(done[1].key, "FAILED")
    await pipeline.deliver(done[1], done[2])
    assert (await pipeline.books()).runs[0]["state"] == "running", "an ordinary failure pauses nothing"
    await pipeline.deliver(out_of_credits)
    books = await pipeline.books()
    assert books.runs[0]["state"] == "paused"
    assert "credits" in books.runs[0]["reason"]
    assert books.task(pipeline.task_ids[0])["error_code"] == "INSUFFICIENT_CREDITS"
    # A person resumes the run; the same report again is no news.
    await pipeline.store.runs.resume_run_if_halted(pipeline.run_id)
    await pipeline.deliver(out_of_credits)
    assert (await pipeline.books()).runs[0]["state"] == "running"


async def test_w1_an_absent_store_leaves_the_deliveries_waiting(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await submitted(pipeline, 5)
    ids = await pipeline.receive(*done)

    async def away(*_: Any, **__: Any) -> Any:
        raise StoreUnavailable("stopped")

    with monkeypatch.context() as patch:
        patch.setattr(SettlementWrites, "apply", away)
        patch.setattr(SettlementWrites, "probe", away)
        with pytest.raises(StoreUnavailable):
            await pipeline.settle(ids)
    assert {row["state"] for row in (await pipeline.books()).deliveries} == {"new"}, "none is quarantined"
    assert (await pipeline.settle(ids)).settled == 5


async def test_w4_a_settlement_whose_commit_was_lost_is_repeated_without_harm(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch
) -> None:
    done = await submitted(pipeline, 5)
    ids = await pipeline.receive(*done)
    apply = SettlementWrites.apply

    async def cut(*args: Any, **when: Any) -> Any:
        await apply(*args, **when)
        raise StoreUnavailable("connection lost at COMMIT")

    with monkeypatch.context() as patch:
        patch.setattr(SettlementWrites, "apply", cut)
        assert len((await pipeline.settle(ids)).held_up) == 0
    assert (await pipeline.settle(ids)).settled == 0
    assert (await pipeline.books()).posted() == pipeline.provider.bill()


async def test_w11_eight_workers_on_the_same_deliveries(pipeline: Pipeline, store_url: str) -> None:
    """Each with connections of its own."""
    done = await submitted(pipeline, 40)
    ids = await pipeline.receive(*done, *done)
    others = [Store(Database(store_url, pool_size=1), read_answer) for _ in range(8)]
    try:
        workers = [Pipeline(store, pipeline.clock, pipeline.provider) for store in others]
        order = random.Random(11)
        await asyncio.gather(*(worker.settle(order.sample(ids, len(ids))) for worker in workers))
    finally:
        for store in others:
            await store.close()
    await pipeline.settle(ids)
    books = await pipeline.books()
    assert effects(books) == {"settled": 40, "duplicate": 40}
    assert books.posted() == pipeline.provider.bill()


@pytest.mark.parametrize("second", ["same", "conflict", "charge unknown"])
async def test_w11_two_that_read_the_same_row_settle_it_once(pipeline: Pipeline, second: str) -> None:
    """Two workers hold two deliveries of one task, and both have read the row before either writes."""
    [done] = await submitted(pipeline, 1)
    other = {
        "same": done.body(),
        "conflict": done.body(status="FAILED", creditsCharged=0),
        "charge unknown": done.body(creditsCharged=None),
    }[second]
    first_ids, second_ids = await pipeline.receive(done), await pipeline.receive(other)
    both, arrived, db = asyncio.Barrier(2), itertools.count(), pipeline.store.db

    async def together() -> None:
        # SQLite has one writer, so the second has not read yet; then nothing is waited for.
        if not db.is_sqlite and next(arrived) < 2:
            await both.wait()

    with before_each(db, "UPDATE tasks", together):
        summaries = await asyncio.gather(pipeline.settle(first_ids), pipeline.settle(second_ids))
    assert db.is_sqlite or next(arrived) >= 2
    assert [(s.left, s.quarantined) for s in summaries] == [(0, 0), (0, 0)]
    books = await pipeline.books()
    found = effects(books)
    assert found["settled"] == 1 and sum(found.values()) == 2 and found["quarantined"] == 0
    expected = {"same": {"duplicate"}, "conflict": {"conflict"}, "charge unknown": {"duplicate", "filled"}}
    assert set(found) - {"settled"} <= expected[second]
    assert len(books.posted()) == 1


async def test_w11_a_report_that_made_an_id_known_meanwhile_contradicts_no_copy_of_itself(
    pipeline: Pipeline,
) -> None:
    """One worker has read a task whose id nobody knows; another settles it, and with it knows the id."""
    await pipeline.start(1)
    pipeline.provider.tell(LOSE)
    await pipeline.submit()
    pipeline.clock.advance(61_000)
    await pipeline.submit()  # 409: accepted, and no id
    [key] = pipeline.provider.accepted
    done = pipeline.provider.finish(key)
    first_ids, second_ids = await pipeline.receive(done), await pipeline.receive(done)
    looked, db = itertools.count(), pipeline.store.db

    async def settle_first() -> None:
        # SQLite has one writer: there nobody settles in between.
        if not next(looked) and not db.is_sqlite:
            await pipeline.settle(first_ids)

    with before_each(db, OWNERS, settle_first):
        await pipeline.settle(second_ids)
    assert next(looked)
    await pipeline.settle(first_ids)
    books = await pipeline.books()
    assert effects(books) == {"settled": 1, "duplicate": 1}
    assert not books.findings


async def test_a_delivery_that_loses_every_update_is_left_for_the_sweep(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 2)
    passes, db = itertools.count(), pipeline.store.db

    async def count_pass() -> None:
        next(passes)

    async with updating_nothing(db):
        with before_each(db, "UPDATE tasks", count_pass):
            summary = await pipeline.deliver(*done)
    assert (summary.settled, summary.left, next(passes)) == (0, 2, LOST_UPDATE_PASSES)
    assert {row["state"] for row in (await pipeline.books()).deliveries} == {"new"}
    pipeline.clock.advance(10_000)
    await pipeline.sweep()
    assert (await pipeline.books()).states() == {"completed": 2}


async def test_i9_raw_deliveries_in_any_order_give_the_same_books(pipeline: Pipeline) -> None:
    done = await submitted(pipeline, 12)
    for i in (1, 5):
        pipeline.provider.finish(done[i].key, "FAILED")
    bodies = [task.body() for task in done] * 2 + [done[3].body(creditsCharged=None)]
    random.Random(9).shuffle(bodies)
    for body in bodies:
        await pipeline.deliver(body)
    assert (await pipeline.books()).posted() == pipeline.provider.bill()


async def test_the_database_itself_refuses_a_second_closing_entry(pipeline: Pipeline) -> None:
    """Whatever the code believes: a post and a void of one attempt cannot both stand in the ledger."""
    [done] = await submitted(pipeline, 1)
    await pipeline.deliver(done)
    [post] = [row for row in (await pipeline.books()).ledger if row["kind"] == "post"]
    for kind in ("void", "post"):
        again = {name: value for name, value in post.items() if name != "id"} | {"kind": kind}

        async def insert(connection: Any, row: Any = again) -> None:
            await connection.execute(sa.insert(ledger), [row])

        with pytest.raises(RowsRefused):
            await pipeline.store.db.write(insert)
    assert (await pipeline.books()).posted() == pipeline.provider.bill()
