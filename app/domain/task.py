"""A task and its states: one prompt for one engine in one country (docs/architecture.md).

May not do I/O, read a clock or log.
"""

import hashlib
import json
import os
import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

from app.domain.own_columns import OwnColumns

REPEATS_MAX = 1_000
"""Samples of one record. So many tell a share of the answers to 3 points (95 %, 1/sqrt(N)); for half of that
one would pay for four times as many. More is a mistyped number, and would cost as such."""


class TaskState(StrEnum):
    """Where a task's work stands. The money of an attempt has a machine of its own, `Money`."""

    PENDING = "pending"
    SUBMITTING = "submitting"
    SUBMITTED = "submitted"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    EXPIRED = "expired"
    CANCELLED = "cancelled"


OPEN_STATES = frozenset({TaskState.PENDING, TaskState.SUBMITTING, TaskState.SUBMITTED})
"""States in which work is still to be done; a run is finished when none of its tasks is in one."""

RETRYABLE_STATES = frozenset({TaskState.FAILED, TaskState.EXPIRED, TaskState.REJECTED})
"""States from which a task may be sent again: same row, next attempt, new key."""


class Money(StrEnum):
    """Where the credits of one attempt stand: hold, then exactly one of post or void."""

    NONE = "none"
    HELD = "held"
    POSTED = "posted"
    VOIDED = "voided"


class RunState(StrEnum):
    """What a run may do."""

    LOADING = "loading"  # rows are still being read in; nothing is sent yet
    RUNNING = "running"
    PAUSED = "paused"  # out of credits, or the budget is reached; may go on later
    STOPPED = "stopped"  # a fault that needs a person: bad key, key collision
    CANCELLED = "cancelled"
    FINISHED = "finished"  # none of its tasks is open; marked within seconds, and undone by a retry


@dataclass(frozen=True, slots=True)
class TaskSpec:
    """One valid input line: what to ask, before it has an id."""

    ordinal: int
    """1-based number of the task in its source, part of its identity within the run: that of its record, as
    long as no record before it asks for several samples."""
    task_type: str
    payload: dict[str, object]
    """The body of the matching provider endpoint (C-K)."""
    priority: int = 1
    """1 to 10, higher is served first (C-G.1)."""
    own: OwnColumns | None = None
    """What is kept for the record's author. No part of what is asked, so not of the fingerprint either."""
    repeats: int = 1
    """Samples that its record asks for, each a task with a key of its own."""
    sample: int = 1
    """Which of them this is; their ordinals follow each other."""
    record: int = 0
    """1-based number of the record in its source; 0: its ordinal."""

    @property
    def first_ordinal(self) -> int:
        """Of its record's first sample."""
        return self.ordinal - self.sample + 1

    def samples(self) -> Iterator["TaskSpec"]:
        """All samples of the record of which this is the first."""
        yield self
        for n in range(1, self.repeats):
            record = self.record or self.ordinal
            yield replace(self, ordinal=self.ordinal + n, sample=1 + n, record=record)

    def fingerprint(self) -> str:
        """Equal for equal questions: engine, prompt, country and options, whatever their order."""
        canonical = _CANONICAL.encode([self.task_type, self.payload])
        return hashlib.sha256(canonical.encode()).hexdigest()[:32]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"))
"""Kept: to make one takes as long as to write a task."""
_RANDOM_BYTES = 10
_AT_ONCE = 200
_drawn: deque[int] = deque()
if hasattr(os, "register_at_fork"):  # not on Windows
    os.register_at_fork(after_in_child=_drawn.clear)


def _random_bits() -> int:
    """80 bits of the operating system's. In blocks: asking it costs more than all else of an id."""
    while True:
        try:
            return _drawn.pop()
        except IndexError:
            block = os.urandom(_RANDOM_BYTES * _AT_ONCE)
            starts = range(0, len(block), _RANDOM_BYTES)
            _drawn.extend(int.from_bytes(block[start : start + _RANDOM_BYTES]) for start in starts)


def new_id(now_ms: int, random_bits: int | None = None) -> str:
    """A UUIDv7 (RFC 9562) in canonical text: ordered by `now_ms`, so that index inserts stay local.

    `random_bits` (74 bits used) is an argument for tests; None draws it from the operating system.
    """
    bits = _random_bits() if random_bits is None else random_bits
    value = (now_ms & (1 << 48) - 1) << 80
    value |= 0x7 << 76 | ((bits >> 62) & 0xFFF) << 64
    value |= 0b10 << 62 | bits & (1 << 62) - 1
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


_KEY = re.compile(r"([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})\.([0-9]{1,6})")


def idempotency_key(task_id: str, attempt: int) -> str:
    """The key under which an attempt is sent. Made from the row's own id, so a delivery that carries it
    finds its row even when the submit response was lost, and no other environment can collide with it."""
    return f"{task_id}.{attempt}"


def parse_idempotency_key(key: str) -> tuple[str, int] | None:
    """(task id, attempt) of a key of ours; None for anybody else's."""
    found = _KEY.fullmatch(key)
    return None if found is None else (found[1], int(found[2]))
