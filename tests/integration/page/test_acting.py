"""What people change by the page: one run, one task, all that match; asked first, and done once."""

import asyncio

import pytest
import sqlalchemy as sa

from app.domain.task import TaskState
from app.services.bulk_changes import carry_out
from app.store import Store
from app.store.tables import runs, tasks
from tests.integration.page.conftest import StartPage
from tests.integration.page.visiting import Seen, Visitor

HOSTILE = "\"><script>alert(1)</script>' onload=x \u202e"


async def failed_run(visitor: Visitor, count: int = 3, account: str = "default") -> str:
    api = visitor.api
    run_id = await api.run(tasks=count, account=account)
    async with api.store.db.engine.begin() as connection:
        failed = {"state": TaskState.FAILED, "reported": "failed"}
        await connection.execute(sa.update(tasks).where(tasks.c.run_id == run_id).values(**failed))
    api.clock.advance(1)
    return run_id


async def first_task(visitor: Visitor, run_id: str) -> str:
    async with visitor.api.store.db.engine.connect() as connection:
        query = sa.select(tasks.c.id).where(tasks.c.run_id == run_id).order_by(tasks.c.ordinal)
        return str((await connection.scalars(query)).first())


async def state_of(visitor: Visitor, run_id: str) -> str:
    async with visitor.api.store.db.engine.connect() as connection:
        return str(await connection.scalar(sa.select(runs.c.state).where(runs.c.id == run_id)))


def fields_of(seen: Seen, action: str) -> dict[str, str]:
    """What the browser would send of a form."""
    form = seen.tree.css_first(f'form[action="{action}"]')
    assert form is not None, seen.text
    return {str(f.attributes["name"]): f.attributes["value"] or "" for f in form.css("input[type=hidden]")}


async def tried_out(visitor: Visitor, **form: str) -> tuple[str, Seen]:
    """The address of a proposal, and its page."""
    sent = await visitor.act("/bulk", form)
    assert sent.status == 303, sent.body
    path = sent.headers["Location"]
    return path, await visitor.look(path)


async def test_all_that_match_are_retried_after_a_confirmation_that_counts_once(visitor: Visitor) -> None:
    run_id = await failed_run(visitor)
    path, asked = await tried_out(visitor, verb="retry", q=f"run:{run_id[-8:]} country:gb")
    assert "Retry 3 tasks?" in asked.text
    assert "May cost 15" in asked.text
    assert f"country:GB run:{run_id}" in asked.text
    form = fields_of(asked, f"{path}/confirm")
    for _ in range(2):
        sent = await visitor.send(f"{path}/confirm", form)
        assert (sent.status, sent.headers["Location"]) == (303, path)
    going = await visitor.look(path)
    assert "0 of 3" in going.text and "No worker is running" in going.text
    assert going.tree.css_first("#live") is not None
    await carry_out(visitor.api.store, path.rpartition("/")[2], clock=visitor.api.clock)
    ended = await visitor.look(path)
    assert "3 of 3 are done Done 3 100 %" in ended.text
    assert ended.tree.css_first("#live") is None
    assert "Retry" in (await visitor.look("/bulk")).text
    async with visitor.api.store.db.engine.connect() as connection:
        assert set(await connection.scalars(sa.select(tasks.c.attempt))) == {2}


async def test_a_double_click_and_a_task_that_is_settled_meanwhile(visitor: Visitor) -> None:
    """Confirmed twice at once, carried out by two workers: the two that still match are done, each once."""
    run_id = await failed_run(visitor)
    path, asked = await tried_out(visitor, verb="retry", q=f"run:{run_id} state:failed")
    late = {"state": TaskState.COMPLETED, "reported": "completed"}
    async with visitor.api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(tasks).where(tasks.c.ordinal == 2).values(**late))
    form = fields_of(asked, f"{path}/confirm")
    sent = await asyncio.gather(*(visitor.send(f"{path}/confirm", form) for _ in range(3)))
    assert [(one.status, one.headers["Location"]) for one in sent] == [(303, path)] * 3
    store, clock, change_id = visitor.api.store, visitor.api.clock, path.rpartition("/")[2]
    await asyncio.gather(*(carry_out(store, change_id, clock=clock) for _ in range(2)))
    ended = await visitor.look(path)
    assert "finished" in ended.text and "2 of 3 are done" in ended.text
    async with store.db.engine.connect() as connection:
        query = sa.select(tasks.c.state, tasks.c.attempt).order_by(tasks.c.ordinal)
        assert [tuple(row) for row in await connection.execute(query)] == [
            ("pending", 2),
            ("completed", 1),
            ("pending", 2),
        ]


async def test_more_by_then_is_said_and_tried_out_anew(visitor: Visitor) -> None:
    run_id = await failed_run(visitor, 1)
    path, asked = await tried_out(visitor, verb="retry", q="")
    form = fields_of(asked, f"{path}/confirm")
    changed = await visitor.send(f"{path}/confirm", {**form, "filter": "state:failed"})
    assert (changed.status, "the filter is another one" in changed.text.lower()) == (409, True)
    async with visitor.api.store.db.engine.begin() as connection:
        await connection.execute(sa.update(tasks).values(credits_estimate=7))
    grown = await visitor.send(f"{path}/confirm", form)
    assert (grown.status, "1 match by now" in grown.text) == (409, True)
    again = await visitor.send("/bulk", fields_of(grown, "/bulk"))
    assert "May cost 7" in (await visitor.look(again.headers["Location"])).text
    assert (await visitor.send(f"{path}/confirm", {**form, "credits": "NaN"})).status == 422
    assert run_id


