"""Whether there is a file of prompts where one was named, and which one was meant when there is none."""

import difflib
import itertools
from pathlib import Path

from app.cli.streams import stdin_fault
from app.errors import USAGE, UserError

FOLDER_MAX = 2_000
"""Names of a directory that are looked at for one that was meant."""


def refuse_if_not_a_file(path: Path | None) -> None:
    """Raises UserError before anything is stored."""
    if path is None and (fault := stdin_fault()):
        raise UserError("unreadable", f"cannot read standard input: {fault}", exit_code=USAGE)
    if path is None:
        return
    try:
        what = "" if path.is_file() else "is not a file" if path.exists() else "does not exist"
    except OSError as error:  # a name too long
        what = f"is no name of a file: {error.strerror}"
        raise UserError("unreadable", f"{path} {what}", "- reads standard input", exit_code=USAGE) from error
    if what:
        raise UserError("unreadable", f"{path} {what}", _instead_of(path), exit_code=USAGE)


def _instead_of(path: Path) -> str:
    """What to give instead of a path that is no file: one of such a name, or where it goes wrong."""
    if path.is_dir():
        return "give a file in it; - reads standard input"
    folder = path.absolute().parent
    try:
        names = [entry.name for entry in itertools.islice(folder.iterdir(), FOLDER_MAX)]
    except OSError:  # not there, or not for us
        return f"there is no directory {folder} that can be read; - reads standard input"
    by_folded = {name.casefold(): name for name in names}
    near = difflib.get_close_matches(path.name.casefold(), by_folded, n=3)
    if not near:
        return f"see what is there: ls {folder}; - reads standard input"
    return f"did you mean {' or '.join(str(path.with_name(by_folded[name])) for name in near)}?"
