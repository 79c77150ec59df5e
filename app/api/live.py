"""Runs as they stand, looked at once a second for all who listen in this process, and told to each as a
server-sent event of what is new to it.

The id of an event names every document that its listener has by then, by a hash of each. So whoever comes
back with it, to whichever process, is told of what changed meanwhile and of nothing else.
"""

import asyncio
import base64
import contextlib
import hashlib
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Generic, TypeVar

import structlog

from app.waiting import set_within

log = structlog.get_logger(__name__)

T = TypeVar("T")

EVERY_S = 1.0
HEARTBEAT_S = 15.0
"""Nothing is silent for longer: proxies close what is, and a listener that is gone is noticed by it."""
LIFE_S = 300.0
"""After this a stream ends, and its listener comes back: with a token that is valid still."""
REST_FACTOR = 4
"""Between two looks lies at least so many times what a look took."""
RETRY_MS = 2_000
DIGEST_CHARS = 8
KNOWN_MAX = 500
"""Documents that an id names: 4 KB; header lines may have 8."""
_ID = re.compile(rf"([A-Za-z0-9_-]{{{DIGEST_CHARS}}})*")


def digest_of(shown: bytes) -> str:
    """48 bits of a hash, in DIGEST_CHARS."""
    return base64.urlsafe_b64encode(hashlib.sha256(shown).digest()[:6]).decode()


@dataclass(frozen=True, slots=True)
class Shown:
    """One document, and who may see it."""

    account: str
    json: bytes

    @property
    def digest(self) -> str:
        """As `digest_of`."""
        return digest_of(self.json)


@dataclass(slots=True)
class Snapshot:
    """What was seen by one look."""

    shown: dict[str, Shown]
    """By digest."""
    _events: dict[tuple[str | None, frozenset[str]], bytes] = field(default_factory=dict)

    def known(self, account: str | None) -> frozenset[str]:
        """Digests of what a listener has who has seen all that it may; None: it may see everything."""
        return frozenset(i for i, shown in self.shown.items() if account in (None, shown.account))

    def event(self, account: str | None, known: frozenset[str]) -> bytes:
        """What is new to a listener; empty: nothing. Made once for all who know the same."""
        asked = account, known
        if asked not in self._events:
            self._events[asked] = b"".join(self._lines(account, known))
        return self._events[asked]

    def _lines(self, account: str | None, known: frozenset[str]) -> Iterator[bytes]:
        seen = self.known(account)
        if new := [self.shown[i].json for i in self.shown if i in seen - known]:
            named = "".join([i for i in self.shown if i in seen][:KNOWN_MAX])
            yield b'id: %s\nevent: runs\ndata: {"runs":[%s]}\n\n' % (named.encode(), b",".join(new))


Look = Callable[[], Awaitable[Sequence[Shown]]]


class Looks(Generic[T]):
    """One process's looks at something; there are none while nobody listens."""

    def __init__(self, look: Callable[[], Awaitable[T]], stopping: asyncio.Event) -> None:
        self._look = look
        self._stopping = stopping
        self._listeners = 0
        self._looking: asyncio.Task[None] | None = None
        self._seen: T | None = None
        self._news = asyncio.Event()
        """Of the look after this one; each has its own."""

    async def seen(self, is_silent: Callable[[], float]) -> AsyncGenerator[T | None]:
        """What was seen last, at each look, and when its listener was silent for HEARTBEAT_S, until the
        process ends or LIFE_S are over. None: nothing yet. `is_silent`: for how many seconds it was."""
        ends_s = time.monotonic() + LIFE_S
        with self._listening():
            found, news = self._seen, self._news
            while not self._stopping.is_set() and time.monotonic() < ends_s:
                yield found
                await set_within(news, HEARTBEAT_S - is_silent())
                found, news = self._seen, self._news

    @contextlib.contextmanager
    def _listening(self) -> Iterator[None]:
        self._listeners += 1
        if self._looking is None:
            self._looking = asyncio.create_task(self._look_on(), name="live looks")
        try:
            yield
        finally:
            self._listeners -= 1

    async def close(self) -> None:
        """Wait for the look that goes on; `stopping` is set."""
        if self._looking is not None:
            await asyncio.gather(self._looking, return_exceptions=True)

    async def _look_on(self) -> None:
        while self._listeners and not self._stopping.is_set():
            begun_s = time.monotonic()
            try:
                self._seen = await self._look()
            except Exception as error:  # the next look may succeed; meanwhile heartbeats go on
                log.info("api_events_wait", error=type(error).__name__)
            self._tell()
            await set_within(self._stopping, max(EVERY_S, REST_FACTOR * (time.monotonic() - begun_s)))
        self._looking = self._seen = None
        self._tell()

    def _tell(self) -> None:
        self._news.set()
        self._news = asyncio.Event()


Told = tuple[bytes, frozenset[str]]
"""An event, empty where there is no news, and all digests that its listener knows then."""


async def told(
    looks: Looks[T], last_event_id: str, tell: Callable[[T, frozenset[str]], Told]
) -> AsyncGenerator[bytes]:
    """Server-sent events for one listener: what `tell` makes of each look for who knows so much."""
    known, told_s = _known(last_event_id), time.monotonic()
    yield b"retry: %d\n\n" % RETRY_MS
    seen = looks.seen(lambda: time.monotonic() - told_s)
    async with contextlib.aclosing(seen):
        async for look in seen:
            event = b""
            if look is not None:
                event, known = tell(look, known)
            if not event and time.monotonic() - told_s >= HEARTBEAT_S:
                event = b": still here\n\n"
            if event:
                yield event
                told_s = time.monotonic()


class Live:
    """Documents as they change, for all who listen in this process."""

    def __init__(self, look: Look, stopping: asyncio.Event) -> None:
        self._look = look
        self._looks = Looks(self._snapshot, stopping)

    async def _snapshot(self) -> Snapshot:
        return Snapshot({shown.digest: shown for shown in await self._look()})

    def events(self, account: str | None, last_event_id: str) -> AsyncIterator[bytes]:
        """Events for one listener, until the process ends or LIFE_S are over."""
        return told(
            self._looks, last_event_id, lambda seen, known: (seen.event(account, known), seen.known(account))
        )


def _known(last_event_id: str) -> frozenset[str]:
    """Digests in an id; none in one that is not ours."""
    if _ID.fullmatch(last_event_id) is None:
        return frozenset()
    starts = range(0, len(last_event_id), DIGEST_CHARS)
    return frozenset(last_event_id[n : n + DIGEST_CHARS] for n in starts)
