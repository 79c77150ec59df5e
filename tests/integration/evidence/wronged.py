"""A run in which everything went wrong once: a discrepancy of each verdict, with signed deliveries."""

from dataclasses import dataclass, field
from decimal import Decimal
from itertools import count

from app.config import EMULATOR_WEBHOOK_SECRET
from app.domain.delivery import RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.task import idempotency_key, new_id
from app.ports import CreateAnswer
from app.provider.signature import sign
from app.provider.webhook_state import read_acknowledged
from app.services.lost_webhooks import LostWebhookSearch
from app.store.read.runs import RunRow
from tests.integration.services.pipeline import HOUR_MS, UNMATCHED_MS, Pipeline
from tests.scripted_provider import Accepted

_numbers = count(1)


@dataclass
class Wronged:
    """The run, and which task of it suffered what."""

    pipeline: Pipeline
    run: RunRow
    tasks: dict[str, str] = field(default_factory=dict)
    """Verdict -> task id."""


def signed(pipeline: Pipeline, body: bytes, name: str, account: str = "default") -> RawDelivery:
    """A delivery as the receiver would store it: signed now, by the account's secret."""
    now, timestamp = pipeline.clock(), str(pipeline.clock() // 1000)
    signature = sign(EMULATOR_WEBHOOK_SECRET, timestamp, body)
    webhook_id = f"{name}-{next(_numbers)}"
    return RawDelivery(new_id(now), Source.DELIVERY, now, body, webhook_id, timestamp, signature, account)


async def deliver(pipeline: Pipeline, *bodies: Accepted | bytes, account: str = "default") -> list[str]:
    """Sign, store, settle; their ids."""
    ids = []
    for body in bodies:
        data = body.body() if isinstance(body, Accepted) else body
        raw = signed(pipeline, data, body.id if isinstance(body, Accepted) else "pt", account)
        await pipeline.store.inbox.store_deliveries([raw], due_at_ms=pipeline.clock() + 60_000)
        await pipeline.settle([raw.id])
        ids.append(raw.id)
    return ids


async def deliver_stray(pipeline: Pipeline, name: str, *, account: str = "default") -> None:
    """A report about a task that we never sent, until it counts as such."""
    body = f'{{"task":{{"id":"{name}","status":"COMPLETED"}},"credits":{{"creditsCharged":4}}}}'
    ids = await deliver(pipeline, body.encode(), account=account)
    pipeline.clock.advance(UNMATCHED_MS)
    await pipeline.settle(ids)


VERDICTS = (
    "matched",
    "overcharged",
    "undercharged",
    "charged_failure",
    "unknown",
    "conflict",
    "repriced",
    "double_charged",
    "lost_after_ack",
)


async def wrong_everything(pipeline: Pipeline) -> Wronged:
    """One task for each verdict in the order of VERDICTS, and a report about none."""
    ids = await pipeline.start(len(VERDICTS))
    task = dict(zip(VERDICTS, ids, strict=True))
    key = {verdict: idempotency_key(task_id, 1) for verdict, task_id in task.items()}
    provider = pipeline.provider
    dearer = CreateAnswer(
        Answer.ACCEPTED, 200, provider_task_id="pt-1-0", credits_to_charge=Decimal(6), request_id="rid-7"
    )
    provider.tell(*([None] * VERDICTS.index("repriced")), dearer)
    provider.accept(key["repriced"], Decimal(6))
    await pipeline.submit(submit_in_flight=1)
    known = provider.accepted
    provider.finish(key["matched"])
    provider.finish(key["overcharged"], charged=Decimal(7))
    provider.finish(key["undercharged"], charged=Decimal("3.5"))
    provider.finish(key["charged_failure"], "FAILED", charged=Decimal(5))
    provider.finish(key["unknown"])
    provider.finish(key["conflict"])
    provider.finish(key["repriced"])
    provider.finish(key["double_charged"], "FAILED", charged=Decimal(5))
    provider.finish(key["lost_after_ack"])
    for verdict in ("matched", "overcharged", "undercharged", "charged_failure", "conflict", "repriced"):
        await deliver(pipeline, known[key[verdict]][-1])
    await deliver(pipeline, known[key["unknown"]][-1].body(creditsCharged=None))
    await deliver(pipeline, known[key["conflict"]][-1].body(creditsCharged=9))
    await deliver(pipeline, known[key["double_charged"]][-1])
    await pipeline.store.retries.retry_tasks_if_closed([task["double_charged"]], pipeline.clock())
    await pipeline.submit()
    await deliver(pipeline, provider.finish(idempotency_key(task["double_charged"], 2)))
    await _lose_after_ack(pipeline, known[key["lost_after_ack"]][-1])
    await deliver_stray(pipeline, "pt-foreign")
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    return Wronged(pipeline, run, task)


async def _lose_after_ack(pipeline: Pipeline, done: Accepted) -> None:
    webhook = {"url": "https://us.example/hook", "delivered": True, "deliveredAt": "2026-10-01T00:00:09.000Z"}
    raw = RawDelivery(new_id(pipeline.clock()), Source.POLL, pipeline.clock(), done.body(webhook=webhook))
    await pipeline.store.inbox.store_deliveries([raw], due_at_ms=pipeline.clock())
    await pipeline.settle([raw.id])
    judge = LostWebhookSearch(
        pipeline.store, read_acknowledged, clock=pipeline.clock, grace_ms=1_000, look_back_ms=HOUR_MS
    )
    pipeline.clock.advance(2_000)
    assert await judge.judge() == 1
