"""Verifying the settle sequence: the numbers of results, by which others read on. Reads no database."""

from collections.abc import Iterable, Iterator

from app.domain.verification.comparison import Difference, display
from app.domain.verification.stored_rows import Misnumbered, TaskBooks


def task_sequence(books: TaskBooks) -> Iterator[Difference]:
    """An attempt that was settled before the next one was sent has the lower number. What came later, for
    one that had expired or was refused, may have any."""
    attempts = {row["attempt"]: row for row in (*books.attempts, books.task)}
    seqs = {row["attempt"]: row["seq"] for row in books.results if row["seq"] is not None}
    for n, seq in seqs.items():
        later = attempts.get(n + 1)
        if later is None or (after := seqs.get(n + 1)) is None or n not in attempts:
            continue
        settled, sent = attempts[n]["settled_at_ms"], later["first_sent_at_ms"]
        if settled is not None and sent is not None and settled < sent and seq > after:
            why = f"attempt {n + 1} was sent after this result was stored"
            yield Difference("results", _key(books.task["id"], n), "seq", display(seq), f"below {after}", why)


def misnumbered_differences(found: Iterable[Misnumbered]) -> Iterator[Difference]:
    """What the database found to be wrong among all numbers."""
    for one in found:
        key = _key(one.task_id, one.attempt)
        yield Difference("results", key, "seq", display(one.seq), one.should_be, one.why)


def _key(task_id: str, attempt: int) -> str:
    return f"{task_id}.{attempt}"
