"""What a sample of a run comes to: how long answers took, when they came, why tasks failed, what the money
bought. Pure. Every figure says of how many tasks it knows.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.task import OPEN_STATES, TaskState
from app.store.read.breakdown import BUCKETS_MS
from app.store.read.run_samples import SampledTask

PERCENTILES = (50, 95, 99)
COLUMNS = 30
"""Of a chart over time, at most."""
STEPS_MS = tuple(
    s * 1_000 for s in (1, 2, 5, 10, 30, 60, 300, 900, 1_800, 3_600, 10_800, 43_200, 86_400, 604_800)
)


@dataclass(slots=True)
class Bought:
    """What the tasks of one kind came to."""

    tasks: int = 0
    answered: int = 0
    usable: int = 0
    failed: int = 0
    charged: Decimal = Decimal(0)
    unknown: int = 0
    """Closed, and no report has said what was charged."""
    took_ms: list[int] = field(default_factory=list)

    def add(self, task: SampledTask, usable_chars_min: int) -> None:
        """Count one task."""
        self.tasks += 1
        is_answered = task.state == TaskState.COMPLETED
        self.answered += is_answered
        self.usable += is_answered and (task.chars or 0) >= usable_chars_min
        self.failed += task.state not in OPEN_STATES and not is_answered
        self.charged += task.charged or 0
        self.unknown += task.verdict == "unknown"
        if (took := took_of(task)) is not None:
            self.took_ms.append(took)

    @property
    def per_usable(self) -> Decimal | None:
        """Credits for each answer that can be used; None: there is none."""
        return (self.charged / self.usable).quantize(Decimal("0.01")) if self.usable else None


def took_of(task: SampledTask) -> int | None:
    """From acceptance to settlement; a report may overtake our record of the acceptance."""
    if task.submitted_at_ms is None or task.settled_at_ms is None or task.is_reused:
        return None
    return max(0, task.settled_at_ms - task.submitted_at_ms)


def percentile(values: Sequence[int], percent: int) -> int | None:
    """Nearest-rank; None of nothing."""
    ordered = sorted(values)
    return ordered[(len(ordered) * percent + 99) // 100 - 1] if ordered else None


def bought_by(
    tasks: Sequence[SampledTask], usable_chars_min: int, *, by_country: bool
) -> Mapping[str, Bought]:
    """By engine, or by country: "" where the provider chose."""
    found: defaultdict[str, Bought] = defaultdict(Bought)
    for task in tasks:
        found[(task.country or "") if by_country else task.task_type].add(task, usable_chars_min)
    return dict(sorted(found.items()))


def reasons(tasks: Sequence[SampledTask]) -> list[tuple[str, str, int]]:
    """(state, code, tasks) of what is closed without an answer, the most frequent first."""
    closed = Counter(
        (task.state, task.error_code or "")
        for task in tasks
        if task.state not in OPEN_STATES and task.state != TaskState.COMPLETED
    )
    return [(*key, count) for key, count in closed.most_common()]


@dataclass(frozen=True, slots=True)
class OverTime:
    """Answers that came in each step of time."""

    step_ms: int
    starts_ms: Sequence[int]
    by_engine: Mapping[str, Sequence[int]]


def over_time(tasks: Sequence[SampledTask]) -> OverTime | None:
    """None: nothing has come yet."""
    came = [(task.settled_at_ms, task.task_type) for task in tasks if task.settled_at_ms is not None]
    if not came:
        return None
    first, last = min(came)[0], max(came)[0]
    step = next((s for s in STEPS_MS if (last - first) // s < COLUMNS), STEPS_MS[-1])
    first_step, steps = first // step, last // step - first // step + 1
    by_engine = {engine: [0] * steps for engine in sorted({engine for _, engine in came})}
    for at_ms, engine in came:
        by_engine[engine][at_ms // step - first_step] += 1
    return OverTime(step, [(first_step + n) * step for n in range(steps)], by_engine)


def by_latency(tasks: Sequence[SampledTask]) -> list[tuple[int | None, dict[str, int]]]:
    """(below so many ms; None: above all), tasks by engine; from the first class with a task to the last."""
    classes: dict[int | None, Counter[str]] = {below: Counter() for below in (*BUCKETS_MS, None)}
    for task in tasks:
        if (took := took_of(task)) is not None:
            classes[next((below for below in BUCKETS_MS if took < below), None)][task.task_type] += 1
    rows = [(below, dict(counts)) for below, counts in classes.items()]
    used = [n for n, (_, counts) in enumerate(rows) if counts]
    return rows[used[0] : used[-1] + 1] if used else []
