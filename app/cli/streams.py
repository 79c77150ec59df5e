"""Standard input and output of a command: every byte arrives, or the command says why it did not, and what it
has done all the same.

What cannot be written is never an OSError: whoever asks a database or a provider would take it for theirs.
Standard error never fails: what nobody can read is dropped.
"""

import errno
import fcntl
import io
import os
import select
import stat
import sys
from typing import Any, TextIO

BUFFER_BYTES = 64 * 1024
REASONS = {errno.EBADF: "it is closed", errno.EPIPE: "nobody reads it any more"}


class OutputError(Exception):
    """Standard output did not take all that was written; the text says why."""

    def __init__(self, error: OSError) -> None:
        reason = REASONS.get(error.errno or 0, error.strerror or type(error).__name__)
        super().__init__(f"standard output could not be written: {reason}")


class Output(io.RawIOBase):
    """A descriptor that is written whole: what it takes in part or only later is waited for."""

    def __init__(self, descriptor: int, *, must_arrive: bool) -> None:
        super().__init__()
        self._descriptor = descriptor
        self._must_arrive = must_arrive
        self.lost: OSError | None = None
        """Why no more is written; what comes after it goes nowhere."""

    def write(self, data: Any) -> int:
        if self.lost is None:
            try:
                self._write_all(memoryview(data).cast("B"))
            except OSError as error:
                self.lost = error
                if self._must_arrive:
                    raise OutputError(error) from error
        return len(data)

    def _write_all(self, data: memoryview) -> None:
        while data:
            try:
                data = data[os.write(self._descriptor, data) :]
            except BlockingIOError:
                # A pipe that somebody else has set so, and that is full now.
                select.select([], [self._descriptor], [])

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def writable(self) -> bool:
        return True


class Input(io.RawIOBase):
    """A descriptor that is read to its end, also where it has nothing to say yet."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self._descriptor = descriptor

    def readinto(self, buffer: Any) -> int:
        while True:
            try:
                return os.readv(self._descriptor, [buffer])
            except BlockingIOError:
                select.select([self._descriptor], [], [])

    def fileno(self) -> int:
        return self._descriptor

    def isatty(self) -> bool:
        return os.isatty(self._descriptor)

    def readable(self) -> bool:
        return True


_output: Output | None = None


def take_streams() -> None:
    """Put these in the place of Python's own, once per process. A stream that the caller closed gets its
    descriptor back, or the next file that is opened would have its number, and be written to."""
    global _output  # noqa: PLW0603 - standard output is one for a process
    _reopen(0, os.O_WRONLY)  # what is read from it fails, as from a closed one
    _reopen(1, os.O_RDONLY)
    _reopen(2, os.O_WRONLY)
    _output = Output(1, must_arrive=True)
    sys.stdin = _stdin(sys.stdin)
    sys.stdout = _text(_output, sys.stdout)
    sys.stderr = _text(Output(2, must_arrive=False), sys.stderr)


def lost_output() -> OutputError | None:
    """Why standard output lacks something, if it does; what was still kept is written first."""
    if _output is None:
        return None
    try:
        sys.stdout.flush()
    except OutputError as lost:
        return lost
    return None if _output.lost is None else OutputError(_output.lost)


def stdin_fault() -> str:
    """Why standard input cannot be read, as far as that can be known before; empty: it can."""
    try:
        descriptor = sys.stdin.fileno()
    except (AttributeError, OSError, ValueError):
        # None; or a stream of Python's own, which is read as it is.
        return "it is closed" if sys.stdin is None else ""
    if stat.S_ISDIR(os.fstat(descriptor).st_mode):
        return "it is a directory"
    mode = fcntl.fcntl(descriptor, fcntl.F_GETFL) & os.O_ACCMODE
    return "it is closed" if mode == os.O_WRONLY else ""


def _reopen(descriptor: int, flags: int) -> None:
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, flags)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _text(raw: Output, before: TextIO | None) -> TextIO:
    # A character that the encoding has not is no reason to lose the rest.
    return io.TextIOWrapper(
        io.BufferedWriter(raw, BUFFER_BYTES),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=raw.isatty(),
        newline="\n",
    )


def _stdin(before: TextIO | None) -> TextIO:
    return io.TextIOWrapper(
        io.BufferedReader(Input(0), BUFFER_BYTES),
        encoding=getattr(before, "encoding", None) or "utf-8",
        errors="surrogateescape",
    )


_done: list[str] = []
"""What the command has done, whatever becomes of the rest of it: reported on standard error when its answer
is lost, so that nobody repeats it because of that."""


def forget_done() -> None:
    """A command begins: it has done nothing."""
    _done.clear()


def done(what: str) -> None:
    """From here on `what` is so, a sentence that names it by its id."""
    _done.append(what)


def all_done() -> list[str]:
    """What was done so far, in its order."""
    return list(_done)
