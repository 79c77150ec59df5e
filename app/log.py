"""Structured logs on stderr: JSON in production, readable on a terminal. stdout belongs to `--json` output.

The libraries' own logs (arq, aiohttp, alembic, sqlalchemy) pass through the same processors. No secret, no
prompt and no answer reaches a log: values are left out by the name they are logged under, and what looks like
a key or a password is redacted in every text.

A warning or an error that is said again and again is said once a minute, with how often (app.log_repeats).

To log never raises and never waits: not for a stream that takes nothing (app.log_sink), nor for a value that
cannot be rendered.
"""

import functools
import json
import logging
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from typing import Any, TextIO, cast

import msgspec
import structlog

from app import tracing
from app.domain.text import sanitize
from app.log_repeats import Repeats
from app.log_sink import Sink, standard_sink

LEFT_OUT = "[left out]"
_NAMES_LEFT_OUT = frozenset(
    {
        "api_key",
        "apikey",
        "authorization",
        "body",
        "cookie",
        "credentials",
        "custom_id",
        "headers",
        "metadata",
        "parameters",
        "params",
        "password",
        "payload",
        "prompt",
        "prompts",
        "query",
        "response",
        "secret",
        "secrets",
        "set_cookie",
        "signature",
        "text",
        "token",
        "x_api_key",
    }
)
_ENDINGS_LEFT_OUT = ("_secret", "_secrets", "_password", "_token", "_api_key", "_prompt", "_body", "_payload")
_DEPTH_MAX = 6
"""Of nested values; what lies deeper is left out."""

_REDACTIONS = (
    # The provider's keys and webhook secrets.
    (re.compile(r"\b(sk|whsec)_[A-Za-z0-9_\-+/=]{4,}"), r"\1_..."),
    # Tokens of the API; their beginning may be shown.
    (re.compile(r"\b(thk_[0-9A-Za-z]{9}_)[0-9A-Za-z]{4,}"), r"\1..."),
    (re.compile(r"\b(Bearer|Basic) +[A-Za-z0-9_\-+/=.~]{8,}"), r"\1 ..."),
    # A password in a URL of a database or of Redis.
    (re.compile(r"(://[^/\s:@]*):[^/\s@]+@"), r"\1:...@"),
    # SQLAlchemy and PostgreSQL quote the values of a statement that failed: prompts and answers.
    (re.compile(r"\[parameters: .*?\](?=\n\(Background|\s*\Z)", re.DOTALL), f"[parameters: {LEFT_OUT}]"),
    (re.compile(r"(Failing row contains ).*"), rf"\1{LEFT_OUT}"),
)
_QUIET = {
    # Below warning these three print SQL with its values.
    "sqlalchemy": logging.WARNING,
    "aiosqlite": logging.WARNING,
    "asyncpg": logging.WARNING,
    "asyncio": logging.INFO,
    # Lines for each plugin, and for each job with its arguments (A20); ours say what was done.
    "alembic": logging.WARNING,
    "arq": logging.WARNING,
}
_LEVELS = {"debug": logging.DEBUG, "info": logging.INFO, "warning": logging.WARNING, "error": logging.ERROR}


def configure(format: str = "auto", level: str = "info", *, stream: TextIO | None = None) -> None:
    """Send all logs to `stream` (stderr), once per process; calling it again replaces what was set.

    `format` is auto (readable on a terminal, JSON elsewhere), json or console. `level` is the least that is
    logged: debug, info, warning or error. Context bound by structlog.contextvars (run_id, task_id) is added.
    """
    out = standard_sink(sys.stderr) if stream is None else Sink(stream)
    readable = format == "console" or (format == "auto" and out.isatty())
    repeats = Repeats()
    said = functools.partial(_said, repeats)
    steps: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        tracing.add_ids,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
        # Tracebacks as plain text: with the values of local variables they would hold prompts.
        structlog.processors.format_exc_info,
        leave_out_secrets,
    ]
    last = _console(out) if readable else _json_line
    render = functools.partial(_rendered, [*steps, last])
    out.lost_line = lambda count: f"{render(None, 'warning', {'event': 'log_lines_lost', 'lines': count})}\n"
    structlog.configure(
        processors=[functools.partial(_rendered, [steps[0], said, *steps[1:], last])],
        wrapper_class=structlog.make_filtering_bound_logger(_LEVELS[level]),
        logger_factory=structlog.WriteLoggerFactory(cast(TextIO, out)),
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        _Formatter(
            foreign_pre_chain=[structlog.stdlib.add_logger_name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, render],
        )
    )
    handler.addFilter(repeats)
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(_LEVELS[level])
    for name, least in _QUIET.items():
        logging.getLogger(name).setLevel(max(least, _LEVELS[level]))


class _Formatter(structlog.stdlib.ProcessorFormatter):
    """For the lines of libraries: one whose arguments do not fit its text is logged by its name."""

    def format(self, record: logging.LogRecord) -> str:
        try:
            return super().format(record)
        except Exception as error:
            return _unrendered(record.levelname.lower(), record.name, error)


def _rendered(
    steps: Sequence[structlog.typing.Processor], logger: Any, method: str, event: MutableMapping[str, Any]
) -> str:
    """The line of an event. What cannot be rendered costs its values, never whoever logs it."""
    name = event.get("event")
    try:
        done: Any = event
        for step in steps:
            done = step(logger, method, done)
        return str(done)
    except structlog.DropEvent:
        raise
    except Exception as error:
        return _unrendered(method, name, error)


def _said(
    repeats: Repeats, _logger: Any, method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    if repeats.is_left_out(method, event):
        raise structlog.DropEvent
    return event


def _unrendered(level: str, name: object, error: Exception) -> str:
    line = {
        "level": level,
        "event": name if isinstance(name, str) else "unnamed",
        "unrendered": type(error).__name__,
    }
    return _redact(json.dumps(line))


def leave_out_secrets(
    _logger: Any, _method: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """A structlog processor: see the module's docstring."""
    for name, value in event.items():
        event[name] = _clean(name, value, 0)
    return event


def _clean(name: str, value: Any, depth: int) -> Any:
    if value is None or isinstance(value, bool | int | float):
        return value  # a count under such a name reveals nothing
    if _is_left_out(name) or depth > _DEPTH_MAX or isinstance(value, bytes | bytearray | memoryview):
        return LEFT_OUT
    if isinstance(value, str):
        return _redact(value)
    if isinstance(value, Mapping):
        return {_redact(str(key)): _clean(str(key), inner, depth + 1) for key, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_clean("", inner, depth + 1) for inner in value]
    return _redact(str(value) if isinstance(value, BaseException) else repr(value))


def _is_left_out(name: str) -> bool:
    plain = name.lower().replace("-", "_")
    return plain in _NAMES_LEFT_OUT or plain.endswith(_ENDINGS_LEFT_OUT)


def _redact(text: str) -> str:
    for pattern, replacement in _REDACTIONS:
        text = pattern.sub(replacement, text)
    # A log may be read on a terminal: no control character of others is obeyed there.
    return sanitize(text)


def _json_line(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    ordered = {"timestamp": event.pop("timestamp", None), "level": event.pop("level", None)}
    whole = {**ordered, **event}
    try:
        return msgspec.json.encode(whole, enc_hook=repr).decode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return json.dumps(whole, default=repr)


def _console(out: Sink) -> structlog.typing.Processor:
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), exception_formatter=structlog.dev.plain_traceback, sort_keys=False
    )
