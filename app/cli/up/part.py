"""One process of `tallyhook up`: started, listened to, started again when it ends by itself."""

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from app.address.listening import host_in_url, url_from_here
from app.cli.up.lines import Lines, Reader
from app.cli.up.ports import is_free
from app.errors import UserError
from app.local.processes import Process, Processes
from app.waiting import set_within

START_WITHIN_S = 60.0
"""A loaded machine needs 10 s; a migration of the embedded database comes before."""
POLL_S = 0.05
STEADY_S = 60.0
"""One that ran so long before it died has all its tries again."""
OVERTAKEN_MAX = 3
"""Several that are started at the same moment, each in its directory, see the same port free."""
WAITS_S = (1.0, 2.0, 4.0, 8.0, 16.0)
"""Before each new start; one that dies once more ends all."""
READY = frozenset({"ready", "worker_started"})


@dataclass(slots=True)
class Part:
    """What is run under a name, and how it does."""

    name: str
    command: Sequence[str]
    env: Mapping[str, str]
    forgets: str = ""
    """What is lost when it dies."""
    listens: tuple[str, int] | None = None
    """Host and port that it must have alone."""
    process: Process | None = None
    url: str = ""
    """As this machine reaches it."""
    control_token: str = ""
    """What whoever steers it must send: the emulator's, where it demands one."""
    is_ready: bool = False
    reader: Reader | None = None
    started_s: float = 0.0
    deaths: int = 0
    again_at_s: float = 0.0
    """When it is started again, while it is down."""
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    """All that it printed was read."""


class Output(asyncio.Protocol):
    """Reads the pipe of one process."""

    def __init__(self, part: Part, reader: Reader) -> None:
        self._part = part
        self._reader = reader

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._reader.end()
        self._part.ended.set()


class Parts:
    """Starts parts in a working directory, and sees to it that they run."""

    def __init__(self, processes: Processes, lines: Lines, cwd: Path, now_s: Callable[[], float]) -> None:
        self._processes = processes
        self._lines = lines
        self._cwd = cwd
        self._now_s = now_s
        self.all: list[Part] = []

    async def start(self, part: Part) -> None:
        """Start it, and read what it prints from now on."""

        def take(line: str, event: dict[str, Any] | None) -> None:
            if event is not None and event["event"] in READY and not part.is_ready:
                self._ready(part, event)
            if event is None or event["event"] != "ready":  # that is for programs
                self._lines.show(part.name, line, event)

        reads, writes = os.pipe()
        part.reader, part.is_ready, part.ended = Reader(take), False, asyncio.Event()
        reader = part.reader
        loop = asyncio.get_running_loop()
        await loop.connect_read_pipe(lambda: Output(part, reader), os.fdopen(reads, "rb", 0))
        part.process = self._processes.spawn(
            part.name, part.command, env=part.env, cwd=self._cwd, output=writes
        )
        part.started_s = self._now_s()
        if part not in self.all:
            self.all.append(part)

    def _ready(self, part: Part, event: dict[str, Any]) -> None:
        part.is_ready = True
        if event.get("url"):
            part.url = url_from_here(event["url"])
        known, part.control_token = part.control_token, event.get("control_token", "")
        if known and known != part.control_token:
            self._lines.say(f"{part.name} has a new control token: {part.control_token}")

    async def until_ready(self, part: Part) -> None:
        """Wait until it says so. Raises UserError when it ends before, or says nothing for long."""
        while not part.is_ready:
            if part.process is not None and not part.process.running:
                if await self._read_to_its_end(part):
                    return  # that it has ended is for `look`
                raise await self._failed(part, "does not start")
            if self._now_s() - part.started_s > START_WITHIN_S:
                raise await self._failed(part, f"is not ready after {START_WITHIN_S:g} s")
            await asyncio.sleep(POLL_S)

    async def on_its_port(self, part: Part, again: Callable[[], Part]) -> Part:
        """Wait until it is ready; where somebody else took its port before it could, start `again()`, on
        another one, instead. Raises UserError as until_ready and `again` do."""
        for _ in range(OVERTAKEN_MAX):
            try:
                await self.until_ready(part)
                return part
            except UserError:
                if part.listens is None or is_free(*part.listens) or self._is_running(part):
                    raise
            taken, url_host = part.listens[1], host_in_url(part.listens[0])
            self.all.remove(part)
            part = again()
            self._lines.say(
                f"somebody else took {url_host}:{taken} meanwhile; {part.name} is started on another port"
            )
            await self.start(part)
        await self.until_ready(part)
        return part

    async def look(self) -> None:
        """Start again what has ended by itself, each time later. Raises UserError for one that does not keep
        running."""
        for part in self.all:
            if part.again_at_s:
                if self._now_s() >= part.again_at_s:
                    part.again_at_s = 0.0
                    await self.start(part)
            elif part.process is not None and not part.process.running:
                await self._died(part, part.process.exit_code)

    def _is_running(self, part: Part) -> bool:
        return part.process is not None and part.process.running

    async def _died(self, part: Part, code: int | None) -> None:
        await self._read_to_its_end(part)
        if self._now_s() - part.started_s > STEADY_S:
            part.deaths = 0
        elif not part.is_ready or part.deaths == len(WAITS_S):
            raise await self._failed(part, f"ended by itself with {code} {part.deaths + 1} times in a row")
        wait_s = WAITS_S[part.deaths]
        part.deaths += 1
        part.again_at_s = self._now_s() + wait_s
        forgets = f"; {part.forgets}" if part.forgets else ""
        text = f"{part.name} ended by itself with {code}; it is started again in {wait_s:g} s{forgets}"
        self._lines.say(text, level="warning")

    async def _read_to_its_end(self, part: Part) -> bool:
        """Whether it was ready: what it printed last may not have been read yet. A child that outlives it
        holds the pipe."""
        await set_within(part.ended, 1.0)
        return part.is_ready

    async def _failed(self, part: Part, what: str) -> UserError:
        await self._read_to_its_end(part)
        if part.reader is not None and (error := part.reader.error) is not None:
            remedy = str(error.get("remedy", ""))
            return UserError(f"{part.name}_failed", f"{part.name} {what}: {error['message']}", remedy)
        last = list(part.reader.last) if part.reader is not None else []
        remedy = "its last lines say why; tallyhook doctor looks at everything it needs"
        return UserError(f"{part.name}_failed", f"{part.name} {what}", remedy, details=last)

    async def stop(self, part: Part) -> None:
        """Let it finish what it holds, and wait for that; its supervisor has the last word."""
        part.again_at_s = 0.0
        if part.process is None or not part.process.running:
            return
        part.process.ask_to_stop()
        while part.process.running:  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(POLL_S)

    def kill_all(self) -> None:
        """End all of them at once."""
        for part in self.all:
            if part.process is not None and part.process.running:
                part.process.kill()
