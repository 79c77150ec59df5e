"""Exactly once, whatever is killed and whoever follows at the same time."""

import asyncio
import io
import os
import random
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import hypothesis
import pyarrow.parquet as pq
import pytest
from hypothesis import strategies as st

from app.address import read_objects_address
from app.cli.follow import follower
from app.cli.follow.destination import Destination
from app.cli.follow.follower import Follower
from app.errors import UserError
from app.objects import ObjectEntry, open_objects
from app.ports import ObjectsUnavailable
from app.store import Store
from app.store.read.settled import SettledPage
from tests.integration.follow.killed import killed_followers
from tests.integration.follow.scene import (
    EVERYTHING,
    follow_once,
    follower_of,
    numbers,
    seen_by_duckdb,
    seen_by_readers,
    settle_some,
)
from tests.integration.store.scenes import FIVE, NOW
from tests.servers.s3 import S3Server

WRITES = 9
"""Of a follower that is not killed: what the destination is for, and the try whether that can be overwritten;
then of two ranges the manifest, the parts (two, one), and that they are whole."""


async def test_a_follower_killed_at_any_write_leaves_no_result_out_and_none_twice(
    sqlite_store: Store, sqlite_url: str, objects_url: str, tmp_path: Path
) -> None:
    await settle_some(sqlite_store, 3, days=1)
    wanted = await numbers(sqlite_store)
    env = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    step = 0
    with killed_followers(env) as follow:
        while True:
            step += 1
            to = f"{objects_url}/{step}"
            if not follow(sqlite_url, to, step):
                break
            left = await seen_by_duckdb(to, tmp_path / f"{step}")
            assert set(left) <= set(wanted)
            assert len(left) == len(set(left))
            await follow_once(sqlite_store, to)
            assert await seen_by_readers(to, tmp_path / f"{step}-whole", os.environ) == wanted
    assert step == WRITES + 1


class Memory:
    """A storage that remembers which results it was given, and refuses to have one in two files."""

    display = "memory"

    def __init__(self) -> None:
        self.content: dict[str, bytes] = {}
        self.results: dict[str, list[int]] = {}

    async def put(self, path: str, content: bytes | Path) -> None:
        data = content if isinstance(content, bytes) else content.read_bytes()  # noqa: ASYNC240
        if path.endswith(".parquet"):
            found = pq.read_table(io.BytesIO(data), columns=["seq"])["seq"].to_pylist()
            elsewhere = {seq for other, seqs in self.results.items() if other != path for seq in seqs}
            assert not elsewhere.intersection(found)
            assert self.results.setdefault(path, found) == found
        self.content[path] = data

    async def create(self, path: str, content: bytes) -> bool:
        return self.content.setdefault(path, content) == content

    async def get(self, path: str) -> bytes | None:
        return self.content.get(path)

    async def list(self, folder: str = "", *, after: str = "") -> AsyncIterator[ObjectEntry]:
        for path in sorted(self.content):
            if path.startswith(folder) and path > after:
                yield ObjectEntry(path, len(self.content[path]))


class Turns:
    """A storage whose every call waits for its turn before it, and again before its answer arrives."""

    display = "memory"

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self.waiting: asyncio.Future[bool] | None = None

    async def _turn(self) -> None:
        self.waiting = asyncio.get_running_loop().create_future()
        if await self.waiting:
            raise ObjectsUnavailable("away")

    async def put(self, path: str, content: bytes | Path) -> None:
        await self._turn()
        await self._memory.put(path, content)
        await self._turn()

    async def create(self, path: str, content: bytes) -> bool:
        await self._turn()
        created = await self._memory.create(path, content)
        await self._turn()
        return created

    async def get(self, path: str) -> bytes | None:
        await self._turn()
        return await self._memory.get(path)

    async def list(self, folder: str = "", *, after: str = "") -> AsyncIterator[ObjectEntry]:
        await self._turn()
        async for entry in self._memory.list(folder, after=after):
            yield entry


class Settled:
    """Results in memory; `count` of them are settled by now."""

    def __init__(self) -> None:
        self.count = 3

    async def settled_after(self, seq: int, *, through: int | None = None, **_: Any) -> SettledPage:
        top = min(self.count, through or self.count)
        return SettledPage([row(n) for n in range(seq + 1, top + 1)][:2], min(seq + 2, top), seq + 2 >= top)

    async def settled_at(self, seq: int) -> tuple[str, int] | None:
        return (f"task-{seq}", 1) if seq <= self.count else None


