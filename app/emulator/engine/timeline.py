"""One heap of everything that will happen, and one timer for its head.

A sleeping asyncio task per queued prompt would cost a kilobyte and a wake-up each; a heap entry costs
neither. Actions receive the time they were due, not the time they ran, so that emulated results do not
depend on how busy the machine is, and a stepped clock passes through a month in order.
"""

import asyncio
import heapq
import itertools
from collections.abc import Callable

from app.emulator.engine.clock import Clock

Action = Callable[[float], None]

_ACTIONS_PER_TURN = 256
"""Actions that run before other callbacks of the loop get a turn: 256 completions are about 5 ms of work."""


class Timeline:
    """Actions ordered by due time, then by the order they were added."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._heap: list[tuple[float, int, Action]] = []
        self._order = itertools.count()
        self._timer: asyncio.Handle | None = None
        self._timer_due_s = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None

    def __len__(self) -> int:
        return len(self._heap)

    def attach(self, loop: asyncio.AbstractEventLoop) -> None:
        """Let a running loop drive the timeline; without one, `run_due` is called by hand."""
        self._loop = loop
        self._arm()

    def detach(self) -> None:
        """Stop the timer; what is scheduled stays scheduled."""
        self._loop = None
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def at(self, due_s: float, action: Action) -> None:
        """Run `action(due_s)` once the emulated clock has reached `due_s`."""
        heapq.heappush(self._heap, (due_s, next(self._order), action))
        if self._loop is not None and (self._timer is None or due_s < self._timer_due_s):
            self._arm()

    def next_due_s(self) -> float | None:
        """When the next action is due, or None if nothing is scheduled."""
        return self._heap[0][0] if self._heap else None

    def run_due(self, now_s: float, actions_max: int | None = None) -> bool:
        """Run what is due by `now_s`, in order; True if something due was left over."""
        done = 0
        heap = self._heap
        while heap and heap[0][0] <= now_s:
            if actions_max is not None and done >= actions_max:
                return True
            due_s, _, action = heapq.heappop(heap)
            action(due_s)
            done += 1
        return False

    def rearm(self) -> None:
        """The clock was changed from outside: measure the wait for the head again."""
        if self._loop is not None:
            self._arm()

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._loop is None or not self._heap:
            return
        due_s = self._heap[0][0]
        delay_s = self.clock.real_delay_s(due_s - self.clock.now())
        if delay_s == float("inf"):
            return
        self._timer_due_s = due_s
        self._timer = self._loop.call_later(max(delay_s, 0.0), self._wake)

    def _wake(self) -> None:
        self._timer = None
        left_over = True
        try:
            left_over = self.run_due(self.clock.now(), _ACTIONS_PER_TURN)
        finally:
            # Also after an action that raised: the loop reports it, and time goes on for everybody else.
            if left_over and self._loop is not None:
                self._timer_due_s = float("-inf")
                self._timer = self._loop.call_soon(self._wake)
            else:
                self._arm()
