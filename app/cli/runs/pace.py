"""How fast a run comes in, as the command that watches it sees it."""

from collections import deque

OVER_S = 60.0
KNOWN_AFTER_S = 2.0


class Pace:
    """Tasks closed a second over the last minute."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()

    def note(self, at_s: float, closed: int) -> None:
        """So many were closed at a time; fewer than before after a retry, which begins it anew."""
        if self._seen and closed < self._seen[-1][1]:
            self._seen.clear()
        self._seen.append((at_s, closed))
        while len(self._seen) > 2 and at_s - self._seen[1][0] >= OVER_S:
            self._seen.popleft()

    @property
    def per_s(self) -> float | None:
        """None while it is not known."""
        if not self._seen:
            return None
        (began_s, first), (now_s, last) = self._seen[0], self._seen[-1]
        return None if now_s - began_s < KNOWN_AFTER_S else (last - first) / (now_s - began_s)

    def left_s(self, remaining: int) -> float | None:
        """Until so many more are closed; None while nothing closes."""
        per_s = self.per_s
        return remaining / per_s if per_s else None
