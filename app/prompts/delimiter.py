"""What separates the columns of a CSV: as its author says, else what makes known names of its header."""

import csv
import io
import itertools
import re
from collections.abc import Iterator
from typing import NamedTuple

from app.domain.own_columns import PREFIX
from app.prompts.columns import find_column, is_asked
from app.quoting import in_quotes

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
WORDS = {"comma": ",", "semicolon": ";", "tab": "\t", "\\t": "\t", "bar": "|", "pipe": "|", "space": " "}
ROWS_LOOKED_AT = 1_000
SEP = re.compile(r'"?sep=(.)"?[\s,;]*', re.IGNORECASE)
"""Excel's own first line, which says what follows."""


class Delimiter(NamedTuple):
    """A sign, and why it is that one."""

    sign: str
    why: str = ""
    """Empty: nothing that has to be said."""
    says_itself: bool = False
    """The first line says it, and is no header."""


def read_delimiter(text: str) -> str | None:
    """The sign meant by itself or by its name; None for what can be no delimiter."""
    sign = WORDS.get(text.lower(), text)
    fits = len(sign) == 1 and sign.isascii() and not sign.isalnum() and sign not in "\"'\r\n_\0"
    return sign if fits else None


def delimiter_problem(text: str) -> tuple[str, str]:
    """(what is wrong, remedy) of a text that read_delimiter does not know."""
    return (
        f"{in_quotes(text)} separates no columns",
        "use one sign such as ; or a name: comma, semicolon, tab, bar",
    )


def shown(sign: str) -> str:
    """As a sentence names several of them."""
    return DELIMITERS.get(sign) or repr(sign)


def find_delimiter(head: str, forced: str | None, default: str) -> Delimiter:
    """Of a text that begins with `head`, its header first. `default`: where nothing separates anything."""
    head = head.lstrip("\r\n")
    named = SEP.fullmatch(head.split("\n", 1)[0].split("\r", 1)[0])
    if forced is not None:
        return Delimiter(forced, says_itself=named is not None)
    if named is not None:
        return Delimiter(named[1], says_itself=True)
    signs = sorted(DELIMITERS, key=lambda sign: sign != default)
    best = max(signs, key=lambda sign: _known_names(head, sign))
    if _known_names(head, best) == _known_names(head, default) == 1 and _is_one_column(head, signs):
        return _of_one_column(head, signs)
    return Delimiter(best, "" if best == default else f"columns separated by {shown(best)}")


def _known_names(head: str, sign: str) -> int:
    return sum(map(_is_known, next(_rows(head, sign), [])))


def _is_known(name: str) -> bool:
    """Whether it is, or may be meant for, one of ours."""
    found = find_column(name) if name.strip() else PREFIX
    return not found.startswith(PREFIX) if isinstance(found, str) else is_asked(found)


def _is_one_column(head: str, signs: list[str]) -> bool:
    return all(len(next(_rows(head, sign), [])) == 1 for sign in signs)


def _of_one_column(head: str, signs: list[str]) -> Delimiter:
    # A list of texts under one name: whoever wrote it had no columns to separate, and its texts have commas.
    whole = (sign for sign in signs if all(len(row) < 2 for row in _rows(head, sign)))
    sign = next(whole, signs[0])
    why = f"one column, whose texts may have {shown(signs[0])} in them" if sign != signs[0] else ""
    return Delimiter(sign, why)


def _rows(head: str, sign: str) -> Iterator[list[str]]:
    rows = csv.reader(io.StringIO(head, newline=""), delimiter=sign)
    try:
        yield from itertools.islice(rows, ROWS_LOOKED_AT)
    except csv.Error:
        return
