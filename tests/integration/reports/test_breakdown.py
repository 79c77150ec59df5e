"""What stands behind a run's sums: by engine, country and day, with latencies and what is still unknown."""

import json
import random
from collections.abc import Sequence
from decimal import Decimal
from itertools import cycle, pairwise

import pytest
import sqlalchemy as sa

from app.domain.settlement import Source
from app.domain.task import TaskSpec
from app.domain.time_format import DAY_MS
from app.store import Store
from app.store.read.breakdown import BUCKETS_MS, PERCENTILES, CreditsAtStake, EngineDay
from app.store.read.runs import RunRow
from app.store.tables import account_entries, deliveries, results, tasks
from app.views.report import full_report_document
from tests.integration.store.scenes import (
    FIVE,
    NOW,
    claim,
    ended,
    failed_on,
    report_on,
    settle_all,
    start_run,
)

ASKED = (
    ("CHATGPT", {"country": "US"}),
    ("AIMODE", {"gl": "de"}),
    ("GOOGLE", {"country": "DE"}),
    ("GEMINI", {}),
)
DAY = NOW - NOW % DAY_MS


async def run_of(store: Store, count: int) -> RunRow:
    """A running run of four engines in turn."""
    run_id = await store.runs.create_run(name="run", source="-", budget=None, now_ms=NOW)
    asked = cycle(ASKED)
    specs = [
        TaskSpec(n, task_type, {"prompt": 'says "country": "FR"', **more})
        for n, (task_type, more) in zip(range(1, count + 1), asked, strict=False)
    ]
    await store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], NOW)
    await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
    return (await store.queries.find_runs(run_id))[0]


async def test_parts_add_up_to_the_whole(store: Store) -> None:
    run = await run_of(store, 40)
    sent = await claim(store, 36)
    await start_run(store, 3)  # of somebody else
    await store.submissions.record_submissions([ended(task) for task in sent])
    await settle_all(
        store,
        *(report_on(task, "5.25") for task in sent[:20]),
        *(failed_on(task) for task in sent[20:28]),
        report_on(sent[28], None),
    )
    full = await store.reports.full_report(run, 100)
    parts = full.breakdown
    assert {(one.task_type, one.country) for one in parts.engine_countries} == {
        ("CHATGPT", "US"),
        ("AIMODE", "DE"),
        ("GOOGLE", "DE"),
        ("GEMINI", None),
    }
    assert sum(one.tasks for one in parts.engine_countries) == full.report.progress.tasks == 40
    assert sum(one.posted for one in parts.engine_countries) == full.report.posted == 20 * Decimal("5.25")
    assert sum(one.posted for one in parts.days) == full.report.posted
    assert sum(one.held for one in parts.engine_countries) == full.report.held == 8 * FIVE
    assert (parts.unknown, parts.in_flight) == (CreditsAtStake(1, FIVE), CreditsAtStake(7, 7 * FIVE))
    assert parts.findings == len(full.findings) == 21
    assert parts.adjusted == 0
    await correct(store, run.id, Decimal("-0.25"))
    await correct(store, run.id, Decimal(1))
    assert (await store.reports.full_report(run, 0)).breakdown.adjusted == Decimal("0.75")
    assert len((await store.reports.full_report(run, 2)).findings) == 2


def answering(text: str) -> bytes:
    return json.dumps({"sources": [{"url": "https://example.org/" + "x" * 200}], "text": text}).encode()


async def test_what_the_money_bought(store: Store) -> None:
    """Usable, too short, failed and unanswered by engine and country; figures agree with the rest of the
    report, and no body is read for them."""
    run = await run_of(store, 40)
    sent = await claim(store, 40)
    await store.submissions.record_submissions([ended(task) for task in sent])
    of_chatgpt = [task for task in sent if task.task_type == "CHATGPT"]
    listed = b'{"organicResults": [{"title": "Ten best", "snippet": "of them all"}, {"title": "x"}]}'
    await settle_all(store, *(report_on(task, response=answering("x" * 20)) for task in of_chatgpt[:4]))
    await settle_all(
        store,
        report_on(of_chatgpt[4], "2.5", response=answering("")),
        report_on(of_chatgpt[5], response=answering(" " * 90 + "Sorry.")),
        failed_on(of_chatgpt[6]),
        source=Source.POLL,
        now_ms=NOW + 9_000,
    )
    google = next(task for task in sent if task.task_type == "GOOGLE")
    await settle_all(store, report_on(google, response=listed))
    await store.polls.expire_if_unreported([(of_chatgpt[7].id, 1)], code="retention_over", reason="gone")
    await store.db.write(lambda connection: connection.execute(sa.delete(deliveries)))
    full = await store.reports.full_report(run, 0)
    found = {one["task_type"]: one for one in full_report_document(full)["by_engine_country"]}
    assert found["CHATGPT"] == {
        "task_type": "CHATGPT",
        "country": "US",
        "tasks": 10,
        "completed": 6,
        "usable": 4,
        "short": 2,
        "unmeasured": 0,
        "failed": 1,
        "unanswered": 1,
        "open": 2,
        "posted": "27.5",
        "held": 15,
        "posted_per_usable": "6.875",
        "reported": 7,
        "swept": 3,
        "p50_ms": 2_000,
        "p95_ms": 8_000,
    }
    assert (found["GOOGLE"]["usable"], found["GOOGLE"]["short"]) == (1, 0)
    assert (found["GEMINI"]["posted_per_usable"], found["GEMINI"]["p50_ms"]) == (None, None)
    assert sum(one["swept"] for one in found.values()) == full.report.swept == 3
    chatgpt = next(one for one in full.breakdown.latencies if one.task_type == "CHATGPT")
    assert chatgpt.percentiles_ms[PERCENTILES.index(50)] == found["CHATGPT"]["p50_ms"]
    assert chatgpt.percentiles_ms[PERCENTILES.index(95)] == found["CHATGPT"]["p95_ms"]
    for least, usable in ((0, 6), (6, 5), (7, 4), (21, 0)):
        parts = full_report_document(await store.reports.full_report(run, 0, least), least)
        assert [p["usable"] for p in parts["by_engine_country"] if p["task_type"] == "CHATGPT"] == [usable]
        assert parts["usable_chars_min"] == least


