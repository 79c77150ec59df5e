"""Loggers of what small commands load as well. structlog, and what it brings along, takes a command longer to
load than its answer takes; here it is loaded by whoever has something to say.

Outside of app/web, app/api and workers, which log from their first second, nobody imports structlog but
app/log.py.
"""

import functools
import logging
from collections.abc import Callable
from typing import Any

_switch: Callable[[], None] | None = None
"""How the logs are switched on, where that was put off."""


class Logger:
    """A logger of structlog's, that loads it with the first line."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, method: str) -> Any:
        return getattr(self._logger, method)

    @functools.cached_property
    def _logger(self) -> Any:
        import structlog

        switch_on()
        return structlog.get_logger(self._name)


def get_logger(name: str) -> Logger:
    """As structlog's."""
    return Logger(name)


class _FirstLine(logging.Handler):
    """Switches the logs on, for a line of a library."""

    def emit(self, record: logging.LogRecord) -> None:
        switch_on()
        logging.getLogger().handle(record)


def configure_late(level: str, switch: Callable[[], None]) -> None:
    """Logs are switched on by `switch` as soon as somebody logs: ourselves, or a library. `level`: warning or
    error, below which libraries print statements with their values."""
    global _switch  # noqa: PLW0603 - the logs are one for a process
    _switch = switch
    root = logging.getLogger()
    root.handlers = [_FirstLine()]
    root.setLevel(level.upper())


def switch_on() -> None:
    """What was put off by `configure_late`, now; once."""
    global _switch
    if _switch is not None:
        switch, _switch = _switch, None
        switch()
