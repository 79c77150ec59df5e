"""When to ask for a report that is late by the run's own measure, so that a run whose last webhooks were lost
does not wait for the regular poll. Pure: no I/O, no clock.

Only where all but a few reports are in: before that a queue at the provider explains any wait.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

FEW_MIN = 20
FEW_SHARE = 20
"""One in so many of a run's tasks: more than are ever lost one by one."""
FEW_MAX = 5_000
SAMPLE = 300
"""Tasks of a run whose times are read, whatever its size: the 95th percentile of 300 is known to a few per
cent, and the margin is more."""
KNOWN_MIN = 3
"""Times that are something to go by."""
MARGIN = 1.25
LATE_MIN_MS = 5_000
"""The closest that other clients poll one task (C-H)."""
LATE_UNKNOWN_MS = 120_000
"""Where nothing of the run came yet: twice what an engine takes (C-H)."""
EARLY_POLLS_MAX = 4
"""Of one task, further and further apart; then the regular polls go on."""
_GOLDEN = (math.sqrt(5) - 1) / 2


@dataclass(frozen=True, slots=True)
class Late:
    """Which tasks of a run are late."""

    run_id: str
    task_type: str
    waits_ms: Sequence[int]
    """Of waits_ms."""


def few_of(tasks: int) -> int:
    """How many of a run's tasks may be open for the rest to count as in."""
    return min(max(tasks // FEW_SHARE, FEW_MIN), FEW_MAX)


def sampled_ordinals(tasks: int) -> list[int]:
    """Up to SAMPLE of 1 to `tasks`, spread evenly and in step with no pattern of a file."""
    if tasks <= SAMPLE:
        return list(range(1, tasks + 1))
    return sorted({1 + int(tasks * (n * _GOLDEN % 1)) for n in range(SAMPLE)})


def late_after_ms(engine: Sequence[int], run: Sequence[int]) -> int:
    """The age at which a task is late. `engine`, `run`: ms from sending to the report, of the same engine and
    of the whole run, as webhooks brought them."""
    known = next((times for times in (engine, run) if len(times) >= KNOWN_MIN), None)
    if known is None:
        return LATE_UNKNOWN_MS
    p95 = sorted(known)[math.ceil(len(known) * 0.95) - 1]
    return max(round(p95 * MARGIN), LATE_MIN_MS)


def waits_ms(late_ms: int) -> list[int]:
    """By the number of polls that a task has had: how long after the last one, at first after its sending, it
    is asked for."""
    return [late_ms, *(late_ms * 2**polls for polls in range(EARLY_POLLS_MAX - 1))]
