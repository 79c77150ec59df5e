"""A database as it is when the workers were away: accepted tasks with their holds, and a delivery for each in
the inbox. Made by the store's own writes; nothing here is timed.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from arq.constants import default_queue_name

from app.domain.delivery import RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.submission import Submission
from app.domain.task import TaskSpec, new_id
from app.provider.wire import read_answer, read_report
from app.queue import QUEUE_NAME, Queue
from app.store import Database, Store
from app.store.migrate import migrate
from benchmarks.bench.bodies import CREDITS, provider_task_ids, signed_headers, write_bodies
from benchmarks.bench.rig import Rig

SEED = 12
CHUNK = 2_500
COMMIT_SIZE = 250
DUE_AFTER_MS = 3_600_000
"""The sweep leaves the backlog alone: what is measured is the work that the queue carries."""
HELD = "held-back"
"""Jobs are made ready under this name, and handed over all at once when the measurement begins."""


@dataclass(frozen=True, slots=True)
class Backlog:
    """A prepared database and what is in it."""

    url: str
    keys: tuple[str, ...]
    """Idempotency keys, one for each accepted task."""
    delivery_ids: tuple[str, ...]
    """One for each key, in the same order; none when the deliveries are still to come."""
    responses: tuple[str, ...]
    """What each delivery reports, as it will be stored."""


def prepare(rig: Rig, count: int, *, delivered: bool = True) -> Backlog:
    """A database with `count` accepted tasks and, if `delivered`, as many waiting deliveries."""
    return asyncio.run(_prepare(rig.create_database(), count, delivered))


async def _prepare(url: str, count: int, delivered: bool) -> Backlog:
    store = Store(Database(url), read_answer)
    try:
        await migrate(store.db)
        keys, ids, responses = await fill(store, count, delivered=delivered)
    finally:
        await store.close()
    return Backlog(url, tuple(keys), tuple(ids), tuple(responses))


async def fill(store: Store, count: int, *, delivered: bool) -> tuple[list[str], list[str], list[str]]:
    """Accepted tasks and perhaps their deliveries: keys, delivery ids, responses."""
    keys = await _accepted(store, count)
    return keys, *(await _deliver(store, keys) if delivered else ([], []))


async def _accepted(store: Store, count: int) -> list[str]:
    now = _now_ms()
    run_id = await store.runs.create_run(name="bench", source="-", budget=None, now_ms=now)
    await store.runs.start_run_if_loading(run_id, sha256="0", bad_lines=0)
    keys: list[str] = []
    ids = provider_task_ids(SEED)  # those of their deliveries: another one would be a contradiction
    for first in range(1, count + 1, CHUNK):
        specs = [
            (TaskSpec(n, "CHATGPT", {"prompt": f"question {n}", "country": "US"}), Decimal(CREDITS))
            for n in range(first, min(first + CHUNK, count + 1))
        ]
        await store.runs.add_tasks(run_id, specs, now)
        claimed = await store.submissions.claim_pending(
            limit=CHUNK, claim="bench", now_ms=now, lease_until_ms=now + 60_000
        )
        await store.submissions.record_submissions(
            [
                Submission(
                    task,
                    Answer.ACCEPTED,
                    now,
                    next_poll_at_ms=now + DUE_AFTER_MS,
                    http_status=200,
                    provider_task_id=next(ids),
                    credits_to_charge=Decimal(CREDITS),
                )
                for task in claimed
            ]
        )
        keys += [task.idempotency_key for task in claimed]
    return keys


async def _deliver(store: Store, keys: Sequence[str]) -> tuple[list[str], list[str]]:
    ids: list[str] = []
    responses: list[str] = []
    group: list[RawDelivery] = []
    for task_id, body in write_bodies(SEED, keys):
        now = _now_ms()
        headers = signed_headers(task_id, body, now // 1000)
        responses.append(read_report(body).response.decode())
        group.append(RawDelivery(new_id(now), Source.DELIVERY, now, body, *headers.values(), "default"))
        if len(group) == COMMIT_SIZE or len(ids) + len(group) == len(keys):
            await store.inbox.store_deliveries(group, due_at_ms=now + DUE_AFTER_MS)
            ids += [delivery.id for delivery in group]
            group = []
    return ids, responses


async def hold_back_ours(rig: Rig, ids: Sequence[str], size: int) -> None:
    """Settle jobs as the receiver makes them, `size` ids each, held back."""
    queue = Queue(rig.valkey.url, timeout_s=10)
    try:
        for first in range(0, len(ids), size):
            assert await queue.wake_settle(ids[first : first + size])
    finally:
        await queue.close()
    with rig.redis() as client:
        client.rename(QUEUE_NAME, HELD)


def hand_over(rig: Rig, queue_name: str = QUEUE_NAME) -> None:
    """Let the worker see all jobs that were held back, at once."""
    with rig.redis() as client:
        client.rename(HELD, queue_name)


NAIVE_QUEUE = default_queue_name


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
