"""Bulk changes: what is tried out is what is done, each task once, and never more than was confirmed."""

import asyncio
from decimal import Decimal

import pytest
import sqlalchemy as sa

from app.domain.bulk_change import (
    BY_HAND,
    COSTS_MORE,
    MORE_MATCH,
    PROPOSED_FOR_MS,
    Aim,
    BulkChange,
    Figures,
    Place,
    Verb,
)
from app.domain.own_columns import OwnColumns
from app.domain.task import TaskSpec, TaskState
from app.domain.task_filter import FilterError, parse_filter
from app.services.access import Asker
from app.services.bulk_changes import NotConfirmed, carry_out, confirm, propose, stop
from app.store import Database, Store
from app.store.read import task_matching
from app.store.tables import actions, runs, tasks
from app.store.write import bulk_changes, bulk_matching
from tests.integration.store.scenes import (
    NOW,
    check_books,
    claim,
    count,
    ended,
    execute,
    failed_on,
    report_on,
    rows,
    settle_all,
    start_run,
    submit_all,
)

LATER = NOW + 10_000
ME = Asker("me")


async def tried(
    store: Store, verb: Verb, text: str = "", *, asker: Asker = ME, even_if_held: bool = False
) -> BulkChange:
    return await propose(store, verb, parse_filter(text), asker, now_ms=LATER, even_if_held=even_if_held)


async def confirmed(store: Store, change: BulkChange, now_ms: int = LATER) -> BulkChange:
    proposed = change.proposed
    return await confirm(
        store, change, matched=proposed.matched, credits=proposed.credits, filter=change.filter, now_ms=now_ms
    )


async def done(store: Store, change: BulkChange) -> BulkChange:
    await confirmed(store, change)
    ended = await carry_out(store, change.id, clock=lambda: LATER)
    assert ended is not None
    assert ended == await store.bulk_changes.find(change.id)
    return ended


async def failed_run(store: Store, tasks: int = 4) -> tuple[str, list[str]]:
    """All of its tasks failed, for nothing."""
    run_id, ids = await start_run(store, tasks)
    sent = await submit_all(store)
    await settle_all(store, *(failed_on(task) for task in sent))
    return run_id, ids


async def attempts(store: Store) -> list[int]:
    return [row["attempt"] for row in await rows(store, "SELECT attempt FROM tasks ORDER BY run_id, ordinal")]


async def test_all_that_match_are_retried_as_was_tried_out(store: Store) -> None:
    """Of four runs two have failed tasks; of one also a task that may still be charged, and one answered."""
    await start_run(store, 1)
    await submit_all(store)
    await failed_run(store, 3)
    run_id, ids = await start_run(store, 4)
    sent = await submit_all(store)
    await settle_all(store, failed_on(sent[0]), report_on(sent[1]), failed_on(sent[2]))
    await store.polls.expire_if_unreported([(ids[3], 1)], code="retention_over", reason="gone")
    change = await tried(store, Verb.RETRY)
    assert change.proposed == Figures(5, Decimal(25), left_held=1, held=Decimal(5))
    assert (await tried(store, Verb.RETRY, f"run:{run_id}")).proposed.matched == 2
    assert (await tried(store, Verb.RETRY, "state:expired", even_if_held=True)).proposed.matched == 1
    assert (await tried(store, Verb.RETRY, "verdict:free_failure")).proposed.matched == 5
    assert (await tried(store, Verb.RETRY, "verdict:matched")).proposed == Figures()
    ended = await done(store, change)
    assert (ended.state, ended.done, ended.reason) == ("finished", change.proposed, None)
    assert sorted(await attempts(store)) == [1] * 3 + [2] * 5
    assert len(await claim(store, now_ms=LATER)) == 5
    await check_books(store)


async def test_a_late_answer_is_left_alone(store: Store) -> None:
    _, ids = await start_run(store, 1)
    sent = await submit_all(store)
    await store.polls.expire_if_unreported([(ids[0], 1)], code="retention_over", reason="gone")
    await settle_all(store, report_on(sent[0]))
    change = await tried(store, Verb.RETRY, even_if_held=True)
    assert change.proposed == Figures(left_answered=1)
    with pytest.raises(NotConfirmed, match="nothing matches"):
        await confirmed(store, change)


