"""The provider changes something under way: its prices, or somebody clears its queue."""

from decimal import Decimal

from app.limits import to_ms
from app.services.sweep import VANISHED_POLLS
from tests.integration.services.pipeline import HOUR_MS, LIMITS, Pipeline


async def test_s21_a_queue_cleared_by_somebody_else_makes_tasks_vanish_and_not_fail(
    pipeline: Pipeline,
) -> None:
    await pipeline.start(4)
    await pipeline.submit()
    survivor, *cleared = pipeline.provider.sends
    pipeline.provider.forget(cleared)
    pipeline.clock.advance(to_ms(LIMITS.poll_after_s))
    for _ in range(VANISHED_POLLS):
        await pipeline.sweep()
        pipeline.clock.advance(to_ms(LIMITS.poll_every_s) * VANISHED_POLLS)
    books = await pipeline.books()
    assert books.states() == {"expired": 3, "submitted": 1}
    assert {task["error_code"] for task in books.tasks if task["state"] == "expired"} == {"vanished"}
    assert len(books.entries("hold")) == 4, "what they may have cost stays an open question"
    # Nobody queues them again by itself; asked to, they get new keys.
    expired = [task["id"] for task in books.tasks if task["state"] == "expired"]
    assert await pipeline.store.retries.retry_tasks_if_closed(expired, pipeline.clock()) == 3
    await pipeline.submit()
    assert len(set(pipeline.provider.sends)) == 7
    assert survivor in pipeline.provider.bound


async def test_s22_a_price_that_changes_under_way_is_a_finding_and_no_wrong_charge(
    pipeline: Pipeline,
) -> None:
    await pipeline.start(6)
    await pipeline.submit(claim_size=3, stopping=lambda: len(pipeline.provider.sends) >= 3)
    before = list(pipeline.provider.sends)
    pipeline.provider.to_charge = Decimal(7)
    pipeline.clock.advance(HOUR_MS)
    await pipeline.submit()
    await pipeline.deliver(*(pipeline.provider.finish(key) for key in pipeline.provider.sends))
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    report = await pipeline.store.reports.report(run)
    repriced = 6 - len(before)
    assert report.verdicts == {"matched": 6, "repriced": repriced}
    assert report.posted == 5 * len(before) + 7 * repriced
    assert all(
        f["expected"] == 5 and f["actual"] == 7 for f in await pipeline.store.reports.findings_of(run.id)
    )
