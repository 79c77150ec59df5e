"""What a record says for its author, taken out of its cells; what cannot be kept is said with its field."""

import json
import re
from collections.abc import Mapping

import msgspec

from app.domain.engines.rules import EngineProblem, display
from app.domain.own_columns import (
    CUSTOM_ID_CHARS_MAX,
    DEPTH_MAX,
    METADATA_BYTES_MAX,
    NAMES_MAX,
    PREFIX,
    OwnColumns,
)
from app.domain.text import sanitize

_JSON_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"')

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def read_own(line: int, custom_id: object, own: Mapping[str, object]) -> OwnColumns | list[EngineProblem]:
    """`own`: by name with PREFIX, a text (CSV) or a JSON value as it was written (msgspec.Raw)."""
    problems = [*_check_custom_id(custom_id), *_check_depths(own)]
    if problems:
        return problems
    metadata = _metadata(own) if own else None
    if metadata is not None and _is_half_a_character(metadata):
        what = "contains half of a character (a lone surrogate)"
        return [EngineProblem("metadata", what, "write the text as UTF-8")]
    if metadata is not None and len(metadata) > METADATA_BYTES_MAX:
        what = f"{len(metadata):,} bytes of own columns, and a record may have {METADATA_BYTES_MAX:,}"
        largest = max(own, key=lambda name: len(_value(own[name]))).removeprefix(PREFIX)
        return [EngineProblem(display(largest)[1:-1], what, "shorten it: it is the longest of them")]
    return OwnColumns(
        line, None if custom_id is None else str(custom_id), metadata.decode() if metadata else None
    )


def too_many_names(name: str) -> EngineProblem:
    """Of the record that brings one own column too many to a source."""
    what = f"own column number {NAMES_MAX + 1} of this file, and a file may have {NAMES_MAX}"
    return EngineProblem(display(name)[1:-1], what, "put what belongs together into one column, as JSON")


def _metadata(own: Mapping[str, object]) -> bytes:
    members = (_string(name.removeprefix(PREFIX)) + b":" + _value(value) for name, value in own.items())
    text = b"{" + b",".join(members) + b"}"
    # Only blanks between tokens go.
    return msgspec.json.format(text, indent=-1) if any(type(v) is msgspec.Raw for v in own.values()) else text


def _is_half_a_character(metadata: bytes) -> bool:
    if not _SURROGATE.search(metadata):
        return False
    try:
        # Numbers are not read: one of many digits would be refused.
        json.dumps(json.loads(metadata, parse_int=str, parse_float=str), ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return True
    return False


def _value(value: object) -> bytes:
    return bytes(value) if isinstance(value, msgspec.Raw) else _string(str(value))


def _string(text: str) -> bytes:
    return json.dumps(text, ensure_ascii=False).encode()


def _check_custom_id(value: object) -> list[EngineProblem]:
    if value is None:
        return []
    if isinstance(value, bool) or not isinstance(value, str | int):
        return [EngineProblem("custom_id", f"{display(value)} is not a text", "write a text")]
    if isinstance(value, int) and abs(value) >= 10**CUSTOM_ID_CHARS_MAX:
        return [EngineProblem("custom_id", "a number of too many digits", "write a shorter one")]
    text = str(value)
    if len(text) > CUSTOM_ID_CHARS_MAX:
        remedy = f"shorten it to {CUSTOM_ID_CHARS_MAX} characters"
        return [EngineProblem("custom_id", f"{len(text):,} characters long", remedy)]
    if sanitize(text) != text or "\n" in text or "\t" in text:
        return [EngineProblem("custom_id", "contains characters that cannot be seen", "remove them")]
    return []


def _check_depths(own: Mapping[str, object]) -> list[EngineProblem]:
    return [
        EngineProblem(
            display(name.removeprefix(PREFIX))[1:-1],
            f"nested more than {DEPTH_MAX} deep",
            "write it flatter, or as a text",
        )
        for name, value in own.items()
        if isinstance(value, msgspec.Raw) and _depth(bytes(value)) > DEPTH_MAX
    ]


def _depth(value: bytes) -> int:
    if not value.startswith((b"[", b"{")):
        return 0
    depth = deepest = 0
    for mark in _JSON_STRING.sub(b"", value):
        if mark in b"[{":
            depth += 1
            deepest = max(deepest, depth)
        elif mark in b"]}":
            depth -= 1
    return deepest