async def test_what_was_never_sent_is_cancelled_and_the_rest_stays(store: Store) -> None:
    run_id, ids = await start_run(store, 6)
    claimed = await claim(store, 3)
    await store.submissions.record_submissions([ended(claimed[0])])
    change = await tried(store, Verb.CANCEL)
    assert change.proposed == Figures(3, Decimal(15), left_held=3, held=Decimal(5))
    assert (await tried(store, Verb.CANCEL, "state:submitting")).proposed == Figures(left_held=2)
    assert (await done(store, change)).done == change.proposed
    states = await rows(store, "SELECT state FROM tasks ORDER BY ordinal")
    assert [row["state"] for row in states[3:]] == ["cancelled"] * 3
    assert len(ids) == 6
    assert (await store.queries.progress(run_id)).states["cancelled"] == 3
    await check_books(store)


async def test_runs_are_paused_and_go_on(store: Store) -> None:
    first, _ = await start_run(store, 2)
    second, _ = await start_run(store, 2)
    await execute(store, sa.update(tasks).where(tasks.c.run_id == second).values(task_type="GROK"))
    assert (await done(store, await tried(store, Verb.PAUSE, "engine:GROK"))).done.matched == 1
    assert await states(store) == {first: "running", second: "paused"}
    assert (await done(store, await tried(store, Verb.PAUSE, "state:pending"))).done.matched == 1
    assert (await tried(store, Verb.RESUME, f"run:{first}")).proposed == Figures(1)
    assert (await done(store, await tried(store, Verb.RESUME))).done.matched == 2
    assert await states(store) == {first: "running", second: "running"}
    assert (await tried(store, Verb.PAUSE, "state:failed")).proposed == Figures()


async def states(store: Store) -> dict[str, str]:
    async def work(connection: sa.ext.asyncio.AsyncConnection) -> dict[str, str]:
        return {row.id: row.state for row in await connection.execute(sa.select(runs.c.id, runs.c.state))}

    return await store.db.read(work)


async def test_every_word_of_a_filter_is_looked_at(store: Store) -> None:
    run_id = await store.runs.create_run(name="r", source="-", budget=None, now_ms=NOW)
    own = OwnColumns(1, "a b", None)
    asked = [
        TaskSpec(1, "CHATGPT", {"prompt": "Best 50% shoes_", "country": "GB"}, own=own),
        TaskSpec(2, "CHATGPT", {"prompt": "best shoes", "country": "DE"}),
        TaskSpec(3, "GOOGLE", {"query": "worst SHOES", "gl": "gb"}),
    ]
    await store.runs.add_tasks(run_id, [(spec, Decimal(5)) for spec in asked], NOW)
    await store.runs.start_run_if_loading(run_id, sha256="", bad_lines=0)

    async def found(text: str) -> int:
        return (await tried(store, Verb.CANCEL, text)).proposed.matched

    assert await found("") == 3
    assert await found("engine:google") == 1
    assert await found("country:GB") == 2
    assert await found('custom_id:"a b"') == 1
    assert await found("custom_id:a") == 0
    assert await found(f"run:{run_id} text:shoes") == 3
    assert await found(f"run:{run_id} text:BEST") == 2
    assert await found(f"run:{run_id} text:0% country:GB engine:CHATGPT") == 1
    assert await found(f"run:{run_id} text:s_") == 1
    with pytest.raises(FilterError, match="no such run"):
        await found(f"run:{run_id[:-1]}{'0' if run_id[-1] != '0' else '1'}")


async def test_a_run_of_before_the_rollup_is_looked_through(store: Store) -> None:
    await failed_run(store, 2)
    await start_run(store, 2)
    await execute(store, "DELETE FROM run_rollup", "DELETE FROM rollup_changes")
    await execute(store, sa.update(runs).values(has_rollup=False))
    assert (await tried(store, Verb.RETRY)).proposed.matched == 2
    assert (await tried(store, Verb.PAUSE, "state:failed")).proposed.matched == 1


