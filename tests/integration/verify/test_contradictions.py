"""What a signed body may say of tasks and attempts that it is not about: verify does not take right books for
wrong ones because of it.
"""

import sqlalchemy as sa

from app.domain.verification.comparison import Difference
from app.store import Store
from app.store.read import verification
from app.store.tables import deliveries
from tests.integration.verify.scene import Scene, make_scene, verified


async def differences(scene: Scene) -> list[Difference]:
    async with verification.open_snapshot(scene.store.db) as snapshot:
        return (await verified(snapshot)).differences


async def test_f11_a_contradiction_before_the_report_is_derived_as_such(store: Store) -> None:
    """The first names the id of another task, and is a conflict at a moment when no charge is known."""
    scene = await make_scene(store)
    await scene.hear("submitted", scene.body("submitted").replace(b"p-submitted-1", b"p-matched-1"))
    assert await differences(scene) == []
    await scene.hear("submitted", scene.body("submitted"))
    assert await differences(scene) == []
    await scene.hear("submitted", scene.body("submitted", 7))
    assert await differences(scene) == []


async def test_f11_an_attempt_that_was_named_before_it_existed_was_not_there(store: Store) -> None:
    scene = await make_scene(store)
    await scene.hear("early", scene.body("failed", attempt=2))
    assert await differences(scene) == []
    assert await store.retries.retry_tasks_if_closed([scene.ids["failed"]], scene.clock()) == 1
    assert await differences(scene) == []
    scene.clock.advance(1_000)
    await scene.claim()
    await store.submissions.record_submissions([scene.ended("failed")])
    assert await differences(scene) == []
    # Once it is sent, its report belongs to it.
    await scene.hear("failed", scene.body("failed", attempt=2))
    assert await differences(scene) == []
    (late,) = scene.delivered["failed"][-1:]

    async def lose(connection: sa.ext.asyncio.AsyncConnection) -> None:
        nowhere = {"task_id": None, "attempt": None, "effect": "unmatched"}
        await connection.execute(sa.update(deliveries).where(deliveries.c.id == late).values(**nowhere))

    await store.db.write(lose)
    found = [d for d in await differences(scene) if d.key == late and d.why.startswith("its report names")]
    assert [(d.column, d.should_be) for d in found] == [("task_id", scene.ids["failed"])]
