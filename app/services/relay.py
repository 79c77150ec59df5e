"""The relay: results are posted to the endpoints that want them, at least once each.

A worker takes endpoints for which something is due, posts to each in parallel within its share of what it may
have under way, and records what became of the posts in groups. A worker that dies in the middle leaves its
endpoints to the next one when their lease is over; what it had posted and not recorded is posted again, under
the same id.
"""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from app import tracing
from app.domain.notices.notice import Answered, Notice, NoticeKind
from app.domain.relay.ladder import Health, Released, Tried, after_post
from app.domain.relay.message import START, Endpoint, EndpointState, Message, Position
from app.domain.relay.payload import body_of
from app.domain.relay.signing import headers_of
from app.limits import RelayLimits, to_ms
from app.logger import get_logger
from app.ports import ARCHIVE_TROUBLE, Clock, Jitter

if TYPE_CHECKING:
    from app.store import Store

log = get_logger(__name__)

RECORD_SIZE = 100
"""Posts that one transaction records; what a killed worker posts again, for each endpoint, at most."""
RECORD_S = 0.5
"""How long a post that has ended waits to be recorded, at most."""
SHOWN_CHARS_MAX = 300
NO_ARCHIVE = Answered(None, error="its answer is archived, and the archive does not give it")

Post = Callable[[str, Mapping[str, str], bytes], Awaitable[Answered]]
"""(URL, headers, body) -> how it ended."""


class Share(Protocol):
    """How many posts an endpoint may have under way now."""

    def __call__(self) -> int: ...


@dataclass(slots=True)
class Pushed:
    """What was done for one endpoint while a worker had it."""

    endpoint: Endpoint
    taken: int = 0
    not_taken: int = 0
    given_up: int = 0
    error: str | None = None
    """Of the last post that was not taken."""
    state: EndpointState = EndpointState.ACTIVE
    rest_ms: int | None = None
    """It rests for so long; null: nothing more is due."""


