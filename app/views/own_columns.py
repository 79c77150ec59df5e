"""Own columns of a task as they are given back: as JSON to the digit, and as the cells of a table."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from app.domain.own_columns import PREFIX, own_values


def own_object(metadata: str | None) -> msgspec.Raw | None:
    """For a JSON document that msgspec writes: the text as it is kept."""
    return None if metadata is None else msgspec.Raw(metadata.encode())


def table_names(own: Sequence[str], columns: Iterable[str]) -> list[str]:
    """How own columns are called in a table that has columns of ours: by their own names, but with PREFIX
    where one of ours has that name in any letter case, since many readers do not tell these apart."""
    taken = {column.casefold() for column in columns}
    return [PREFIX + name if name.casefold() in taken else name for name in own]


def own_cells(metadata: str | None, own: Sequence[str]) -> list[str | None]:
    """The cells of a table: a text as it is, anything else as its JSON. None where a task has no such column,
    or null."""
    if not own:
        return []
    values = own_values(metadata)
    return [_cell(values.get(name)) for name in own]


def _cell(value: Any) -> str | None:
    if value is None or (text := bytes(value)) == b"null":
        return None
    return _STRING.decode(text) if text.startswith(b'"') else text.decode()


_STRING = msgspec.json.Decoder(str)
