"""A file that is there whole or not at all, whatever happens while it is written."""

import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.commands.user_error import FAILED, USAGE, UserError

UNWRITABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENAMETOOLONG})
"""Of the file, and never of a database connection, whose errors pass through."""


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write to. It takes the place of `path` when the block ends well and its bytes are on the
    disk; otherwise what was at `path` stays. A pipe or a device is written to as it is: there is nothing to
    replace, and its place must not be taken. Raises UserError when it cannot be written."""
    with writing(str(path)):
        if path.exists() and not path.is_file():
            with path.open("wb") as output:
                yield output
        else:
            with _replacing(path.resolve()) as output:  # of a link, what it leads to
                yield output


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[BinaryIO]:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as output:
            yield output
            output.flush()
            os.fsync(output.fileno())
        part.replace(path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink()


@contextlib.contextmanager
def writing(name: str) -> Iterator[None]:
    """Says what is wrong when `name` cannot be written: raises UserError. Other errors pass through."""
    try:
        yield
    except OSError as error:
        if isinstance(error, UNWRITABLE):
            raise UserError(
                "unwritable", f"cannot write {name}: {error.strerror}", exit_code=USAGE
            ) from error
        if error.errno not in DISK_ERRORS:
            raise
        raise UserError(
            "unwritable", f"cannot write {name}: {error.strerror}",
            "free some space, or choose another place", exit_code=FAILED,
        ) from error  # fmt: skip
