"""What one process knows of the state of the whole, and shows as long as it is the one to know it."""

import time
from collections.abc import Callable, Iterable, Sequence

from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from app.domain.state_gauges import STATE_GAUGES, Reading


class Board(Collector):
    """Readings by group. Each group is read by the process that holds a lease; when it loses that, or stands
    still, its readings are shown no more, so that nobody takes old ones for new."""

    def __init__(self, *, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._groups: dict[str, tuple[Sequence[Reading], float]] = {}

    def put(self, group: str, readings: Iterable[Reading], *, for_s: float) -> None:
        """Show these in place of the group's last ones, for so long."""
        self._groups[group] = (list(readings), self._monotonic() + for_s)

    def keep(self, group: str, *, for_s: float) -> None:
        """Show the group's readings for longer: they are still true, and still ours to tell."""
        if group in self._groups:
            self._groups[group] = (self._groups[group][0], self._monotonic() + for_s)

    def drop(self, group: str) -> None:
        """Show nothing of it: another process does."""
        self._groups.pop(group, None)

    def collect(self) -> Iterable[GaugeMetricFamily]:
        now_s = self._monotonic()
        shown = [each for readings, until_s in self._groups.values() if now_s < until_s for each in readings]
        for name, gauge in STATE_GAUGES.items():
            family = GaugeMetricFamily(f"tallyhook_{name}", gauge.text, labels=gauge.labels)
            for reading in shown:
                if reading.name == name:
                    family.add_metric([reading.labels[label] for label in gauge.labels], reading.value)
            yield family