@dataclass(slots=True)
class Pump:
    """Posts what is due for one endpoint, until nothing is, or it must rest."""

    store: "Store"
    post: Post
    endpoint: Endpoint
    owner: str
    share: Share
    limits: RelayLimits
    clock: Clock
    jitter: Jitter
    stopping: asyncio.Event
    health: Health = field(init=False)
    pushed: Pushed = field(init=False)
    is_lost: bool = False
    """Another worker has the endpoint: nothing more is posted or said of it here."""
    _ready: deque[Message] = field(default_factory=deque)
    _under_way: "set[asyncio.Task[tuple[Message, Answered]]]" = field(default_factory=set)
    _done: "list[asyncio.Task[tuple[Message, Answered]]]" = field(default_factory=list)
    """Posts whose end was not looked at yet."""
    _moved: asyncio.Event = field(default_factory=asyncio.Event)
    _ended: list[tuple[Message, Tried]] = field(default_factory=list)
    _recorded_s: float = 0.0
    _position: Position = START
    _is_last: bool = False
    _fetching: "asyncio.Task[None] | None" = None
    _recording: "asyncio.Task[None] | None" = None

    def __post_init__(self) -> None:
        known = self.endpoint
        self.health = Health(rests=known.rests, failing_since_ms=known.failing_since_ms)
        self.pushed = Pushed(known)

    async def run(self) -> Pushed:
        """Post, and give the endpoint back. Posts that are under way when this is cancelled are sent again
        by whoever has it next."""
        try:
            await self._push()
            if self._recording is not None:
                await self._recording
        finally:
            for task in (*self._under_way, self._fetching, self._recording):
                if task is not None:
                    task.cancel()
        await self._record()
        await self._release()
        return self.pushed

    async def _push(self) -> None:
        """The database is read and written beside the posts, which do not wait for it."""
        while True:
            if self._fetching is None and self._wants_more():
                self._fetching = asyncio.create_task(self._fetch())
                self._fetching.add_done_callback(lambda _: self._moved.set())
            self._start()
            if not self._under_way and not self._done and self._fetching is None:
                return
            await self._wait()
            if self._fetching is not None and self._fetching.done():
                self._fetching.result()
                self._fetching = None
            done, self._done = self._done, []
            self._take_in(done)
            self._record_beside()

    async def _wait(self) -> None:
        """Until something has ended; RECORD_S at most. Not by asyncio.wait, which would look at every post
        under way for each that ends."""
        late = asyncio.get_running_loop().call_later(RECORD_S, self._moved.set)
        try:
            await self._moved.wait()
        finally:
            late.cancel()
        self._moved.clear()

    def _wants_more(self) -> bool:
        return not self._is_last and len(self._ready) < 2 * self._places() and not self._is_over()

    async def _fetch(self) -> None:
        asked = self.endpoint.id, self._position, self.clock()
        try:
            page = await self.store.relay.due_messages(*asked)
            messages = page.messages
        except ARCHIVE_TROUBLE as error:
            log.warning("relay_archive_unavailable", endpoint=self.endpoint.id, error=str(error)[:300])
            page = await self.store.relay.due_messages(*asked, from_archive=False)
            messages = self._put_off(page.messages)
        self._position, self._is_last = page.last, page.is_last
        self._ready.extend(messages)

    def _put_off(self, messages: list[Message]) -> list[Message]:
        """Those that do not need the archive. The others are tried later, as if they had not been taken; of
        the endpoint that says nothing."""
        put_off = [message for message in messages if message.about.get("response_note") is not None]
        for message in put_off:
            tried = after_post(NO_ARCHIVE, tries=message.tries + 1, jitter=self.jitter())
            self._ended.append((message, tried))
            self.pushed.given_up += tried.wait_ms is None
        return [message for message in messages if message not in put_off]

    def _record_beside(self) -> None:
        """One transaction at a time, so that what a killed worker posts again stays bounded."""
        if self._recording is not None and self._recording.done():
            self._recording.result()
            self._recording = None
        late = self._monotonic_s() - self._recorded_s >= RECORD_S
        if self._recording is None and self._ended and (late or len(self._ended) >= RECORD_SIZE):
            self._recording = asyncio.create_task(self._record())

    def _is_over(self) -> bool:
        return self.stopping.is_set() or self.is_lost or self.health.must_rest

    def _places(self) -> int:
        return self.share() if self.health.is_proven and not self.health.rests else 1

    def _start(self) -> None:
        while self._ready and len(self._under_way) < self._places() and not self._is_over():
            post = asyncio.create_task(self._try(self._ready.popleft()))
            self._under_way.add(post)
            post.add_done_callback(self._note_done)

    def _note_done(self, post: "asyncio.Task[tuple[Message, Answered]]") -> None:
        self._under_way.discard(post)
        if not post.cancelled():
            self._done.append(post)
        self._moved.set()

    async def _try(self, message: Message) -> tuple[Message, Answered]:
        """Never raises: a message that cannot even be made is not taken."""
        known = self.endpoint
        try:
            body = body_of(message, known.scheme)
            headers = headers_of(message, known.scheme, known.secrets, self.clock() // 1000, body)
            message.about.clear()  # its answer is in the body now
            links = [tracing.of_attempt(message.task_id, message.attempt)] if message.task_id else []
            with tracing.span("relay", links=links, endpoint=known.id, message=message.webhook_id) as span:
                answered = await self.post(known.url, headers, body)
                span.set(http_status=answered.status, error=answered.error)
            return message, answered
        except Exception as error:
            return message, Answered(None, error=type(error).__name__)

    def _take_in(self, done: "list[asyncio.Task[tuple[Message, Answered]]]") -> None:
        for post in done:
            message, answered = post.result()
            tried = after_post(answered, tries=message.tries + 1, jitter=self.jitter())
            self.health.note(answered, self.clock())
            self._ended.append((message, tried))
            if tried.is_taken:
                self.pushed.taken += 1
                continue
            self.pushed.not_taken += 1
            self.pushed.error = tried.error
            self.pushed.given_up += tried.wait_ms is None

    async def _record(self) -> None:
        self._recorded_s = self._monotonic_s()
        if self._ended:
            ended, self._ended = self._ended, []
            await self.store.relay_messages.record_posts(self.endpoint.id, ended, self.clock())

    async def _release(self) -> None:
        now, health, pushed = self.clock(), self.health, self.pushed
        failing_since_ms = health.failing_since_ms
        if health.must_rest:
            pushed.rest_ms = health.rest_ms(self.jitter())
        if pushed.not_taken and health.is_set_aside(now, to_ms(self.limits.relay_failing_s)):
            pushed.state = EndpointState.SET_ASIDE
        until_ms = None if pushed.rest_ms is None else now + pushed.rest_ms
        left = Released(pushed.state, health, until_ms, pushed.error)
        is_own = await self.store.relay_endpoints.release_endpoint(self.owner, self.endpoint.id, left)
        if is_own and pushed.state is EndpointState.SET_ASIDE:
            await self.store.notices.add_notices(
                [_set_aside_notice(self.endpoint, pushed, failing_since_ms or now, now)], now
            )

    @staticmethod
    def _monotonic_s() -> float:
        return asyncio.get_running_loop().time()


def _set_aside_notice(endpoint: Endpoint, pushed: Pushed, since_ms: int, now_ms: int) -> Notice:
    hours = max(now_ms - since_ms, 0) / 3_600_000
    why = "it wants no more" if pushed.error == "HTTP 410" else f"it took nothing for {hours:.0f} h"
    return Notice(
        NoticeKind.RELAY_FAILING,
        endpoint.account,
        f"{endpoint.id}:{since_ms}",
        f"Results are no longer posted to endpoint {endpoint.id[-8:]}: {why} ({pushed.error}). They wait; "
        f"tallyhook relay retry {endpoint.id[-8:]} goes on.",
        now_ms,
        data={"endpoint_id": endpoint.id, "error": pushed.error, "failing_since_ms": since_ms},
    )
