"""The intake: makes tasks that come one by one durable, those of many requests in one commit, before any of
the requests is answered.

While one commit runs, the next group is queued; so a group grows with the load, and a single request does not
wait for others.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING

from app.domain.standing import Taking
from app.logger import get_logger
from app.ports import Clock, StoreUnavailable

if TYPE_CHECKING:
    from app.store import Store

log = get_logger(__name__)

REQUESTS_MAX = 500
"""Of one commit, when each has one task."""
TASKS_MAX = 1_000
"""Of one commit, some 100 ms; one request may have half as many."""
WAITING_MAX = 10_000
"""Tasks that wait for their commit, with 1 to 10 KB each."""

Done = Callable[[set[str], BaseException | None], None]
"""(ids of tasks that are not stored, since an earlier one has their key; why nothing is)."""


class _Waiting:
    """A request whose tasks are not committed yet."""

    __slots__ = ("_done", "taking")

    def __init__(self, taking: Taking, done: Done) -> None:
        self.taking = taking
        self._done: Done | None = done

    def end(self, known: set[str], error: BaseException | None = None) -> None:
        """Say once what became of them."""
        done, self._done = self._done, None
        if done is not None:
            done(known, error)


class IntakeFull(Exception):  # noqa: N818 - a state, not an error
    """No task is taken now; try again later."""


class Intake:
    """Of one process."""

    def __init__(self, store: "Store", clock: Clock, wake: Callable[[], None]) -> None:
        """`wake` has the workers told that there is something to send."""
        self._store = store
        self._clock = clock
        self._wake = wake
        self._queued: deque[_Waiting] = deque()
        self._tasks = 0
        """Tasks that are queued, or in the commit that runs."""
        self._committing: asyncio.Task[None] | None = None

    async def take(self, taking: Taking) -> set[str]:
        """Return once the tasks are stored; ids of those that are not, since an earlier one has their key.

        Raises IntakeFull, and what the store raises. Cancelling the caller changes nothing for its tasks.
        """
        stored: asyncio.Future[set[str]] = asyncio.get_running_loop().create_future()

        def done(known: set[str], error: BaseException | None) -> None:
            if stored.done():
                return
            if error is None:
                stored.set_result(known)
            elif isinstance(error, asyncio.CancelledError):
                stored.cancel()
            else:
                stored.set_exception(error)

        self.queue(taking, done)
        return await stored

    def queue(self, taking: Taking, done: Done) -> None:
        """Have the tasks stored, and `done` called then. Raises IntakeFull."""
        if self._tasks + len(taking.tasks) > WAITING_MAX:
            raise IntakeFull
        self._tasks += len(taking.tasks)
        self._queued.append(_Waiting(taking, done))
        if self._committing is None or self._committing.done():
            self._committing = asyncio.create_task(self._commit_groups(), name="intake")

    async def close(self) -> None:
        """Commit what is queued."""
        if self._committing is not None:
            await asyncio.gather(self._committing, return_exceptions=True)

    async def _commit_groups(self) -> None:
        while self._queued:
            group = self._next_group()
            try:
                await self._commit(group)
            except BaseException:
                for waiting in group:
                    waiting.end(set(), asyncio.CancelledError())  # no effect where it has its result
                raise
            finally:
                self._tasks -= sum(len(waiting.taking.tasks) for waiting in group)

    def _next_group(self) -> list[_Waiting]:
        group, tasks = [self._queued.popleft()], 0
        tasks += len(group[0].taking.tasks)
        while self._queued and len(group) < REQUESTS_MAX:
            tasks += len(self._queued[0].taking.tasks)
            if tasks > TASKS_MAX:
                break
            group.append(self._queued.popleft())
        return group

    async def _commit(self, group: list[_Waiting]) -> None:
        try:
            known = await self._store.standing.take_tasks(
                [waiting.taking for waiting in group], self._clock()
            )
        except StoreUnavailable as error:
            _fail(group, error)
        except Exception as error:
            if len(group) == 1:
                log.exception("tasks_not_stored", error=type(error).__name__)
                _fail(group, error)
                return
            # One of them cannot be stored: the others are.
            for waiting in group:
                await self._commit([waiting])
        else:
            # In the loop's next turn: the next group is on its way to the database by then, and is stored
            # while this one is answered.
            asyncio.get_running_loop().call_soon(_end, group, known)
            self._wake()


def _end(group: list[_Waiting], known: set[str]) -> None:
    for waiting in group:
        waiting.end({task.id for task in waiting.taking.tasks} & known if known else set())


def _fail(group: list[_Waiting], error: Exception) -> None:
    for waiting in group:
        waiting.end(set(), error)
