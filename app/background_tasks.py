"""Keeps the tasks running that a process must have: each is started again when it ends.

One that fails again and again raises WorkFailed, and its process ends with a message and a non-zero code: a
process that only looks alive is worse than one that is started again. Timed turns within such a task are
`run_every` (workers/periodic.py); a process that keeps another process running is app/local/supervisor.py.
"""

import asyncio
from collections.abc import Awaitable, Callable

from app.domain.text import counted
from app.logger import get_logger

log = get_logger(__name__)

RESTART_DELAY_S = 0.1
FAILURES_MAX = 5
"""In a row, with 0.1 + 0.2 + 0.4 + 0.8 s of waiting between them: less than anybody waits for an answer."""
STEADY_S = 30.0
"""A task that ran so long before it failed has all its tries again."""


class WorkFailed(Exception):  # noqa: N818 - the work failed, and this process with it
    """A task failed FAILURES_MAX times in a row; the text names it and the last reason."""


async def keep_running(
    run: Callable[[], Awaitable[None]],
    *,
    name: str,
    is_over: Callable[[], bool],
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Run `run`, and again whenever it ends too early: by an error, by itself, or by a cancellation that did
    not come through the caller. Returns when it returns and `is_over()`. Raises WorkFailed after FAILURES_MAX
    failures in a row; a `fatal` error at once."""
    failures = 0
    while True:
        started_s = asyncio.get_running_loop().time()
        error = await _outcome(run, name)
        if isinstance(error, fatal):
            raise error
        if error is None and is_over():
            return
        if asyncio.get_running_loop().time() - started_s > STEADY_S:
            failures = 0
        failures += 1
        reason = "ended by itself" if error is None else f"{type(error).__name__}: {str(error)[:200]}"
        log.error("task_failed", work=name, failures=failures, reason=reason, exc_info=error)
        if failures >= FAILURES_MAX:
            raise WorkFailed(f"{name} failed {counted(failures, 'time')} in a row: {reason}") from error
        await asyncio.sleep(RESTART_DELAY_S * 2 ** (failures - 1))


async def _outcome(run: Callable[[], Awaitable[None]], name: str) -> BaseException | None:
    """How one call of `run` ended; raises CancelledError only when the caller is cancelled."""
    task = asyncio.create_task(_call(run), name=name)
    is_cancelled = False
    while not task.done():
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            is_cancelled = True
            task.cancel()
    if is_cancelled:
        raise asyncio.CancelledError
    return asyncio.CancelledError("cancelled by nobody") if task.cancelled() else task.exception()


async def _call(run: Callable[[], Awaitable[None]]) -> None:
    await run()
