"""kill -9 of `api` in the middle of an upload: the same key again gives one run with every row once, and
nothing of the first half is ever sent."""

import asyncio
import itertools
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import sqlalchemy as sa

from app.store.tables import idempotency_keys, runs, tasks
from tests.conftest import StartValkey
from tests.e2e.stack import KILL, Stack, running_stack

WORDS = "and some more words " * 40
"""The first 256 KB are looked at before anything is read."""


async def rows(count: int, stop_at: int = 0, stopped: asyncio.Event | None = None) -> AsyncIterator[bytes]:
    """A CSV, which stands still before row `stop_at` once all before it are on their way."""
    yield b"prompt,task_type,country\n"
    each = min(500, count // 4)
    for first in range(0, count, each):
        if stopped is not None and first >= stop_at:
            stopped.set()
            await asyncio.Event().wait()
        part = range(first, min(first + each, count))
        yield "".join(f"question {n} {WORDS},GEMINI,GB\n" for n in part).encode()


async def upload(
    stack: Stack, token: str, body: AsyncIterator[bytes], query: str = ""
) -> tuple[int, int, dict[str, Any]]:
    """Status, Retry-After and the document."""
    headers = {"Authorization": f"Bearer {token}", "Content-Type": "text/csv", "Idempotency-Key": "nightly"}
    async with (
        aiohttp.ClientSession() as client,
        client.post(f"{stack.api_url}/v1/runs{query}", data=body, headers=headers) as answer,
    ):
        document = await answer.json(content_type=None)
        return answer.status, int(answer.headers.get("Retry-After", 0)), document


async def kill_in_the_middle(stack: Stack, token: str, count: int, query: str) -> None:
    """Until half of the rows are on their way, and some of them stored."""
    stopped = asyncio.Event()
    sending = asyncio.create_task(upload(stack, token, rows(count, count // 2, stopped), query))
    await stopped.wait()

    async def stored() -> bool:
        return await counted(stack, tasks) >= 500

    await stack.until(stored, "rows of the first half")
    assert stack.end("api", KILL) == -9
    with pytest.raises(aiohttp.ClientError):
        await sending
    stack.start("api")


async def counted(stack: Stack, table: sa.Table) -> int:
    async with stack.store.db.engine.connect() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


async def set_lease(stack: Stack, until_ms: int) -> None:
    async with stack.store.db.engine.begin() as connection:
        await connection.execute(sa.update(idempotency_keys).values(lease_until_ms=until_ms))


async def upload_through_a_kill(
    stack: Stack, count: int, *, wait: bool = True, query: str = ""
) -> dict[str, Any]:
    """Start `api`, kill it in the middle of an upload, and send the same again until there is an answer.
    Raises AssertionError for anything but one run with every row once."""
    token = await stack.token("submit")
    stack.start("api")
    await kill_in_the_middle(stack, token, count, query)
    if not wait:  # nor is the lease over by then, on a machine that takes long to start `api` again
        await set_lease(stack, await stack.store.health.database_ms() + 14_000)
    status, wait_s, _ = await upload(stack, token, rows(count), query)
    assert status == 409
    assert wait_s >= 1
    if not wait:
        await set_lease(stack, 0)
    for _ in itertools.count():
        status, wait_s, made = await upload(stack, token, rows(count), query)
        if status != 409:
            break
        await asyncio.sleep(wait_s)
    assert status == 201, made
    assert await upload(stack, token, rows(count), query) == (201, 0, made)
    assert (await counted(stack, runs), await counted(stack, tasks)) == (1, count)
    stack.run_id = made["id"]
    return made


async def test_api_killed_in_an_upload(tmp_path: Path, store_url: str, start_valkey: StartValkey) -> None:
    async with running_stack(tmp_path, store_url, start_valkey().url, "--time-scale", "500") as stack:
        await upload_through_a_kill(stack, 1_200, wait=False)

        async def sent() -> bool:
            return (await stack.store.queries.progress(stack.run_id)).states.get("submitted", 0) > 20

        await stack.until(sent, "tasks that are sent")
        await stack.store.runs.cancel_run(stack.run_id, "over")
        # What the provider was asked for is of the one run, and of nothing before it.
        async with stack.store.db.engine.connect() as connection:
            keys = set(await connection.scalars(sa.select(tasks.c.idempotency_key)))
        assert {task["idempotencyKey"] for task in stack.books()["tasks"]} <= keys


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_api_killed_in_an_upload_of_100_000_rows(
    tmp_path: Path, store_url: str, start_valkey: StartValkey
) -> None:
    async with running_stack(tmp_path, store_url, start_valkey().url, "--time-scale", "500") as stack:
        await upload_through_a_kill(stack, 100_000)
