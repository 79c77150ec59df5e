"""Followers that end by kill -9 at a chosen write. One process has imported everything and forks for each.

Run as a module it is that process: a line of JSON in for each, its exit code out.
"""

import asyncio
import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from app.address import read_objects_address
from app.cli.follow import parts
from app.objects import Objects, open_objects
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.integration.follow.scene import follower_of

PARTS_MAX = 2
"""So that few results make several ranges."""


class Killing:
    """Ends the process right before a write, which is right after the one before."""

    def __init__(self, objects: Objects, step: int) -> None:
        self._objects = objects
        self._left = step
        self.display = objects.display
        self.get, self.list = objects.get, objects.list

    async def put(self, path: str, content: bytes | Path) -> None:
        self._count()
        await self._objects.put(path, content)

    async def create(self, path: str, content: bytes) -> bool:
        self._count()
        return await self._objects.create(path, content)

    def _count(self) -> None:
        self._left -= 1
        if self._left == 0:
            os.kill(os.getpid(), signal.SIGKILL)


FollowKilled = Callable[..., int]


@contextlib.contextmanager
def killed_followers(env: Mapping[str, str]) -> Iterator[FollowKilled]:
    """`follow(database_url, to, step)` follows once in a process of its own; how that ended."""
    with subprocess.Popen(
        [sys.executable, "-m", __name__],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **env},
    ) as process:

        def follow(*order: Any) -> int:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(json.dumps(order) + "\n")
            process.stdin.flush()
            return int(process.stdout.readline())

        yield follow
        assert process.stdin is not None
        process.stdin.close()


async def _follow(database_url: str, to: str, step: int) -> None:
    async for store in _opened(database_url):
        objects = Killing(open_objects(read_objects_address(to)), step)
        await follower_of(store, objects).run(once=True)  # type: ignore[arg-type]


async def _opened(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url)
    yield Store(database, read_answer)
    await database.close()


def serve() -> None:
    """Fork for each line."""
    parts.PARTS_MAX = PARTS_MAX
    for line in sys.stdin:
        child = os.fork()
        if not child:
            os.dup2(2, 1)  # its log
            asyncio.run(_follow(*json.loads(line)))
            os._exit(0)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
