"""Keeps a fault from filling the log: a warning or an error that says the same again within a minute is
counted, and left out; the next line of its kind says how many it stands for, as `times`.
"""

import logging
import sys
import time
from collections.abc import Callable, Hashable, MutableMapping
from typing import Any

REST_S = 60.0
KINDS_MAX = 1_000
"""Kinds of lines that are remembered; beyond it the oldest are forgotten, and said again."""
_CHARS_MAX = 200
"""Of a text, that tell two lines apart."""
_LEVELS = frozenset({"warning", "error", "exception", "critical"})
_BESIDE = frozenset({"event", "exc_info", "request_id"})
"""Tell no line from another by themselves: of a request there is a line that names it anyway."""


class Repeats:
    """Counts lines by their kind: all that is text in them. Numbers differ from line to line."""

    def __init__(self, monotonic: Callable[[], float] = time.monotonic) -> None:
        self._monotonic = monotonic
        self._kinds: dict[Hashable, tuple[float, int]] = {}
        """When a line of it was last said, and how many were left out since."""

    def count(self, kind: Hashable) -> int:
        """How many lines this one stands for; 0: leave it out."""
        now = self._monotonic()
        said_s, left_out = self._kinds.get(kind, (-REST_S, 0))
        if now - said_s < REST_S:
            self._kinds[kind] = said_s, left_out + 1
            return 0
        self._kinds.pop(kind, None)
        self._kinds[kind] = now, 0
        if len(self._kinds) > KINDS_MAX:
            del self._kinds[next(iter(self._kinds))]
        return left_out + 1

    def is_left_out(self, method: str, event: MutableMapping[str, Any]) -> bool:
        """Whether a line of ours is; if not, it gets `times` where it stands for more than itself."""
        if method not in _LEVELS or "times" in event:  # what counts itself has the right figure
            return False
        texts = sorted(
            (name, str(value)[:_CHARS_MAX])
            for name, value in event.items()
            if name not in _BESIDE and not isinstance(value, int | float)
        )
        times = self.count((event.get("event"), *texts, _error_of(event.get("exc_info"))))
        if times > 1:
            event["times"] = times
        return not times

    def filter(self, record: logging.LogRecord) -> bool:
        """A filter for the lines of libraries, told apart by what they say before their values."""
        if record.levelno < logging.WARNING:
            return True
        error = record.exc_info[1] if record.exc_info else None
        times = self.count((record.name, record.levelno, str(record.msg)[:_CHARS_MAX], _error_of(error)))
        if times > 1:
            record.msg, record.args = f"{record.getMessage()} ({times} times)", ()
        return times > 0


def _error_of(told: object) -> str:
    error = sys.exception() if told is True else told[1] if isinstance(told, tuple) else told
    return f"{type(error).__name__}: {error}"[:_CHARS_MAX] if isinstance(error, BaseException) else ""