async def test_one_is_stopped_where_it_is(visitor: Visitor) -> None:
    await failed_run(visitor, 1)
    path, asked = await tried_out(visitor, verb="retry", q="state:failed")
    await visitor.send(f"{path}/confirm", fields_of(asked, f"{path}/confirm"))
    stop = fields_of(await visitor.look(path), f"{path}/stop")
    for _ in range(2):
        assert (await visitor.send(f"{path}/stop", stop)).headers["Location"] == path
    assert "stopped" in (await visitor.look(path)).text


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ({"verb": "retry", "q": "stat:failed"}, "stat: is unknown"),
        ({"verb": "retry", "q": "state:completed"}, "can be sent again"),
        ({"verb": "retry", "q": "run:nowhere"}, "names no run"),
        ({"verb": "delete", "q": ""}, "what to do is not said"),
        ({"verb": "retry", "q": HOSTILE}, "is no part of a filter"),
    ],
)
async def test_what_cannot_be_meant_is_said_above_the_form(
    stranger: Visitor, form: dict[str, str], says: str
) -> None:
    await stranger.sign_in()
    seen = await stranger.act("/bulk", form)
    assert (seen.status, says in seen.text) == (422, True), seen.text
    assert seen.tree.css_first("script:not([src])") is None
    field = seen.tree.css_first("input[name=q]")
    assert field is not None
    assert field.attributes["value"] == form["q"]


async def test_a_run_is_paused_resumed_and_cancelled(visitor: Visitor) -> None:
    run_id = await visitor.api.run()
    for verb, state in (("pause", "paused"), ("resume", "running")):
        sent = await visitor.act(f"/runs/{run_id}/{verb}")
        assert (sent.status, sent.headers["Location"]) == (303, f"/runs/{run_id}")
        assert await state_of(visitor, run_id) == state
    assert (await visitor.act(f"/runs/{run_id}/resume")).status == 409
    asked = await visitor.look(f"/runs/{run_id}/cancel")
    assert "Never sent 2 tasks Not spent 10 credits" in asked.text
    assert await state_of(visitor, run_id) == "running"
    await visitor.send(f"/runs/{run_id}/cancel", fields_of(asked, f"/runs/{run_id}/cancel"))
    assert await state_of(visitor, run_id) == "cancelled"
    listed = (await visitor.api.store.access.actions_before(None, 9))[0]
    assert sorted(row.action for row in listed if row.status == 200) == [
        "run.cancel",
        "run.pause",
        "run.resume",
    ]


async def test_a_task_is_retried_and_cancelled(visitor: Visitor) -> None:
    path = f"/tasks/{await first_task(visitor, await failed_run(visitor, 1))}"
    asked = await visitor.look(f"{path}/retry")
    assert "May cost 5" in asked.text
    form = fields_of(asked, f"{path}/retry")
    assert (await visitor.send(f"{path}/retry", form)).headers["Location"] == path
    assert (await visitor.send(f"{path}/retry", form)).status == 409
    cancel = fields_of(await visitor.look(f"{path}/cancel"), f"{path}/cancel")
    assert (await visitor.send(f"{path}/cancel", cancel)).status == 303
    async with visitor.api.store.db.engine.connect() as connection:
        assert tuple((await connection.execute(sa.select(tasks.c.state, tasks.c.attempt))).one()) == (
            "cancelled",
            2,
        )


async def test_each_form_wants_its_scope_and_its_session(sqlite_store: Store, start_page: StartPage) -> None:
    visitor = await start_page(sqlite_store)
    await visitor.sign_in()
    run_id = await failed_run(visitor, 1)
    task_id = await first_task(visitor, run_id)
    change = (await tried_out(visitor, verb="retry", q=""))[0]
    forms = [f"/runs/{run_id}/{verb}" for verb in ("pause", "resume", "cancel")]
    forms += [
        f"/tasks/{task_id}/retry",
        f"/tasks/{task_id}/cancel",
        "/bulk",
        f"{change}/confirm",
        f"{change}/stop",
    ]
    for path in forms:
        assert (await visitor.send(path, {})).status == 403, f"{path} without the session's token"
    for scope in ("read", "submit"):
        await visitor.sign_in(scope)
        for path in forms:
            assert (await visitor.act(path)).status == 403, f"{path} by {scope}"
        for path in ("/bulk", change):
            seen = await visitor.look(path)
            assert (seen.status, len(seen.tree.css("main form[method=post]"))) == (200, 0)
        for path in (f"/runs/{run_id}/cancel", f"/tasks/{task_id}/retry"):
            assert (await visitor.look(path)).status == 403
    await visitor.sign_in("operate", "eu")
    for path in forms:
        status = (await visitor.act(path, {"verb": "retry"} if path == "/bulk" else {})).status
        assert status == (303 if path == "/bulk" else 404 if "confirm" not in path else 422), path
    assert (await visitor.look(change)).status == 404
