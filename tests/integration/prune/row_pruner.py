"""A process that prunes rows, and kills itself at the chosen step:
python -m tests.integration.prune.row_pruner DATABASE_URL NOW_MS ROWS STEP

A step is a transaction's beginning, a statement of it that drops rows or writes their receipt, or its commit,
which is not made then.
"""

import asyncio
import os
import re
import signal
import sys
from typing import Any

import sqlalchemy as sa

from app.provider.wire import read_answer
from app.services.prune import ROW_KINDS, Pruner
from app.store import Database, Store
from app.store.write import pruning_rows

KEPT_DAYS = 10
_CHANGES = re.compile(r"\s*(DELETE FROM|INSERT INTO|UPDATE) (\w+)")


def kill_at(db: Database, step: int) -> None:
    """Let this process be killed at a step of what it writes to `db`."""
    left = [step]

    def count(*_: Any) -> None:
        left[0] -= 1
        if left[0] < 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def count_change(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if _CHANGES.match(statement):
            count()

    engine = db.engine.sync_engine
    sa.event.listen(engine, "begin", count)
    sa.event.listen(engine, "after_cursor_execute", count_change)
    sa.event.listen(engine, "commit", count)


async def main(database: str, now_ms: int, rows: int, step: int) -> None:
    pruning_rows.ROWS = rows
    store = Store(Database(database), read_answer)
    kill_at(store.db, step)

    async def no_pause() -> None:
        """Nobody else works."""

    policy = {kind.value: KEPT_DAYS for kind in ROW_KINDS}
    await Pruner(store, policy, clock=lambda: now_ms, pause=no_pause).turn()
    await store.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], *map(int, sys.argv[2:])))
