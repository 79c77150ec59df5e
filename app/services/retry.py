"""Retry: failed, expired and rejected tasks of a run are sent again, each under a new key. A task whose old
attempt may still be charged is left alone, unless that is wanted.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from app.domain.task import TaskState
from app.ports import Clock

if TYPE_CHECKING:
    from app.store import Store
    from app.store.write.retries import RetriedChunk

CHUNK_TASKS = 500
"""Tasks retried in one transaction."""


@dataclass(slots=True)
class Retried:
    """What became of the tasks, or would."""

    tasks: int = 0
    estimate: Decimal = Decimal(0)
    """Credits of the new attempts."""
    held: int = 0
    """Left alone: the old attempt may still be charged."""
    answered: int = 0
    """Left alone: the report came late, but it came, and it was a success."""
    last: int = 0
    """Ordinal of the last task that was looked at."""

    def with_chunk(self, chunk: "RetriedChunk") -> "Retried":
        """The same after one more transaction."""
        return Retried(
            self.tasks + chunk.retried,
            self.estimate + chunk.estimate,
            self.held + chunk.held,
            self.answered + chunk.answered,
            chunk.last or self.last,
        )


class Noted(Protocol):
    """What is written with each transaction of a retry."""

    def __call__(self, so_far: Retried) -> AbstractContextManager[None]:
        """Around a transaction, given what was done before it."""
        ...


async def retry_run(
    store: "Store",
    run_id: str,
    states: Sequence[TaskState],
    *,
    clock: Clock,
    even_if_held: bool = False,
    is_dry_run: bool = False,
    on_chunk: Callable[[int], None] = lambda _: None,
    done: Retried | None = None,
    noted: Noted = lambda _: nullcontext(),
) -> Retried:
    """Retry the tasks of a run that are in one of `states`; `on_chunk` gets the tasks of each transaction,
    `noted` what was done before it. `done`: by an earlier call, which is gone on with. With `is_dry_run`
    nothing is changed, and the same is counted."""
    done = done or Retried()
    while True:
        with noted(done):
            chunk = await store.retries.retry_chunk(
                run_id,
                states,
                after=done.last,
                limit=CHUNK_TASKS,
                even_if_held=even_if_held,
                now_ms=clock(),
                is_dry_run=is_dry_run,
            )
        done = done.with_chunk(chunk)
        if chunk.retried and not is_dry_run:
            on_chunk(chunk.retried)
        if not chunk.last:
            return done
