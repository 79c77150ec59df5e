"""Pages of a list: opaque cursors, no totals. A list is given in the order of one index, and a cursor is the
place in it behind which the next page begins; what is added meanwhile moves nothing.
"""

import base64
import binascii
import json
from collections.abc import Callable, Sequence
from typing import Annotated, Generic, TypeVar

from pydantic import BaseModel, Field

from app.api.fields import Whole, is_id
from app.api.problems import invalid
from app.api.route import Params

LIMIT_MAX = 1_000
LIMIT = 100
CURSOR_CHARS_MAX = 200
"""A whole request line has 8,190 bytes in aiohttp."""

T = TypeVar("T")
R = TypeVar("R")
Key = str | int
"""Texts are ids."""


class Page(BaseModel, Generic[T]):
    """A part of a list."""

    data: list[T]
    next_cursor: str | None = Field(description="Of the page behind this one; null: this is the last one.")


class PageParams(Params):
    """What every list takes."""

    limit: Annotated[Whole, Field(ge=1, le=LIMIT_MAX, description="How many, at most.")] = LIMIT
    cursor: Annotated[
        str | None,
        Field(
            max_length=CURSOR_CHARS_MAX,
            pattern="^[A-Za-z0-9_-]+$",
            description="`next_cursor` of the page before.",
        ),
    ] = None


def write_cursor(kind: str, *keys: Key) -> str:
    """A cursor of one kind of list."""
    text = json.dumps([kind, *keys], separators=(",", ":"))
    return base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")


def read_cursor(cursor: str | None, kind: str, *types: type[Key]) -> list[Key] | None:
    """The keys of a cursor; None for the first page. Raises Problem for one that is not of this list."""
    if cursor is None:
        return None
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        found, *keys = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except (ValueError, TypeError, RecursionError, binascii.Error):
        raise _wrong() from None
    if found != kind or [type(key) for key in keys] != list(types) or write_cursor(kind, *keys) != cursor:
        raise _wrong()
    if not all(is_id(key) if isinstance(key, str) else 0 <= key < 1 << 63 for key in keys):
        raise _wrong()
    return list(keys)


def _wrong() -> Exception:
    return invalid("cursor", "invalid_cursor", "give next_cursor of a page of this list, or leave it out")


def page_of(
    rows: Sequence[R], limit: int, kind: str, *, key: Callable[[R], Sequence[Key]], model: Callable[[R], T]
) -> Page[T]:
    """A page of rows, of which one more than `limit` was read. `key`: what the next page begins behind."""
    shown = rows[:limit]
    more = write_cursor(kind, *key(shown[-1])) if len(rows) > limit else None
    return Page(data=[model(row) for row in shown], next_cursor=more)
