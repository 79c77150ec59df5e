"""pause, resume, cancel and retry over HTTP: what they do, what they refuse, and once for each key."""

import sqlalchemy as sa

from app.domain.task import TaskState
from app.store.tables import actions, idempotency_keys, tasks
from tests.integration.api.asking import Answered, Api


async def post(api: Api, run_id: str, verb: str, body: object = None, key: str = "") -> Answered:
    headers = {"Idempotency-Key": key} if key else {}
    return await api.ask(f"/v1/runs/{run_id}/{verb}", "POST", headers=headers, json=body)


async def fail_tasks(api: Api, run_id: str) -> None:
    async with api.store.db.engine.begin() as connection:
        await connection.execute(
            sa.update(tasks).where(tasks.c.run_id == run_id).values(state=TaskState.FAILED, reported="failed")
        )


async def test_a_run_is_paused_resumed_and_cancelled(api: Api) -> None:
    run_id = await api.run()
    for verb, state in (("pause", "paused"), ("resume", "running"), ("cancel", "cancelled")):
        done = await post(api, run_id, verb)
        assert (done.status, done.document["state"]) == (200, state)
        again = await post(api, run_id, verb)
        assert (again.status, again.document["code"]) == (409, "conflict")
    assert (await api.ask(f"/v1/runs/{run_id}")).document["counts"]["cancelled"] == 2
    assert (await post(api, run_id, "retry")).document["errors"][0]["code"] == "not_retryable"
    async with api.store.db.engine.connect() as connection:
        kept = (
            await connection.execute(sa.select(actions.c.action, actions.c.subject, actions.c.status))
        ).all()
    assert sorted(tuple(row) for row in kept if row.status == 200) == [
        (f"run.{verb}", run_id, 200) for verb in ("cancel", "pause", "resume")
    ]


async def test_a_body_where_none_is_taken_changes_nothing(sqlite_api: Api) -> None:
    run_id = await sqlite_api.run()
    for body in ({"dry_run": True}, ["x"], {"x": "y" * 200_000}):
        refused = await post(sqlite_api, run_id, "cancel", body)
        assert (refused.status, refused.document["errors"][0]["code"]) == (422, "takes_no_body")
    assert (await sqlite_api.ask(f"/v1/runs/{run_id}")).document["state"] == "running"
    assert (await post(sqlite_api, run_id, "pause", {})).status == 200


async def test_others_neither_see_nor_change_it(api: Api) -> None:
    run_id = await api.run()
    for verb in ("pause", "resume", "cancel", "retry"):
        path = f"/v1/runs/{run_id}/{verb}"
        assert (await api.ask(path, "POST", account="other")).status == 404
        assert (await api.ask(path, "POST", scope="submit")).status == 403
    assert (await post(api, run_id, "resume", {"restored": True})).status == 200


async def test_the_same_key_changes_once(api: Api) -> None:
    run_id = await api.run()
    first = await post(api, run_id, "pause", key="k")
    again = await post(api, run_id, "pause", key="k")
    assert (again.status, again.body) == (200, first.body)
    assert (await post(api, run_id, "cancel", key="k")).status == 422
    # A conflict keeps nothing: the key is free.
    assert (await post(api, run_id, "pause", key="l")).status == 409
    assert (await post(api, run_id, "resume", key="l")).status == 200


async def test_who_comes_after_a_process_that_died_changes_nothing_again(api: Api) -> None:
    run_id = await api.run()
    await post(api, run_id, "pause", key="k")
    async with api.store.db.engine.begin() as connection:
        # The process died between the change and the answer.
        await connection.execute(sa.update(idempotency_keys).values(status=None, body=None, owner="gone"))
    waits = await post(api, run_id, "pause", key="k")
    assert (waits.status, waits.headers["Retry-After"]) == (409, "15")
    api.clock.advance(15_001)
    assert (await post(api, run_id, "pause", key="k")).document["state"] == "paused"


async def test_failed_tasks_are_retried_once_for_each_key(api: Api) -> None:
    run_id = await api.run(tasks=3)
    await fail_tasks(api, run_id)
    tried = await post(api, run_id, "retry?dry_run=1", key="k")
    assert (tried.document["retried"], tried.document["estimated"]) == (3, "15")
    assert (await post(api, run_id, "retry", {"states": ["expired"]})).document["retried"] == 0
    done = await post(api, run_id, "retry", key="l")
    assert done.document == tried.document
    await fail_tasks(api, run_id)
    assert (await post(api, run_id, "retry", key="l")).body == done.body
    async with api.store.db.engine.begin() as connection:
        assert set(await connection.scalars(sa.select(tasks.c.attempt))) == {2}
        # It died after its last transaction, before it could answer: tasks that failed again are left alone.
        await connection.execute(
            sa.update(idempotency_keys)
            .where(idempotency_keys.c.key == "l")
            .values(status=None, body=None, lease_until_ms=0)
        )
    assert (await post(api, run_id, "retry", key="l")).document == done.document
    wrong = await post(api, run_id, "retry", {"states": ["completed"]})
    assert (wrong.status, wrong.document["errors"][0]["field"]) == (422, "states.0")