async def test_answers_of_the_version_before_are_judged_by_their_size(store: Store) -> None:
    run = await run_of(store, 2)
    sent = await claim(store, 2)
    await store.submissions.record_submissions([ended(task) for task in sent])
    await settle_all(store, report_on(sent[0], response=answering("")), report_on(sent[1], response=b"{}"))
    blank = sa.update(results).values(answer_chars=None)
    await store.db.write(lambda connection: connection.execute(blank))
    parts = (await store.reports.full_report(run, 0)).breakdown.engine_countries
    assert sorted((one.short, one.unmeasured) for one in parts) == [(0, 1), (1, 1)]


async def correct(store: Store, run_id: str, credits: Decimal) -> None:
    """A later correction, as it stands in the account's books."""
    entry = sa.insert(account_entries).values(
        at_ms=NOW, account="default", kind="adjustment", credits=credits, run_id=run_id, reason="refund"
    )
    await store.db.write(lambda connection: connection.execute(entry))


async def test_days_begin_at_midnight_utc(store: Store) -> None:
    run = await run_of(store, 8)
    sent = await claim(store)
    await store.submissions.record_submissions([ended(task) for task in sent])
    moments = (DAY, DAY + DAY_MS - 1, DAY + DAY_MS, *[DAY + 40 * DAY_MS] * 5)
    for task, at_ms in zip(sent, moments, strict=True):
        await settle_all(store, report_on(task), now_ms=at_ms)
    days = (await store.reports.full_report(run, 0)).breakdown.days
    assert days[:3] == [
        EngineDay("2026-10-01", "AIMODE", FIVE),
        EngineDay("2026-10-01", "CHATGPT", FIVE),
        EngineDay("2026-10-02", "GOOGLE", FIVE),
    ]
    assert {day.day for day in days[3:]} == {"2026-11-10"}
    assert sum(day.posted for day in days) == 8 * FIVE


@pytest.mark.parametrize("count", [1, 101])
async def test_percentiles_are_those_of_the_sorted_list(store: Store, count: int, seed: int) -> None:
    run_id, ids = await start_run(store, count + 3)
    rng = random.Random(seed)
    edges = [-500, 0, 999, 1_000, 4_999, 86_400_000]
    waited = [rng.choice([*edges, rng.randrange(100_000_000)]) for _ in range(count)]
    await lasting(store, ids, waited)
    (run,) = await store.queries.find_runs(run_id)
    (latency,) = (await store.reports.full_report(run, 0)).breakdown.latencies
    truth = sorted(max(ms, 0) for ms in waited)
    ranks = [truth[-(-count * p // 100) - 1] for p in PERCENTILES]
    assert (latency.tasks, latency.max_ms, list(latency.percentiles_ms)) == (count, truth[-1], ranks), seed
    ends = [0, *BUCKETS_MS, 10**15]
    classes = [sum(low <= ms < high for ms in truth) for low, high in pairwise(ends)]
    assert list(latency.counts) == classes, seed


async def lasting(store: Store, ids: Sequence[str], waited: Sequence[int]) -> None:
    """Settle the first tasks after so many milliseconds; the rest never."""

    settled = (
        sa.update(tasks)
        .where(tasks.c.id == sa.bindparam("task"))
        .values(submitted_at_ms=NOW, settled_at_ms=sa.bindparam("at_ms"), state="completed")
    )
    values = [{"task": task_id, "at_ms": NOW + ms} for task_id, ms in zip(ids, waited, strict=False)]
    await store.db.write(lambda connection: connection.execute(settled, values))


async def test_an_attempt_that_a_retry_replaced_still_counts(store: Store) -> None:
    run_id, ids = await start_run(store, 2)
    sent = await claim(store)
    await store.submissions.record_submissions([ended(task) for task in sent])
    await settle_all(store, failed_on(sent[0], 3))
    await store.polls.expire_if_unreported([(ids[1], 1)], code="retention_over", reason="gone")
    assert await store.retries.retry_tasks_if_closed(ids, NOW + 5_000) == 2
    full = await store.reports.full_report((await store.queries.find_runs(run_id))[0], 10)
    (one,) = full.breakdown.engine_countries
    assert (one.posted, full.report.posted, one.states) == (3, 3, {"pending": 2})
    assert (one.held, full.breakdown.unknown, full.breakdown.in_flight.attempts) == (
        5,
        CreditsAtStake(1, FIVE),
        0,
    )


async def test_an_empty_run(store: Store) -> None:
    run_id, _ = await start_run(store, 0)
    (run,) = await store.queries.find_runs(run_id)
    parts = (await store.reports.full_report(run, 10)).breakdown
    assert (list(parts.engine_countries), list(parts.days), list(parts.latencies)) == ([], [], [])
    assert (parts.unknown, parts.in_flight) == (CreditsAtStake(0, Decimal(0)), CreditsAtStake(0, Decimal(0)))
