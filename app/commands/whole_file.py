"""A file that is there whole or not at all, whatever happens while it is written."""

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from app.commands.user_error import FAILED, USAGE, UserError

UNWRITABLE = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, FileExistsError)
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EROFS, errno.ENAMETOOLONG})
"""Of the file, and never of a database connection, whose errors pass through."""


NAME_CHARS_MAX = 50
"""Of the file's name in that of its part: a name may have 255 bytes, and be of characters of four."""


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