def row(seq: int) -> dict[str, Any]:
    """As the store gives it."""
    texts = ("run_id", "run_name", "account", "state", "verdict", "provider_task_id", "error_code")
    texts += (
        "error_message",
        "settled_by",
        "reused_from",
        "custom_id",
        "metadata",
        "sample",
        "repeats",
        "response",
        "response_note",
        "answer_sha256",
    )
    numbers = ("ordinal", "priority", "submitted_at_ms", "settled_at_ms")
    credits = ("credits_estimate", "credits_to_charge", "credits_charged")
    return {
        **dict.fromkeys(texts, None),
        **dict.fromkeys(numbers, 1),
        **dict.fromkeys(credits, FIVE),
        "seq": seq,
        "task_id": f"task-{seq}",
        "attempt": 1,
        "task_type": ("CHATGPT", "GEMINI")[seq % 2],
        "payload": {},
        "stored_at_ms": NOW,
    }


class Actor:
    """A follower that may be let go on by a step, robbed of an answer, or killed."""

    def __init__(self, memory: Memory, settled: Settled) -> None:
        self.turns = Turns(memory)
        destination = Destination(self.turns, EVERYTHING, clock=lambda: NOW)  # type: ignore[arg-type]
        self.follower = Follower(settled, destination, EVERYTHING, every_s=0.0, jitter=lambda: 0.0)
        self.task = asyncio.create_task(self.follower.run(once=True))

    async def go_on(self, *, is_away: bool = False) -> None:
        """Until it waits for its next turn, or has ended."""
        if self.turns.waiting is not None:
            waiting, self.turns.waiting = self.turns.waiting, None
            waiting.set_result(is_away)
        while self.turns.waiting is None and not self.task.done():  # noqa: ASYNC110
            await asyncio.sleep(0)

    async def kill(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    async def run_to_the_end(self) -> None:
        while not self.task.done():
            await self.go_on()
        await self.task


ACTIONS = ("go on",) * 20 + ("away", "kill", "settle", "settle")


@hypothesis.given(st.integers(0, 2**32))
@hypothesis.settings(max_examples=12)
def test_followers_that_are_interleaved_killed_and_cut_off_never_double_a_result(seed: int) -> None:
    draws = random.Random(seed)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(follower, "WAIT_S_MAX", 0.0)
        asyncio.run(play([(draws.randrange(3), draws.choice(ACTIONS)) for _ in range(250)]))


async def play(actions: Sequence[tuple[int, str]]) -> None:
    memory, settled = Memory(), Settled()
    actors = [Actor(memory, settled) for _ in range(3)]
    for number, action in actions:
        actor = actors[number]
        if action == "settle":
            settled.count += 2
        elif action == "kill":
            await actor.kill()
        else:
            await actor.go_on(is_away=action == "away")
        if actor.task.done():
            if not actor.task.cancelled() and (error := actor.task.exception()) is not None:
                assert isinstance(error, UserError), error
                assert error.code in ("destination_taken", "destination_away"), error
            actors[number] = Actor(memory, settled)
    for actor in actors:
        await actor.kill()
    await Actor(memory, settled).run_to_the_end()
    stored = sorted(seq for seqs in memory.results.values() for seq in seqs)
    assert stored == list(range(1, settled.count + 1))


async def test_of_two_followers_one_ends(sqlite_store: Store, s3: S3Server, tmp_path: Path) -> None:
    """On a real storage, where the second finds out when it takes up a range."""
    await settle_some(sqlite_store, 4)
    to = f"s3://{s3.new_bucket()}"
    objects = open_objects(read_objects_address(to))
    first, second = follower_of(sqlite_store, objects), follower_of(sqlite_store, objects)
    running = [asyncio.create_task(each.run(once=False)) for each in (first, second)]
    while not any(task.done() for task in running):
        await settle_some(sqlite_store, 3)
        await asyncio.sleep(0.02)
    (ended,) = [task for task in running if task.done()]
    with pytest.raises(UserError, match="another process exports to s3://") as taken:
        await ended
    assert taken.value.exit_code == 1
    for each in (first, second):
        each.stop()
    await asyncio.gather(*running, return_exceptions=True)
    await follow_once(sqlite_store, to)
    assert await seen_by_readers(to, tmp_path, os.environ) == await numbers(sqlite_store)
