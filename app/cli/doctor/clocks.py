"""What the doctor says of clocks: this machine's against the database's, Redis's and the provider's."""

import time
from collections.abc import Callable
from dataclasses import dataclass

from app.cli.doctor.check import Check
from app.database_clock import wall_ms

WARNING_MS = 2_000
"""Above this and half the round trip it is no inaccuracy of the request: machines with NTP are within 0.1
s."""
FAULT_MS = 60_000
_REMEDIES = {
    "database": "set whichever is wrong, by NTP: everything is dated by the database's time, and the "
    "provider's deliveries are judged by it",
    "redis": "set whichever is wrong, by NTP: jobs are put off by this machine's time, and the pace of "
    "several processes goes by Redis's",
    "provider": "set the time of this machine, and of the database's, by NTP: deliveries are signed by the "
    "provider's time, and refused where it is too far from ours (TALLYHOOK_SIGNATURE_WINDOW_S)",
}
_OURS = "set this machine's time, by NTP: no other that was asked agrees with it"


@dataclass(frozen=True, slots=True)
class Request:
    """When somebody was asked for the time."""

    wall_ms: int
    monotonic_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """What one answer says of this machine's clock."""

    ahead_ms: float
    """Of the one that was asked; negative: behind."""
    round_trip_ms: float

    @property
    def is_off(self) -> bool:
        return abs(self.ahead_ms) > WARNING_MS + self.round_trip_ms / 2


class Clocks:
    """Gathers the answers while other things are looked at."""

    def __init__(
        self, *, wall: Callable[[], int] = wall_ms, monotonic: Callable[[], float] = time.monotonic
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._readings: dict[str, Reading] = {}

    def ask(self) -> Request:
        """Just before somebody is asked."""
        return Request(self._wall(), self._monotonic())

    def note(self, whose: str, answer_ms: float, request: Request) -> None:
        """Just after; `told_ms` is taken for the time in the middle of the way."""
        took_ms = (self._monotonic() - request.monotonic_s) * 1000
        self._readings[whose] = Reading(request.wall_ms + took_ms / 2 - answer_ms, took_ms)

    def checks(self) -> list[Check]:
        """One for each that was asked, in the order of `_REMEDIES`."""
        alone = len(self._readings) > 1 and all(reading.is_off for reading in self._readings.values())
        return [
            _check(whose, self._readings[whose], _OURS if alone else remedy)
            for whose, remedy in _REMEDIES.items()
            if whose in self._readings
        ]


def _check(whose: str, reading: Reading, remedy: str) -> Check:
    name, other = f"{whose} clock", "Redis's" if whose == "redis" else f"the {whose}'s"
    if not reading.is_off:
        return Check(name, "ok", f"this machine's agrees with {other}")
    far, side = _duration(abs(reading.ahead_ms) / 1000), "ahead of" if reading.ahead_ms > 0 else "behind"
    detail = f"this machine's clock is {far} {side} {other}"
    return Check(name, "fault" if abs(reading.ahead_ms) > FAULT_MS else "warning", detail, remedy)


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.1f} s"
    for length_s, unit in ((86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.1f} {unit}"
    return f"{seconds:.0f} s"
