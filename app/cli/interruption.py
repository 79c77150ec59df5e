"""How a signal ends a command that runs to its own end otherwise: in order, and saying what it leaves."""

import asyncio
import contextlib
import signal
from collections.abc import Iterator

from app.errors import UserError
from app.stop_signals import ending_signals


@contextlib.contextmanager
def ended_in_order() -> Iterator[None]:
    """SIGTERM and SIGHUP cancel the running task, as asyncio.run does at Ctrl-C, so that it can say what it
    leaves. The exit code is the shell's, 143 or 129."""
    loop, task, came = asyncio.get_running_loop(), asyncio.current_task(), list[int]()
    handled: list[signal.Signals] = []
    assert task is not None  # noqa: S101 - only a coroutine gets here

    def end(number: int) -> None:
        came.append(number)
        task.cancel()

    numbers = [number for number in ending_signals() if number is not signal.SIGINT]
    # In a thread, or where there are no such handlers, signals do what they did.
    with contextlib.suppress(NotImplementedError, RuntimeError, ValueError):
        for number in numbers:
            loop.add_signal_handler(number, end, number)
            handled.append(number)
    try:
        yield
    except UserError as error:
        if came and error.is_interruption:
            error.exit_code = 128 + came[0]
        raise
    except asyncio.CancelledError:
        if came:
            raise SystemExit(128 + came[0]) from None
        raise
    finally:
        for taken in handled:
            loop.remove_signal_handler(taken)
