"""A stored task as a record of an input file again: reading it gives the same task. The other direction of
`read_record`.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from app.domain.own_columns import PREFIX, own_values
from app.domain.task import TaskSpec
from app.prompts.columns import is_taken_as_own
from app.prompts.record import Defaults, read_record


class Stored(NamedTuple):
    """What of a task makes its record."""

    task_type: str
    payload: Mapping[str, object]
    priority: int
    custom_id: str | None
    metadata: str | None
    repeats: int | None = None
    """Samples to ask for; None: its record says nothing of them."""


class CannotSay(Exception):  # noqa: N818 - of a format, not a fault
    """A table of texts cannot say what this task asks."""


def json_record(stored: Stored) -> dict[str, object]:
    """For JSON Lines, as msgspec writes it: everything as it was, own columns to the digit."""
    custom_id = {"custom_id": stored.custom_id} if stored.custom_id is not None else {}
    repeats = {"repeats": stored.repeats} if stored.repeats is not None else {}
    ours = custom_id | {"task_type": stored.task_type, **stored.payload, "priority": stored.priority}
    ours |= repeats
    return ours | {own_name(name, ours): value for name, value in own_values(stored.metadata).items()}


def csv_record(stored: Stored) -> dict[str, str]:
    """The cells of ours for CSV; own columns are texts and stand behind them. Raises CannotSay."""
    fields = {"custom_id": stored.custom_id, "task_type": stored.task_type, **stored.payload}
    cells = {name: _cell(value) for name, value in fields.items() if value is not None}
    cells["priority"] = str(stored.priority)
    if stored.repeats is not None:
        cells["repeats"] = str(stored.repeats)
    read = read_record(0, cells, Defaults())
    asked = (stored.task_type, stored.payload, stored.priority)
    if not isinstance(read, TaskSpec) or (read.task_type, read.payload, read.priority) != asked:
        raise CannotSay
    return cells


def own_name(own: str, columns: Iterable[str]) -> str:
    """How an own column is called in a record that has `columns` too, so that it is read as one."""
    return own if is_taken_as_own(own, columns) else PREFIX + own


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return "|".join(value)
    return value if isinstance(value, str) else msgspec.json.encode(value).decode()
