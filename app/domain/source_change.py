"""A source read again must have the records that it had before: the comparison, record by record, and its
refusal."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from app.domain.own_columns import OwnColumns
from app.domain.task import TaskSpec

OwnText = tuple[str | None, str | None]
"""(custom_id, metadata)."""


class StoredRecord(NamedTuple):
    """What a run holds of one record of its source."""

    fingerprint: str | None
    """None only on rows older than fingerprints; one that cannot be compared counts as another."""
    priority: int
    reused: bool = False
    own: OwnText | None = None
    repeats: int | None = None
    """Of a record that asks for several samples, on its first one."""


def own_text(own: OwnColumns | None) -> OwnText | None:
    """What of a record's own columns is stored, as it is compared; None: nothing."""
    return None if own is None else (own.custom_id, own.metadata)


class SourceChanged(Exception):  # noqa: N818 - the caller's file changed; nothing of ours is wrong
    """The source is not the one that the run was made from. `record`: number of the first that differs."""

    def __init__(self, record: int, what: str) -> None:
        super().__init__(f"record {record} {what}")
        self.record = record


def refuse_difference(
    specs: Sequence[TaskSpec], stored: Mapping[int, StoredRecord], *, missing: str | None
) -> None:
    """Raises SourceChanged for the first record in which a chunk of the source differs from what is stored.

    `specs` are all good records of the chunk, `stored` all that the run holds of it by ordinal. `missing`
    says what it means that one of `specs` is not stored; None: that it may be stored now.
    """
    by_ordinal = {spec.ordinal: spec for spec in specs}
    surplus = 0  # ordinals that samples before took, beyond one for each record
    for ordinal in sorted(by_ordinal.keys() | stored.keys()):
        spec, before = by_ordinal.get(ordinal), stored.get(ordinal)
        surplus = surplus if spec is None or not spec.record else spec.first_ordinal - spec.record
        if spec is None:
            raise SourceChanged(
                ordinal - surplus, "is in the run, and is bad, repeated or gone in the file now"
            )
        what = missing if before is None else _difference(spec, before)
        if what is not None:
            raise SourceChanged(spec.record or ordinal, what)


def _difference(spec: TaskSpec, before: StoredRecord) -> str | None:
    if before.fingerprint != spec.fingerprint():
        return "asks something else than what is in the run"
    if before.priority != spec.priority:
        return f"has priority {spec.priority}, in the run {before.priority}"
    is_first = spec.sample == 1
    if before.repeats != (spec.repeats if is_first and spec.repeats > 1 else None):
        return "asks for another number of samples than in the run"
    if before.own != (own_text(spec.own) if is_first else None):
        return "has another custom_id or other own columns than in the run"
    return None
