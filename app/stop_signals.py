"""The signals that end a process, from its start on. Imports nothing that takes time.

As process 1 of a container a signal without a handler is not delivered at all: SIGTERM in the second that the
imports take would be lost, and the container killed when its grace is over.
"""

import os
import signal
from types import FrameType

LONG_RUNNING = frozenset({"api", "mcp", "web", "worker", "emulator", "up"})
"""Commands that run until a signal ends them."""


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM and SIGINT; SIGHUP too (a terminal that was closed, a supervisor's reload: nothing is read
    again but by a start) unless whoever started us has it ignored, as nohup does."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return tuple(numbers)


def exit_on_signals() -> None:
    """SIGTERM and SIGHUP end the process at once, with 0, until an event loop handles them: nothing is half
    done yet that a crash would not leave as well. Signals that `block_until_exec` held back arrive now."""
    numbers = [number for number in ending_signals() if number is not signal.SIGINT]
    for number in numbers:
        signal.signal(number, _end)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def block_until_exec() -> None:
    """Hold signals back for the program that replaces this one: between the two no handler would get them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [n for n in ending_signals() if n is not signal.SIGINT])


def _end(_number: int, _frame: FrameType | None) -> None:
    # No SystemExit: in a finalizer or a callback of a weak reference, of which each import makes some, it is
    # only printed; and the interpreter would wait for threads that nobody stops.
    os._exit(0)
