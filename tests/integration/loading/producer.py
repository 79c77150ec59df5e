"""One producer in a process of its own: `python -m tests.integration.loading.producer URL FILE RUN GO [N]`.

Reads FILE into RUN as soon as the file GO is there, so that several begin at once. Prints one JSON line. It
is killed before its N-th commit, if any.
"""

import asyncio
import itertools
import json
import os
import signal
import sys
import time
from pathlib import Path

import sqlalchemy as sa

from app.prompts.reader import Defaults, read_prompts
from app.provider.wire import read_answer
from app.services.load import NewRun, load_run
from app.store import Database, Store


def now_ms() -> int:
    return time.time_ns() // 1_000_000


def wait_for(path: Path) -> None:
    """Until another process has made the file."""
    while not path.exists():
        time.sleep(0.001)


def kill_before_commit(db: Database, number: int) -> None:
    """All of it is written then, and nothing of it there."""
    commits = itertools.count(1)

    def count(_connection: sa.Connection) -> None:
        if next(commits) == number:
            os.kill(os.getpid(), signal.SIGKILL)

    sa.event.listen(db.engine.sync_engine, "commit", count)


async def main(url: str, file: str, run_id: str, go: str, killed_before: str = "0") -> None:
    store = Store(Database(url), read_answer)
    kill_before_commit(store.db, int(killed_before))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    wait_for(Path(go))
    reader = read_prompts(Path(file), Defaults())
    loaded = await load_run(
        store, reader, NewRun("", file), sha256=lambda: reader.sha256, clock=now_ms, resume=run_id
    )
    await store.close()
    sys.stdout.write(json.dumps({"started": loaded.started, "tasks": loaded.tasks}) + "\n")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