async def test_more_than_was_confirmed_is_refused_and_never_done(store: Store) -> None:
    await failed_run(store, 2)
    change = await tried(store, Verb.RETRY)
    again = await tried(store, Verb.RETRY)
    _, ids = await start_run(store, 2)
    await execute(store, sa.update(tasks).where(tasks.c.id.in_(ids)).values(state=TaskState.REJECTED))
    with pytest.raises(NotConfirmed, match="4 match by now, 2 when") as caught:
        await confirmed(store, change)
    assert caught.value.code == "grown"
    await execute(store, sa.update(tasks).where(tasks.c.id.in_(ids)).values(state=TaskState.PENDING))
    await confirmed(store, change)
    await execute(store, sa.update(tasks).where(tasks.c.id.in_(ids)).values(state=TaskState.REJECTED))
    ended = await carry_out(store, change.id, clock=lambda: LATER)
    assert ended is not None
    assert (ended.state, ended.done.matched, ended.reason) == ("finished", 2, MORE_MATCH)
    assert (await store.bulk_changes.find(again.id, None)) == again


async def test_no_more_is_spent_than_was_confirmed(store: Store) -> None:
    await failed_run(store, 3)
    change = await confirmed(store, await tried(store, Verb.RETRY))
    await execute(store, sa.update(tasks).where(tasks.c.ordinal == 2).values(credits_estimate=Decimal(6)))
    ended = await carry_out(store, change.id, clock=lambda: LATER)
    assert ended is not None
    assert (ended.done.matched, ended.done.credits, ended.reason) == (2, Decimal(11), COSTS_MORE)


async def test_runs_that_are_made_later_are_none_of_its(store: Store) -> None:
    await failed_run(store, 1)
    change = await tried(store, Verb.CANCEL)
    await start_run(store, 2, now_ms=LATER + 1)
    assert change.proposed == Figures()
    assert (await store.bulk_changes.figures_after(change.aim, change.place))[0] == Figures()


async def test_a_confirmation_repeats_what_was_tried_out_and_is_done_once(store: Store) -> None:
    await failed_run(store, 2)
    change = await tried(store, Verb.RETRY, "engine:CHATGPT")
    for matched, credits, text, code in (
        (3, Decimal(10), None, "other_figures"),
        (2, Decimal(9), None, "other_figures"),
        (2, Decimal(10), "state:failed engine:CHATGPT", "other_filter"),
    ):
        with pytest.raises(NotConfirmed) as caught:
            await confirm(store, change, matched=matched, credits=credits, filter=text, now_ms=LATER)
        assert caught.value.code == code
    with pytest.raises(NotConfirmed, match="too long ago"):
        await confirmed(store, change, LATER + PROPOSED_FOR_MS)
    both = await asyncio.gather(confirmed(store, change), confirmed(store, change))
    assert [one.state for one in both] == ["running", "running"]
    assert (await done(store, change)).done.matched == 2
    # The proposal as it was before: whoever sends it again changes nothing more.
    assert (await confirmed(store, change)).state == "finished"
    assert await carry_out(store, change.id, clock=lambda: LATER) is None
    assert await attempts(store) == [2, 2]


async def test_one_of_an_account_is_about_that_account_only(store: Store) -> None:
    run_id, _ = await failed_run(store, 1)
    other, _ = await failed_run(store, 2)
    await execute(store, sa.update(runs).where(runs.c.id == other).values(account="eu"))
    theirs = Asker("eu", None, "eu")
    change = await tried(store, Verb.RETRY, asker=theirs)
    assert (change.proposed.matched, change.account) == (2, "eu")
    with pytest.raises(FilterError, match="no such run"):
        await tried(store, Verb.RETRY, f"run:{run_id}", asker=theirs)
    assert await store.bulk_changes.find(change.id, "us") is None
    assert [c.id for c in await store.bulk_changes.changes_before(None, 5, "eu")] == [change.id]
    assert await store.bulk_changes.changes_before(change.id, 5, None) == []
    assert (await done(store, change)).done.matched == 2


