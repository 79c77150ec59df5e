"""What pruning dropped, or would drop, as a JSON document."""

from collections import Counter
from collections.abc import Mapping, Sequence

from app.domain.credits import to_json_number
from app.domain.text import agreeing, counted
from app.domain.time_format import iso_utc
from app.store.write.receipts import Dropped
from app.views.runs import Document


def prune_document(
    found: Sequence[Dropped], policy: Mapping[str, int], *, dry_run: bool, held: Mapping[int, str]
) -> Document:
    """Each kind and day of which something goes or stays in spite of its age, and all in a sentence. `held`:
    days of which nothing went for the archive's sake, and why."""
    return {
        "policy": dict(policy),
        "dry_run": dry_run,
        "days": [_day_document(one) for one in found],
        "held_up": [{"day": _day(day_ms), "reason": reason} for day_ms, reason in sorted(held.items())],
        "message": _sentence(found, policy, dry_run=dry_run),
    }


def _day_document(dropped: Dropped) -> Document:
    return {
        "kind": dropped.kind.value,
        "day": _day(dropped.day_ms),
        "rows": dropped.rows,
        "bytes": dropped.body_bytes,
        "credits_charged": to_json_number(dropped.credits_charged),
        "kept": {reason.value: count for reason, count in sorted(dropped.kept.items())},
    }


def _day(day_ms: int) -> str:
    return str(iso_utc(day_ms))[:10]


def _sentence(found: Sequence[Dropped], policy: Mapping[str, int], *, dry_run: bool) -> str:
    if not policy:
        return "Nothing is pruned: no policy is set (TALLYHOOK_KEEP_BODIES_DAYS and its like)."
    rows, size = sum(one.rows for one in found), sum(one.body_bytes for one in found)
    kept = sum((one.kept for one in found), Counter())
    stay = ", ".join(f"{count:,} {reason.value}" for reason, count in sorted(kept.items()))
    verb = "would go" if dry_run else f"{agreeing(rows)} gone, with receipts" if rows else "went"
    old_are = agreeing(kept.total(), "that is as old stays", "that are as old stay")
    old = f" {kept.total():,} {old_are} ({stay})." if kept else ""
    return f"{counted(rows, 'row')} with {counted(size, 'byte')} {verb}.{old}"
