"""In which encoding a text is: as its author says, else by its byte order mark, else by what its head can be.
What can be two things is read as neither.
"""

import codecs
import re
from typing import NamedTuple

from app.quoting import in_quotes

MARKS = (
    (codecs.BOM_UTF8, "utf-8"),
    # Before UTF-16, whose mark is the beginning of this one.
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
WIDTHS = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}
"""Bytes of a unit, where it is not one."""
BY_MARK = {"utf-16": "utf-16-le", "utf-32": "utf-32-le", "utf-8-sig": "utf-8"}
"""What has no byte order by name: Windows' own."""
EXAMPLES = "cp1252, cp1250, cp1251, macroman, shift_jis or utf-16"


class Encoding(NamedTuple):
    """How bytes become text."""

    name: str
    """Of Python's codec."""
    mark: bytes = b""
    """The byte order mark that stands before the text."""
    guessed: bool = False
    """Nothing says so; the head can be read so, and not as UTF-8."""

    @property
    def shown(self) -> str:
        """As people call it."""
        if self.name in WIDTHS:
            bits, order = self.name.split("-")[1:]
            return f"UTF-{bits} ({'little' if order == 'le' else 'big'}-endian)"
        return {"utf-8": "UTF-8", "cp1252": "Windows text (cp1252)"}.get(self.name, self.name)


_OF_STATES = re.compile("escape|iso2022|^hz")
"""What a byte means in these depends on those before it."""


def read_encoding(name: str) -> str | None:
    """The codec of that name, if its lines can be told apart before they are decoded; None for any other."""
    try:
        codec = codecs.lookup(name).name
        ascii_bytes = bytes(range(128))
        plain = not _OF_STATES.search(codec) and codecs.decode(ascii_bytes, codec) == ascii_bytes.decode()
        # Not every codec of texts knows what to do with bytes that are none of its.
        codecs.decode(bytes(range(256)), codec, "replace")
    except Exception:  # of packers it is their own kind of error
        plain = False
        codec = name.lower()
    known = BY_MARK.get(codec, codec)
    return known if plain or known in WIDTHS else None


def encoding_problem(name: str) -> tuple[str, str]:
    """(what is wrong, remedy) of a name that read_encoding does not know."""
    return f"{in_quotes(name)} is no encoding that can be read", f"use utf-8, {EXAMPLES}"


def find_encoding(head: bytes, forced: str | None, *, whole: bool) -> Encoding | None:
    """The encoding of a text that begins with `head`; None where it can be told by nobody. `forced`: as
    read_encoding gives it, believed but for the order of bytes, which the mark says; `whole`: nothing
    follows the head."""
    marked = next((Encoding(name, mark) for mark, name in MARKS if head.startswith(mark)), None)
    if forced is not None:
        same = marked is not None and marked.name[:6] == forced[:6]
        return marked if same else Encoding(forced)
    if marked is not None:
        return marked
    if (unmarked := _utf_16_order(head)) is not None:
        return Encoding(unmarked, guessed=True)
    if _fits_utf_8(head, whole=whole):
        return Encoding("utf-8")
    if _is_mostly_utf_8(head):
        # A few bad bytes in a UTF-8 text: their lines are bad, and the rest is what it says.
        return Encoding("utf-8")
    return Encoding("cp1252", guessed=True) if _is_western(head) else None


def first_bad_byte(head: bytes) -> int:
    """Where a head stops to be UTF-8."""
    try:
        head.decode()
    except UnicodeDecodeError as error:
        return error.start
    return len(head)


def _utf_16_order(head: bytes) -> str | None:
    # Names of columns and braces are ASCII: a unit of each has a NUL. UTF-8 text has none.
    if re.match(rb"(?:[\t\n\r -~]\x00){2}", head):
        return "utf-16-le"
    return "utf-16-be" if re.match(rb"(?:\x00[\t\n\r -~]){2}", head) else None


def _fits_utf_8(head: bytes, *, whole: bool) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head, final=whole)
    except UnicodeDecodeError:
        return False
    return True


def _is_mostly_utf_8(head: bytes) -> bool:
    """Whether its letters of several bytes are as many as its bytes that belong to none. In texts of other
    encodings, two bytes look like a letter now and then."""
    rest, letters = _UTF_8_LETTER.subn(b"", head)
    return letters > 0 and letters >= len(_HIGH.findall(rest))


_HIGH = re.compile(rb"[\x80-\xff]")
_UTF_8_LETTER = re.compile(
    rb"[\xc2-\xdf][\x80-\xbf](?![\x80-\xbf])|[\xe0-\xef][\x80-\xbf]{2}(?![\x80-\xbf])|[\xf0-\xf4][\x80-\xbf]{3}"
)

_ASCII = rb"A-Za-z"
_UPPER = rb"\x8a\x8c\x8e\x9f\xc0-\xd6\xd8-\xde"
_LETTER = rb"\x83\x8a\x8c\x8e\x9a\x9c\x9e\x9f\xaa\xba\xc0-\xd6\xd8-\xf6\xf8-\xff"
_SYMBOL = (
    rb"\x80\x82\x84\x86-\x89\x8b\x93-\x95\x98\x9b"
    rb"\xa1-\xa9\xab\xac\xaf\xb1-\xb3\xb5\xb6\xb8\xb9\xbb-\xbf\xd7\xf7"
)
_NOT_WESTERN = re.compile(
    b"|".join(
        (
            rb"[\x81\x8d\x8f\x90\x9d]",  # no character of cp1252
            rb"[%b]{4}" % _LETTER,  # a word of Cyrillic or Greek; a pair of bytes for each of Japanese
            rb"[%b%b][%b][%b%b]" % (_ASCII, _LETTER, _SYMBOL, _ASCII, _LETTER),  # letters of cp1250, cp850
            rb"[a-z][%b](?![A-Z%b])" % (_UPPER, _UPPER),  # small letters of Mac Roman
            # ł, ą, ż and the like of cp1250; cm³ and m² are none of them.
            rb"[\xaf\xb2\xb3\xb9\xbc-\xbe][%b%b]|[%b][A-Za-ln-z][\xb3\xb9]" % (_ASCII, _LETTER, _ASCII),
        )
    )
)
_STRANGERS = tuple(
    (frozenset(one.encode("cp1252")), frozenset(other.encode("cp1252")))
    for one, other in (
        ("õûÕÛ", "öüÖÜ"),  # ő and ű of Hungarian beside its ö and ü
        ("šž", "èìøùòï"),  # č, ě, ř, ů, ň, ď of Czech and its neighbours
        ("þÞ", "ãÃ"),  # ţ and ă of Romanian
        ("ðýþÐÝÞ", "çüÇÜ"),  # ğ, ı and ş of Turkish
        ("ðþÐÞ", "èøàëÈØÀË"),  # š and ž of Lithuanian and Latvian
    )
)
"""Letters of cp1252 that no language has side by side, and what they stand for where both are in one line."""


def _is_western(head: bytes) -> bool:
    """Whether bytes read as cp1252 look like words of a Western language. Of other encodings, letters come
    out as signs inside of words, as strangers side by side, or whole words as letters that no word has."""
    if _NOT_WESTERN.search(head):
        return False
    for line in head.splitlines():
        used = set() if line.isascii() else set(line)
        if any(one & used and other & used for one, other in _STRANGERS):
            return False
    letters = len(re.findall(rb"[%b]" % _LETTER, head))
    beside = rb"(?<=[%b])[%b]|[%b](?=[%b])" % (_ASCII, _LETTER, _LETTER, _ASCII)
    return 2 * len(re.findall(beside, head)) >= letters