async def test_it_goes_on_where_it_was_left_and_ends_when_it_is_stopped(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_changes, "CHUNK", 2)
    await failed_run(store, 3)
    await failed_run(store, 4)
    change = await confirmed(store, await tried(store, Verb.RETRY))
    assert await store.bulk_changes.running_changes() == [change.id]
    steps = [await store.bulk_changes.advance(change.id, LATER) for _ in range(2)]
    assert [step.done.matched for step in steps if step] == [2, 4]
    stopped = await stop(store, change, now_ms=LATER)
    assert (stopped.state, stopped.reason, stopped.done.matched) == ("stopped", BY_HAND, 4)
    assert await carry_out(store, change.id, clock=lambda: LATER) is None
    with pytest.raises(NotConfirmed, match="nothing to stop"):
        await stop(store, stopped, now_ms=LATER)
    assert (await tried(store, Verb.RETRY)).proposed.matched == 3
    await check_books(store)


async def test_many_at_once_and_small_ranges_change_each_task_once(
    store: Store, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module, name, value in (
        (bulk_changes, "CHUNK", 7),
        (bulk_changes, "RANGES_MAX", 2),
        (bulk_matching, "RANGE", 5),
    ):
        monkeypatch.setattr(module, name, value)
    assert task_matching.RANGE > 5
    for n in (23, 1, 40):
        await failed_run(store, n)
    change = await confirmed(store, await tried(store, Verb.RETRY))
    assert change.proposed.matched == 64
    other = Store(Database(store_url), store.read_answer)
    try:
        await asyncio.gather(*(carry_out(s, change.id, clock=lambda: LATER) for s in (store, other, store)))
    finally:
        await other.close()
    ended = await store.bulk_changes.find(change.id)
    assert ended is not None
    assert (ended.state, ended.done) == ("finished", change.proposed)
    assert await attempts(store) == [2] * 64
    assert await count(store, "SELECT count(*) FROM attempts") == 64


async def test_few_to_retry_of_a_long_run_are_looked_at_at_once(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bulk_matching, "RANGE", 5)
    monkeypatch.setattr(bulk_changes, "RANGES_MAX", 1)
    run_id, ids = await start_run(store, 40)

    async def looked(verb: Verb) -> tuple[int, Place | None]:
        figures, place = await store.bulk_changes.figures_after(Aim(verb, parse_filter("")), Place())
        return figures.matched, place

    for few, place in ((5, Place(run_id)), (6, Place(run_id, 5))):
        closed = sa.update(tasks).where(tasks.c.id.in_(ids[-few:]))
        await execute(store, closed.values(state=TaskState.REJECTED))
        assert await looked(Verb.RETRY) == (few if place.ordinal is None else 0, place)
    assert await looked(Verb.CANCEL) == (5, Place(run_id, 5))


async def test_a_single_task_is_retried_or_cancelled(store: Store) -> None:
    run_id, ids = await failed_run(store, 2)
    change = await tried(store, Verb.RETRY)
    done = await store.bulk_changes.change_task(change.aim, run_id, 2, LATER)
    assert done == Figures(1, Decimal(5))
    assert await store.bulk_changes.change_task(change.aim, run_id, 2, LATER) == Figures()
    cancel = (await tried(store, Verb.CANCEL)).aim
    assert await store.bulk_changes.change_task(cancel, run_id, 2, LATER) == Figures(1, Decimal(5))
    assert [row["state"] for row in await rows(store, "SELECT state FROM tasks ORDER BY ordinal")] == [
        "failed",
        "cancelled",
    ]
    assert len(ids) == 2


async def test_proposals_are_forgotten_and_what_was_done_is_not(store: Store) -> None:
    await failed_run(store, 1)
    kept = await done(store, await tried(store, Verb.RETRY))
    await tried(store, Verb.CANCEL)
    assert await store.bulk_changes.forget_proposals(new_id_after(LATER)) == 1
    assert [c.id for c in await store.bulk_changes.changes_before(None, 5)] == [kept.id]
    async with store.db.engine.connect() as connection:
        assert await connection.scalar(sa.select(sa.func.count()).select_from(actions)) == 0


def new_id_after(now_ms: int) -> str:
    from app.domain.task import new_id

    return new_id(now_ms + 1)
