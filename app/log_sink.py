"""The end of every log line: a text stream that never raises into whoever logs, and never holds it up.

A closed pipe, a full disk and a limit on the size of files cost lines, nothing else. So does a reader that
reads nothing: a thread writes to the standard streams, WAITING_BYTES_MAX may wait for it, the rest is
dropped. The first line that can be written again is preceded by the number of lost lines.
"""

import atexit
import contextlib
import io
import os
import select
import sys
import threading
from collections import deque
from collections.abc import Callable
from typing import TextIO

WAITING_BYTES_MAX = 1024 * 1024
"""Lines that wait for a slow reader: some 5,000. A pipe holds 64 KB by itself."""
DRAIN_S = 1.0
"""How long the end of the process waits for what is not written yet."""
POLL_MS = 1_000
STANDARD = frozenset({1, 2})
"""Descriptors that nobody closes under us; other streams belong to their owner, and are written at once."""

LostLine = Callable[[int], str]
"""(how many lines were lost) -> a line that says so."""


class Sink(io.TextIOBase):
    """Takes the place of `stream`; None: there is none, as after `2>&-`, and everything is dropped."""

    encoding = "utf-8"

    def __init__(self, stream: TextIO | None, *, lost_line: LostLine | None = None) -> None:
        self.lost_line = lost_line
        """None: losses are kept silent, as on standard output."""
        self.lost = 0
        """Lines dropped since that was last reported."""
        self._stream = stream
        self._terminal = _is_terminal(stream)
        self._descriptor = _standard_descriptor(stream)
        self._begin()

    def isatty(self) -> bool:
        return self._terminal

    def fileno(self) -> int:
        if self._descriptor is None:
            raise io.UnsupportedOperation("fileno")
        return self._descriptor

    def writable(self) -> bool:
        return True

    def flush(self) -> None:
        """Waits for nothing: see `drain`."""

    def write(self, text: str) -> int:
        """Never raises for text, never waits for a reader."""
        data = text.encode("utf-8", "backslashreplace")  # raises for bytes, by which this is known for text
        if self._descriptor is None:
            self._write_through(text)
        elif data:
            self._hand_over(data)
        return len(text)

    def drain(self, within_s: float = DRAIN_S) -> bool:
        """Wait until what was taken is written; False when it is not in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._waiting_bytes, within_s)

    def _begin(self) -> None:
        self._waiting: deque[bytes] = deque()
        self._waiting_bytes = 0
        self._cut = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._pid = os.getpid()

    def _write_through(self, text: str) -> None:
        if self._stream is None:
            return
        try:
            if self.lost and self.lost_line is not None:
                self._stream.write(self.lost_line(self.lost))
            self._stream.write(text)
            self._stream.flush()
            self.lost = 0
        except (OSError, ValueError):  # ValueError: closed, or a character that it cannot take
            self.lost += _lines(text)

    def _hand_over(self, data: bytes) -> None:
        if self._pid != os.getpid():
            self._begin()  # a fork has neither our thread nor, perhaps, our lock
        with self._changed:
            if self._waiting_bytes + len(data) > WAITING_BYTES_MAX:
                self.lost += _lines(data)
                return
            self._waiting.append(data)
            self._waiting_bytes += len(data)
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="log", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # no more threads: the next line tries again
                    self._thread = None
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._waiting)
                data, lost = self._waiting.popleft(), self.lost
            is_reported = self._report_lost(lost)
            written = self._put(data)
            with self._changed:
                self.lost += (0 if written else _lines(data)) - (lost if is_reported else 0)
                self._waiting_bytes -= len(data)
                self._changed.notify_all()

    def _report_lost(self, lost: int) -> bool:
        """Report lost lines; whether none is left to report."""
        if not lost or self.lost_line is None:
            return True
        return self._put(self.lost_line(lost).encode("utf-8", "backslashreplace"))

    def _put(self, data: bytes) -> bool:
        # After half a line the next one begins anew.
        rest = memoryview(b"\n" + data if self._cut else data)
        begun = False
        while rest:
            try:
                count = os.write(self._descriptor or 2, rest)
            except BlockingIOError:
                waiting = select.poll()
                waiting.register(self._descriptor or 2, select.POLLOUT)
                waiting.poll(POLL_MS)
                continue
            except OSError:
                self._cut = self._cut or begun
                return False
            begun, self._cut = True, False
            rest = rest[count:]
        return True


def guard_standard_streams() -> None:
    """For a process that must outlive its output: what it, or a library, prints goes through sinks from here
    on. A standard descriptor that is closed is opened on nothing, before a database gets its number."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if not isinstance(stream, Sink):
            with contextlib.suppress(AttributeError, OSError, ValueError):
                stream.flush()
            setattr(sys, name, standard_sink(stream))


def standard_sink(stream: TextIO | Sink | None) -> Sink:
    """The sink of a stream; one for each standard descriptor, so that lines keep their order."""
    if isinstance(stream, Sink):
        return stream
    descriptor = _standard_descriptor(stream)
    if descriptor is None:
        return Sink(stream)
    if descriptor not in _sinks:
        _sinks[descriptor] = Sink(stream)
        atexit.register(_sinks[descriptor].drain)
    return _sinks[descriptor]


_sinks: dict[int, Sink] = {}


def drain_all(within_s: float = DRAIN_S) -> None:
    """Before this process becomes another one by exec."""
    for sink in _sinks.values():
        sink.drain(within_s)


def _standard_descriptor(stream: TextIO | None) -> int | None:
    try:
        descriptor = None if stream is None else stream.fileno()
    except (OSError, ValueError):
        return None
    return descriptor if descriptor in STANDARD else None


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except (OSError, ValueError):
        return False


def _lines(text: str | bytes) -> int:
    return max(text.count("\n" if isinstance(text, str) else b"\n"), 1)  # type: ignore[arg-type]
