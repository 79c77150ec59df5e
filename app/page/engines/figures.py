"""What days of an engine come to. Pure."""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from decimal import Decimal

from app.store.read.breakdown import BUCKETS_MS
from app.store.write.engine_days import UNKNOWN_CLASS, EngineDay


@dataclass(slots=True)
class Figures:
    """Sums over days, or of one."""

    answers: int = 0
    completed: int = 0
    usable: int = 0
    charged: Decimal = Decimal(0)
    charge_known: int = 0
    classes: dict[int, int] = field(default_factory=lambda: defaultdict(int))

    def add(self, day: EngineDay) -> None:
        """Count it in."""
        self.answers += day.answers
        self.completed += day.completed
        self.usable += day.usable
        self.charged += day.charged
        self.charge_known += day.charge_known
        self.classes[day.latency_class] += day.answers

    @property
    def timed(self) -> int:
        """Answers of which it is known how long they took."""
        return sum(count for latency, count in self.classes.items() if latency != UNKNOWN_CLASS)

    def within_ms(self, percent: int) -> int | None:
        """A bound within which so many percent of the answers came; None: nothing is known, or above all."""
        wanted, seen = -(-self.timed * percent // 100), 0
        for latency, bound_ms in enumerate(BUCKETS_MS):
            seen += self.classes.get(latency, 0)
            if self.timed and seen >= wanted:
                return bound_ms
        return None

    @property
    def per_usable(self) -> Decimal | None:
        """Credits for each usable answer, to a hundredth, as a run's page has it; None: there is none, or
        no charge is known."""
        if not self.usable or not self.charge_known:
            return None
        return round(self.charged / self.usable, 2)


@dataclass(slots=True)
class Engine:
    """One engine: the sum of its days, and each of them."""

    task_type: str
    all: Figures = field(default_factory=Figures)
    days: dict[int, Figures] = field(default_factory=lambda: defaultdict(Figures))


def by_engine(days: Iterable[EngineDay]) -> list[Engine]:
    """In the order of their names."""
    found: dict[str, Engine] = {}
    for day in days:
        engine = found.setdefault(day.task_type, Engine(day.task_type))
        engine.all.add(day)
        engine.days[day.day_ms].add(day)
    return [found[name] for name in sorted(found)]
