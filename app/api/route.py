"""One route of the API: everything that router, validation, OpenAPI and reference are made of.

Handlers get validated values and return models, or a stream; they read no request by hand.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import InitVar, dataclass, field
from typing import Any, Generic, TypeVar

from aiohttp import StreamReader
from pydantic import BaseModel, ConfigDict

from app.api.problems import NATIVE, Dialect
from app.config import Settings
from app.domain.access import Scope
from app.domain.relay.message import NewEndpoint
from app.limits import to_ms
from app.ports import Clock
from app.prompts.batch_file import read_batch_file
from app.services.awaited import Awaited
from app.services.batches import BatchLoads
from app.services.credit_room import CreditRooms
from app.services.intake import Intake
from app.services.listeners import Listeners
from app.services.wakes import Wakes
from app.store import Store

P = TypeVar("P", bound=BaseModel)
B = TypeVar("B")


class Params(BaseModel):
    """Base of what a path and a query say together: a field that the path names is of the path."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Body(BaseModel):
    """Base of JSON bodies, whose values are of the kinds that their schema names: "1" is no number, nor is
    true."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    def note_text(self, text: bytes) -> None:
        """The JSON that it was read from: for what must not lose a digit."""


@dataclass(frozen=True, slots=True)
class Upload:
    """A body that is read as it comes."""

    media_type: str
    """One of those that the route takes."""
    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str]
    content: StreamReader
    """What `chunks` reads from: for a body of several parts."""


@dataclass(frozen=True, slots=True)
class Uploads:
    """In a route: the media types of streamed bodies that it takes, with what each is; `json` beside them."""

    media_types: Mapping[str, str]
    json: type[BaseModel] | None = None
    form: Mapping[str, Any] | None = None
    """The JSON Schema of a form of several parts, where such is taken."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose token it is."""

    token_id: str
    name: str
    scope: Scope
    account: str | None
    """It sees and spends this one's only; None: every account's."""
    push_to: NewEndpoint | None = None
    """Where results of its runs and tasks are posted to that name no URL themselves."""

    def sees(self, account: str) -> bool:
        """Whether something of an account is there for this caller."""
        return self.account is None or self.account == account


async def wake_nobody() -> None:
    """Where no queue is known: workers find what there is to send by themselves, within seconds."""


async def still_valid() -> None:
    """Of who came without a token."""


@dataclass(frozen=True, slots=True)
class Parts:
    """What handlers work with."""

    store: Store
    settings: Settings
    clock: Clock
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the process ends: streams end then."""
    shared: dict[str, Any] = field(default_factory=dict)
    """What requests of one process share, by the name of its owner."""
    wake: InitVar[Callable[[], Awaitable[object]]] = wake_nobody
    """Tells the workers that there is something to send. Raises nothing."""
    replica: Store | None = None
    """Where lists and exports are read, a moment behind; None: in `store`."""
    batch_loads: BatchLoads = field(default_factory=lambda: BatchLoads(read_batch_file))
    wakes: Wakes = field(init=False)
    intake: Intake = field(init=False)
    awaited: Awaited = field(init=False)
    rooms: CreditRooms = field(init=False)
    listeners: Listeners = field(init=False)

    def __post_init__(self, wake: Callable[[], Awaitable[object]]) -> None:
        age_max_ms = to_ms(self.settings.balance_age_max_s)
        wakes = Wakes(wake)
        made = {
            "wakes": wakes,
            "intake": Intake(self.store, self.clock, wakes.soon),
            "awaited": Awaited(self.store),
            "listeners": Listeners(self.clock),
            "rooms": CreditRooms(self.store, self.clock, balance_age_max_ms=age_max_ms),
        }
        for name, part in made.items():
            object.__setattr__(self, name, part)


@dataclass(slots=True)
class Call(Generic[P, B]):
    """One request, validated."""

    parts: Parts
    caller: Caller
    params: P
    body: B
    request_id: str
    headers: Mapping[str, str]
    subject: str | None = None
    """Set by a handler that writes: the id of what it wrote, for the list of actions."""
    key: Any = None
    """The idempotency key that is worked under (app.api.idempotency.Held); None: there is none."""
    is_gone: Callable[[], bool] = lambda: False
    """Whether nobody listens any more: the connection is closed."""
    look_again: Callable[[], Awaitable[object]] = still_valid
    """Raises Problem where the token has ended since: for what takes long."""

    @property
    def store(self) -> Store:
        return self.parts.store

    @property
    def reads(self) -> Store:
        """For what only reads and may be a moment behind: lists and exports."""
        return self.parts.replica or self.parts.store


@dataclass(frozen=True, slots=True)
class Answer:
    """A model with more to say about it; a model alone is answered with 200."""

    model: BaseModel | None
    """None: `body` is it."""
    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes | None = None
    """The JSON itself, where a part of it is stored as JSON and must not change."""


@dataclass(frozen=True, slots=True)
class Stream:
    """An answer that is sent as it is made. A stream that fails ends its connection without an end."""

    media_type: str
    chunks: AsyncIterator[bytes]
    headers: Mapping[str, str] = field(default_factory=dict)
    status: int = 200


@dataclass(frozen=True, slots=True)
class Streamed:
    """In a route: an answer that is a stream, and of what."""

    media_type: str
    description: str
    line: type[BaseModel] | None = None
    """Of which each line or event is one, where there is one model."""


Handler = Callable[[Call[Any, Any]], Awaitable[BaseModel | Answer | Stream]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path, and all that is known of them."""

    method: str
    path: str
    handler: Handler
    summary: str
    answers: Mapping[int, type[BaseModel] | Streamed]
    scope: Scope | None
    """None: no token is asked for."""
    group: str = "runs"
    """Under which the reference has it."""
    params: type[Params] = Params
    body: type[BaseModel] | Uploads | None = None
    description: str = ""
    is_idempotent: bool = True
    """Whether the same request again changes nothing more."""
    action: str | None = None
    """What the list of actions calls it; None: it changes nothing, or writes its own row with its change."""
    problems: tuple[int, ...] = ()
    """Statuses of problems besides those that every such route has."""
    examples: Mapping[str, Any] = field(default_factory=dict)
    """`request` and `answer`, as JSON values."""
    body_is_optional: bool = False
    """None is as an empty object."""
    body_bytes_max: int | None = None
    """Of a JSON body; None: as settings say."""
    dialect: Dialect = NATIVE
    is_long: bool = False
    """It reads whole runs, and has the time of what does."""
    is_frequent: bool = False
    """Its requests come by the hundred a second: one that goes well is not logged."""
    waits: bool = False
    """Its answer waits for a task to end."""
    of_the_moment: Mapping[str, Any] = field(default_factory=dict)
    """Fields of the answer that move with the time alone, as pydantic's `exclude` has them: no part of its
    ETag."""

    @property
    def takes_key(self) -> bool:
        """Whether an Idempotency-Key says that it is the same request again."""
        return self.method == "POST" and self.dialect is NATIVE

    is_stream: bool = field(init=False)
    """Neither its answer nor its body ends within the time of a request."""

    def __post_init__(self) -> None:
        is_streamed = any(isinstance(a, Streamed) for a in self.answers.values())
        object.__setattr__(self, "is_stream", self.waits or isinstance(self.body, Uploads) or is_streamed)

    @property
    def path_fields(self) -> list[str]:
        """Parameters that stand in the path."""
        return [name for name in self.params.model_fields if f"{{{name}}}" in self.path]

    @property
    def query_fields(self) -> list[str]:
        """Parameters that stand behind the ?."""
        return [name for name in self.params.model_fields if name not in self.path_fields]
