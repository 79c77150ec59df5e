"""Text from outside made safe: to show on a terminal, to store in a database. Pure."""

import json
import re
from decimal import Decimal
from typing import Any

_UNSAFE = (
    "\x00-\x08\x0b-\x1f\x7f-\x9f"  # C0 but tab and line feed, DEL, C1: escape sequences begin here
    "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"  # text that is read in another order than it stands in
    "\u2028\u2029"  # line ends that few expect
    "\ud800-\udfff"  # no character, and in no encoding
)
USABLE_CHARS_MIN = 20
"""Where nothing else is said, an answer with less text is too short to use (domain/answer_text.py)."""
_HOSTILE = re.compile(f"[{_UNSAFE}]")
MESSAGE_CHARS_MAX = 1_000
"""Longest message of the provider's, or of an error, that is stored alongside a task."""


def sanitize(text: str) -> str:
    r"""The text with each of these characters written out, such as \x1b; a line's end of CR LF is one."""
    if text.isascii() and text.isprintable():
        return text
    return _HOSTILE.sub(_escaped, text.replace("\r\n", "\n"))


def sanitize_json(text: str) -> str:
    r"""The same for a JSON text, whose value stays what it is: inside its strings \u009b says as much."""
    return text if text.isascii() else _HOSTILE.sub(_json_escaped, text)


def json_text(document: Any, encoding: str, *, indent: int | None = None) -> str:
    """A document as JSON that any terminal may show and `encoding` can hold; readable where it can be."""
    text = sanitize_json(json.dumps(document, ensure_ascii=False, default=str, indent=indent))
    try:
        text.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return json.dumps(document, default=str, indent=indent)
    return text


def counted(count: int | float | Decimal | str | None, one: str, many: str = "") -> str:
    """`1 task`, `1,200 tasks`; `many` where an s does not make it. A text, such as a range, stays as it is;
    None is not known."""
    figure = "unknown" if count is None else count if isinstance(count, str) else f"{count:,}"
    return f"{figure} {one if figure == '1' else many or one + 's'}"


def agreeing(count: int | float | Decimal, one: str = "is", many: str = "are") -> str:
    """The verb, or what else goes by the number of what is counted."""
    return one if count == 1 else many


def storable(text: str, chars_max: int | None = None) -> str:
    """Text that every database takes: NUL and lone surrogates are spelled out. One value that a database
    refuses would take the records of its whole group with it. The bound is of what is stored."""
    # Cut before too, so that a long text costs no more than a short one: spelling out only adds characters.
    return text[:chars_max].replace("\x00", "\\0").encode("utf-8", "backslashreplace").decode()[:chars_max]


def storable_message(text: str | None) -> str | None:
    """A code or message as it is stored alongside a task: storable and bounded; None stays null."""
    return None if text is None else storable(text, MESSAGE_CHARS_MAX)


def one_line(text: str) -> str:
    """Printable characters on one line: no control, no escape, nothing that turns the writing direction."""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def printable(text: str) -> str:
    """Each character that cannot be printed as a question mark."""
    return "".join(c if c.isprintable() else "?" for c in text)


def printable_ascii(text: str) -> str:
    """Each character but printable ASCII as a question mark."""
    if text.isascii() and text.isprintable():
        return text  # without a look at each character: every header of a delivery comes by here
    return "".join(c if " " <= c <= "~" else "?" for c in text)


def _escaped(found: re.Match[str]) -> str:
    number = ord(found[0])
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}"


def _json_escaped(found: re.Match[str]) -> str:
    # A control character of ASCII stands outside of strings only, as white space: those inside are escaped.
    return found[0] if found[0].isascii() and found[0] != "\x7f" else f"\\u{ord(found[0]):04x}"
