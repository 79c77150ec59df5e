"""Who listens for the answer to a question. Whoever asks the same once more after its connection was cut gets
the answer of the task that goes on already, and does not buy another; two who ask the same beside each other
get one each.
"""

from collections.abc import Callable
from dataclasses import dataclass

from app.ports import Clock

Asker = tuple[str, str]
"""A token, and the fingerprint of what it asks."""
KEPT_MS = 600_000
"""How long an answer that nobody heard waits for whoever asks again."""
LEFT_MAX = 1_000


@dataclass(slots=True, eq=False)
class Listener:
    """One who waits for a task."""

    task_id: str
    is_gone: Callable[[], bool]
    left_ms: int | None = None
    """Since when nobody waits for it; None: somebody does."""


class Listeners:
    """Of one process."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._of: dict[Asker, list[Listener]] = {}
        self._left: dict[Listener, Asker] = {}

    def take_up(self, asker: Asker) -> str | None:
        """A task for which the same was asked, and whose answer nobody hears; it is not given twice."""
        self._forget_old()
        for listener in self._of.get(asker, ()):
            if listener.left_ms is not None or listener.is_gone():
                self._remove(asker, listener)
                return listener.task_id
        return None

    def add(self, asker: Asker, task_id: str, is_gone: Callable[[], bool]) -> Listener:
        """Somebody waits for a task from now on."""
        listener = Listener(task_id, is_gone)
        self._of.setdefault(asker, []).append(listener)
        return listener

    def end(self, asker: Asker, listener: Listener, *, is_heard: bool) -> None:
        """It waits no more. Where it did not hear the answer, the next one who asks the same does."""
        if is_heard:
            self._remove(asker, listener)
        elif listener in self._of.get(asker, ()):
            listener.left_ms = self._clock()
            self._left[listener] = asker

    def _remove(self, asker: Asker, listener: Listener) -> None:
        self._left.pop(listener, None)
        listeners = self._of.get(asker, [])
        if listener in listeners:
            listeners.remove(listener)
        if not listeners:
            self._of.pop(asker, None)

    def _forget_old(self) -> None:
        now = self._clock()
        while self._left:
            listener, asker = next(iter(self._left.items()))
            is_old = now - (listener.left_ms or 0) >= KEPT_MS
            if not is_old and len(self._left) <= LEFT_MAX:
                return
            self._remove(asker, listener)
