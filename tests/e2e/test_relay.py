"""Results pushed by real workers that are killed in the middle: each comes at least once, and no other."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.relay.message import NewEndpoint, new_secret
from app.store.tables import tasks
from tests.conftest import StartValkey
from tests.e2e.stack import KILL, STOP, Stack, running_stack
from tests.integration.relay.receiver import Receiver, receiving

COUNT = 150
EMULATOR = ("--time-scale", "60", "--concurrency", "80", "--shuffle", "0.5", "--fail", "0.03")


async def until_pushed(stack: Stack, receiver: Receiver, secret: str, count: int) -> None:
    """Until so many tasks came, and the end of their run."""

    async def pushed() -> bool:
        finished = any(document["type"] == "run.finished" for document in receiver.documents())
        return finished and len(receiver.tasks(secret)) >= count

    await stack.until(pushed, f"{count} pushed results")


async def assert_pushed(stack: Stack, receiver: Receiver, secret: str) -> None:
    """Every task of the run at least once, nothing else, and nothing left that waits."""

    async def ids(connection: AsyncConnection) -> set[str]:
        return set(await connection.scalars(sa.select(tasks.c.id).where(tasks.c.run_id == stack.run_id)))

    assert set(receiver.tasks(secret)) == await stack.store.db.read(ids)
    for headers, _ in receiver.got:
        assert headers["webhook-id"].startswith("msg_")

    async def is_recorded() -> bool:
        (row,) = await stack.store.relay.endpoints(limit=2)
        return row.waiting == 0

    await stack.until(is_recorded, "all recorded")


async def test_a_worker_killed_while_it_pushes_loses_nothing_and_invents_nothing(
    tmp_path: Path, sqlite_url: str, start_valkey: StartValkey
) -> None:
    async with (
        receiving() as receiver,
        running_stack(tmp_path, sqlite_url, start_valkey().url, *EMULATOR) as stack,
    ):
        receiver.always = 0.02
        to = NewEndpoint(receiver.url, new_secret())
        await stack.submit(COUNT, push_to=to)
        await stack.until(_came(receiver, 20), "20 posts")
        assert stack.end("worker", KILL) == -9
        stack.start("worker")
        await stack.until(_came(receiver, 90), "90 posts")
        assert stack.end("worker", STOP) == 0
        stack.start("worker")
        await stack.until_finished()
        await until_pushed(stack, receiver, to.secret, COUNT)
        await assert_pushed(stack, receiver, to.secret)
        await stack.assert_books_equal(COUNT)


def _came(receiver: Receiver, count: int) -> Callable[[], Awaitable[bool]]:
    async def came() -> bool:
        return len(receiver.got) >= count

    return came
