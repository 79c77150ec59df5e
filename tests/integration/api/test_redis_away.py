"""Redis that hangs, dies or was never there while the API writes: every write is answered and made once, none
waits for Redis, and the workers are woken once it is back."""

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any

import pytest
import sqlalchemy as sa

from app.queue import QUEUE_NAME, Queue
from app.store import Store
from app.store.tables import runs, task_keys, tasks
from tests.conftest import StartValkey
from tests.integration.api.asking import Answered, Api
from tests.integration.api.conftest import StartApi
from tests.integration.api.test_batches import lines, request, upload
from tests.integration.store.scenes import failed_on, settle_all, start_run, submit_all
from tests.servers.processes import free_port
from tests.servers.valkey import ValkeyServer

PATIENCE_S = 50
LONGER_S = 90.0
"""Whoever waited for an answer of Redis would not be done in time."""
TASK = {"taskType": "GEMINI", "payload": {"prompt": "x", "country": "DE"}}
RUN = {"task_type": "GEMINI", "country": "DE", "prompts": ["x"]}


@dataclass
class Away:
    """Redis as it is while the API writes."""

    url: str
    goes: Callable[[], None]
    server: ValkeyServer


@pytest.fixture(params=["hangs", "is killed", "is away at the start"])
def away(request: pytest.FixtureRequest, start_valkey: StartValkey) -> Away:
    """A Redis that goes away when it is told to."""
    server = start_valkey(appendonly=False)
    if request.param == "hangs":
        return Away(server.url, server.pause, server)
    if request.param == "is killed":
        return Away(server.url, server.kill, server)
    return Away(f"redis://127.0.0.1:{free_port()}/0", lambda: None, server)


async def write_all(api: Api, goes: Callable[[], None]) -> list[Answered]:
    """One write of each kind that wakes workers, each with its key; Redis goes away within the first."""
    of_run, of_task = await failed_run(api), (await failed_run(api))[1]
    paused = await api.run("paused")
    await api.ask(f"/v1/runs/{paused}/pause", "POST")
    file_id = await upload(api, lines(request(1)))
    batch = {"input_file_id": file_id, "endpoint": "/v1/monitor/gemini", "completion_window": "24h"}

    async def rows() -> AsyncIterator[bytes]:
        yield b"prompt,task_type,country\nbefore,GEMINI,DE\n"
        goes()
        yield b"after,GEMINI,DE\n"

    writes: list[tuple[str, dict[str, Any]]] = [
        ("/v1/runs", {"data": rows(), "headers": {"Content-Type": "text/csv"}}),
        ("/v1/runs", {"json": RUN}),
        (f"/v1/runs/{paused}/resume", {}),
        (f"/v1/runs/{of_run[0]}/retry", {}),
        (f"/v1/tasks/{of_task}/retry", {}),
        ("/v1/async/task", {"json": TASK | {"idempotencyKey": "one"}}),
        ("/v1/async/task/batch", {"json": [TASK | {"idempotencyKey": "two"}]}),
        ("/v1/batches", {"json": batch}),
        (f"/v1/runs/{paused}/pause", {}),
        (f"/v1/runs/{paused}/cancel", {}),
    ]
    answers = []
    for n, (path, how) in enumerate(writes):
        headers = {"Idempotency-Key": f"key-{n}"} | how.pop("headers", {})
        answers.append(await api.ask(path, "POST", headers=headers, **how))
    return answers


async def failed_run(api: Api) -> tuple[str, str]:
    """A run of one task that failed: its id, and the task's."""
    run_id, (task_id,) = await start_run(api.store)
    sent = await submit_all(api.store)
    await settle_all(api.store, *(failed_on(task) for task in sent))
    return run_id, task_id


async def count(api: Api, table: sa.Table) -> int:
    async with api.store.db.engine.connect() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


async def test_every_kind_of_write_is_answered_and_made_once(
    sqlite_store: Store, start_api: StartApi, away: Away
) -> None:
    queue = Queue(away.url, timeout_s=LONGER_S)
    await queue.ping() if away.url == away.server.url else None
    api = await start_api(sqlite_store, wake=queue.wake_submit, redis_url=away.url)
    async with asyncio.timeout(PATIENCE_S):
        answers = await write_all(api, away.goes)
    assert [answer.status for answer in answers] == [201, 201, *[200] * 8], [a.body for a in answers]
    # Two failed runs, the paused one, the upload, the JSON, the standing one, the batch.
    assert await count(api, runs) == 7
    assert await count(api, tasks) == 10
    assert await count(api, task_keys) == 2
    again = await api.ask("/v1/runs", "POST", json=RUN, headers={"Idempotency-Key": "key-1"})
    assert (again.status, again.body) == (201, answers[1].body)
    repeated = await api.ask("/v1/async/task", "POST", json=TASK | {"idempotencyKey": "one"})
    assert repeated.status == 409
    assert await count(api, tasks) == 10
    if away.server.running and away.url == away.server.url:
        away.server.resume()
        await api.parts.wakes.close()
        with away.server.client() as client:
            # The one that was under way, and one for all that came meanwhile.
            assert 1 <= client.zcard(QUEUE_NAME) <= 2
    await queue.close()
