"""How far our clock is from the provider's, by what deliveries say (R6).

A clock that is wrong by more than the signature window makes us refuse everything, so this must be seen. Only
timestamps under a valid MAC are noted, refused ones too.
"""

from statistics import median

SAMPLES_MAX = 101
SAMPLES_MIN = 3
"""Fewer say nothing: one replayed delivery must not take the receiver out of service."""
SAMPLE_AGE_MAX_S = 900.0


class ClockOffset:
    """The median over the last deliveries of our time minus the time they were signed at.

    Samples are kept against the monotonic clock: once our clock is set right the offset is right too, without
    waiting for deliveries that a load balancer no longer sends us.
    """

    def __init__(self) -> None:
        # signature -> (time of receipt, time of signing minus time of receipt), monotonic seconds.
        # By signature, so that replaying one captured delivery adds nothing.
        self._samples: dict[str, tuple[float, float]] = {}

    def note(self, signature: str, *, signed_s: int, monotonic_s: float) -> None:
        """A delivery with a valid MAC came at `monotonic_s`."""
        if signature in self._samples:
            return
        if len(self._samples) >= SAMPLES_MAX:
            del self._samples[next(iter(self._samples))]
        self._samples[signature] = (monotonic_s, signed_s - monotonic_s)

    def median_s(self, *, now_s: float, monotonic_s: float) -> float | None:
        """Seconds that our clock is ahead of the provider's; None when too little is known."""
        recent = [skew for at, skew in self._samples.values() if monotonic_s - at <= SAMPLE_AGE_MAX_S]
        if len(recent) < SAMPLES_MIN:
            return None
        return now_s - monotonic_s - median(recent)
