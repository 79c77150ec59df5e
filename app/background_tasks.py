"""Tasks that a process must have: started again when they end; with those that cannot be, the process ends.

Whoever waits for such a task gets WorkFailed from it, and ends the process with a word and a non-zero code:
what starts it anew can do no worse, and a process that only looks alive is the worst of all.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

log = structlog.get_logger(__name__)

AGAIN_FIRST_S = 0.1
FAILURES_MAX = 5
"""In a row: 0.1 + 0.2 + 0.4 + 0.8 s of waiting between them, less than anybody waits for an answer."""
STEADY_S = 30.0
"""A task that ran so long before it failed is begun anew with its tries."""


class WorkFailed(Exception):  # noqa: N818 - the work failed, and this process with it
    """A task ended again and again; the text names it and the last reason."""


async def keep_running(
    run: Callable[[], Awaitable[None]],
    *,
    name: str,
    is_over: Callable[[], bool],
    fatal: tuple[type[Exception], ...] = (),
) -> None:
    """Run `run` until it returns when `is_over()` says that it should, and again whenever it ends before:
    by an error, by a cancellation that was not meant for it, by itself. Raises WorkFailed after FAILURES_MAX
    in a row; what is `fatal` is raised at once."""
    failures = 0
    while True:
        begun_s = asyncio.get_running_loop().time()
        error = await _outcome(run, name)
        if isinstance(error, fatal):
            raise error
        if error is None and is_over():
            return
        if asyncio.get_running_loop().time() - begun_s > STEADY_S:
            failures = 0
        failures += 1
        reason = "ended by itself" if error is None else f"{type(error).__name__}: {str(error)[:200]}"
        log.error("task_failed", work=name, failures=failures, reason=reason, exc_info=error)
        if failures >= FAILURES_MAX:
            raise WorkFailed(f"{name} failed {failures} times in a row: {reason}") from error
        await asyncio.sleep(AGAIN_FIRST_S * 2 ** (failures - 1))


async def _outcome(run: Callable[[], Awaitable[None]], name: str) -> BaseException | None:
    """How one life of it ended; raises CancelledError only when the caller is cancelled."""
    life = asyncio.create_task(_live(run), name=name)
    is_cancelled = False
    while not life.done():
        try:
            await asyncio.wait({life})
        except asyncio.CancelledError:
            is_cancelled = True
            life.cancel()
    if is_cancelled:
        raise asyncio.CancelledError
    return asyncio.CancelledError("cancelled by nobody") if life.cancelled() else life.exception()


async def _live(run: Callable[[], Awaitable[None]]) -> None:
    await run()
