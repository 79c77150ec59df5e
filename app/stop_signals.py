"""The signals that end a process, from its first moment on. Imports nothing that takes time.

As process 1 of a container a signal without a handler is not delivered at all: SIGTERM in the second that the
imports take would be lost, and the container killed when its grace is over.
"""

import signal
from types import FrameType

LONG_RUNNING = frozenset({"web", "worker", "emulator"})
"""Commands that run until they are told to end."""


def ending_signals() -> tuple[signal.Signals, ...]:
    """SIGTERM and SIGINT; SIGHUP too (a terminal that was closed, a supervisor's reload: nothing is read
    again but by a start) unless whoever started us has it ignored, as nohup does."""
    numbers = [signal.SIGTERM, signal.SIGINT]
    hangup = getattr(signal, "SIGHUP", None)  # not on Windows
    if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
        numbers.append(hangup)
    return tuple(numbers)


def end_at_once_when_told() -> None:
    """Until an event loop handles them in order, SIGTERM and SIGHUP end the process, cleanly and with 0.
    What `hold_back` kept counts."""
    numbers = [number for number in ending_signals() if number is not signal.SIGINT]
    for number in numbers:
        signal.signal(number, _end)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, numbers)


def hold_back() -> None:
    """Keep signals for the program that takes our place: between the two nobody would hear them."""
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_BLOCK, [n for n in ending_signals() if n is not signal.SIGINT])


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)
