"""What the processes say, as lines of one terminal: whose it is, when, how grave, what.

The processes log JSON. Whoever asked for JSON gets it as it came, with the process's name; a terminal gets
colours, unless NO_COLOR is set; everything else plain text.
"""

import json
import os
from collections import deque
from collections.abc import Callable
from typing import Any, TextIO

from app.domain.text import sanitize

WIDTH = len("emulator")
COLOURS = {
    "web": "36",
    "api": "32",
    "worker": "35",
    "emulator": "34",
    "up": "1",
    "warning": "33",
    "error": "31",
}
LINE_BYTES_MAX = 65_536
KEPT_LINES = 12
LEFT_OUT = ("timestamp", "level", "event")


class Lines:
    """Writes lines to a stream that never waits (app.log_sink)."""

    def __init__(self, output: TextIO, *, as_json: bool) -> None:
        self._output = output
        self._as_json = as_json
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        self._coloured = output.isatty() and not plain

    def say(self, text: str, *, level: str = "info") -> None:
        """A line of our own."""
        if self._as_json:
            self._write(json.dumps({"process": "up", "level": level, "event": text}))
        else:
            self._write(f"{self._prefix('up')}{self._in_colour(text, level)}")

    def show(self, name: str, line: str, event: dict[str, Any] | None) -> None:
        """A line of a process; `event`: what it is as JSON, if it is."""
        if self._as_json:
            self._write(json.dumps({"process": name, **(event or {"event": "printed", "line": line})}))
        elif event is None:
            self._write(self._prefix(name) + sanitize(line))
        else:
            for part in sanitize(readable(event)).split("\n"):
                self._write(self._prefix(name) + self._in_colour(part, str(event.get("level"))))

    def _write(self, line: str) -> None:
        self._output.write(line + "\n")

    def _prefix(self, name: str) -> str:
        return self._in_colour(f"{name:<{WIDTH}} | ", name)

    def _in_colour(self, text: str, name: str) -> str:
        return f"\x1b[{COLOURS[name]}m{text}\x1b[0m" if self._coloured and name in COLOURS else text


def readable(event: dict[str, Any]) -> str:
    """The time of day (UTC), the event and its values; what is no information says how grave it is."""
    time, level = str(event.get("timestamp") or "")[11:19], str(event.get("level") or "info")
    values = [f"{name}={_value(value)}" for name, value in event.items() if name not in LEFT_OUT]
    grave = [] if level in ("info", "debug") else [f"{level}:"]
    return " ".join([*([time] if time else []), *grave, str(event.get("event")), *values])


def _value(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return json.dumps(text, ensure_ascii=False) if " " in text and "\n" not in text else text


class Reader:
    """Parts what a process prints into lines; keeps the last ones."""

    def __init__(self, take: Callable[[str, dict[str, Any] | None], None]) -> None:
        self._take = take
        self._rest = b""
        self.last: deque[str] = deque(maxlen=KEPT_LINES)
        self.error: dict[str, Any] | None = None
        """Why it ended, in its own words: message and remedy."""

    def feed(self, data: bytes) -> None:
        """Whatever has come; a line without an end is cut where it is too long."""
        *lines, self._rest = (self._rest + data).split(b"\n")
        if len(self._rest) > LINE_BYTES_MAX:
            lines.append(self._rest)
            self._rest = b""
        for line in lines:
            self._line(line.decode(errors="replace").rstrip("\r"))

    def end(self) -> None:
        """Nothing more comes."""
        if self._rest:
            self._line(self._rest.decode(errors="replace"))
            self._rest = b""

    def _line(self, line: str) -> None:
        event: Any
        try:
            event = json.loads(line) if line.startswith("{") else None
        except ValueError:
            event = None
        event = event if isinstance(event, dict) else {}
        error = event.get("error")
        if isinstance(error, dict) and "message" in error:  # what a command says with --json before it ends
            self.error = error
            line, event = f"Error: {error['message']}", {}
        event = event if "event" in event else None
        self.last.append(line if event is None else readable(event))
        self._take(line, event)
