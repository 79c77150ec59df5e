"""A file that is there whole or not at all, whatever happens while it is written."""

import contextlib
import errno
import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.errors import FAILED, USAGE, UserError

UNWRITABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})
"""Of the file, and never of a database connection, whose errors pass through."""
PLACE_ERRORS = frozenset({errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP})
READER_WAIT_S = 10.0
"""For a pipe's reader, that may be started after us."""
READER_POLL_S = 0.05

NAME_CHARS_MAX = 50
"""Of the file's name in that of its part: a name may have 255 bytes, and be of characters of four."""


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to. It takes the place of `path` when the block ends well and its bytes are on the
    disk; otherwise what was at `path` stays. A pipe or a device is written to as it is: there is nothing to
    replace, and its place must not be taken. Raises UserError when it cannot be written."""
    with writing(str(path)):
        if path.exists() and not path.is_file():
            with _open_pipe(path) if path.is_fifo() else path.open("wb") as output:
                yield output
        else:
            # Of a link, what it leads to. By `realpath`: what goes round in a circle is no bug of ours.
            with _replacing(Path(os.path.realpath(path))) as output:
                yield output


def _open_pipe(path: Path) -> BinaryIO:
    """A named pipe, once somebody reads it. Raises UserError where nobody does: it would wait for ever."""
    until_s = time.monotonic() + READER_WAIT_S
    while True:
        try:
            descriptor = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            if time.monotonic() > until_s:
                raise UserError(
                    "unwritable", f"nobody reads the pipe {path}", "start its reader first", exit_code=USAGE
                ) from error
            time.sleep(READER_POLL_S)
        else:
            os.set_blocking(descriptor, True)
            return os.fdopen(descriptor, "wb")


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    # Ours alone, and new: a name that somebody else could foresee and make a link of, and a file that others
    # could read, would give prompts and answers away.
    part = path.with_name(f"{path.name[:NAME_CHARS_MAX]}.{secrets.token_hex(8)}.part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


def _place_for(name: str) -> str:
    """What to do about a file that cannot be made where it was asked for."""
    folder = Path(name).absolute().parent
    if not folder.exists():
        return f"make its directory: mkdir -p {folder}"
    if Path(name).is_dir():
        return "it is a directory: name a file in it"
    return "choose a place that this user may write to"


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Says what is wrong when `name` cannot be written: raises UserError. Other errors pass through."""
    try:
        yield
    except OSError as error:
        if isinstance(error, UNWRITABLE):
            raise UserError(
                "unwritable", f"cannot write {name}: {error.strerror}", _place_for(name), exit_code=USAGE
            ) from error
        if error.errno in PLACE_ERRORS:
            raise UserError(
                "unwritable",
                f"cannot write {name}: {error.strerror}",
                "choose another place",
                exit_code=USAGE,
            ) from error
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(
            "unwritable",
            f"cannot write {name}: {error.strerror}",
            "free some space, or choose another place",
            exit_code=FAILED,
        ) from error
