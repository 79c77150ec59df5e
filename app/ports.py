"""What the services call, as protocols: they import these and the domain, nothing else of ours."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from app.domain.send_outcome import Answer

if TYPE_CHECKING:
    # The store loads this module for its exceptions alone; what stands here is a fifth of its own rules.
    from app.domain.accounting.balances import Balance
    from app.domain.delivery import ParsedDelivery, RawDelivery
    from app.domain.settlement import Attempt, Report, Settlement, StoredAnswer
    from app.domain.submission import ClaimedTask

Clock = Callable[[], int]
"""UTC milliseconds since 1970."""
Jitter = Callable[[], float]
"""A number in [0, 1)."""
Decide: TypeAlias = "Callable[[ParsedDelivery, Attempt, StoredAnswer | None], Settlement | None]"
"""(delivery, the attempt as it stands, the answer already taken for it) -> decision; None: none could be
made, and the delivery stays as it is."""


class StoreUnavailable(Exception):  # noqa: N818 - a state of the world, not a fault of the caller
    """Trouble of the database: it did not answer, in spite of several tries. Whatever was asked can be asked
    again, and nothing that was asked about is to blame."""


class StoreRefused(StoreUnavailable):
    """The database answers and refuses, for a reason that is not in the rows: a table, a right, a timeout, a
    schema that is not ours. It may last until a person looks."""


class RowsRefused(Exception):  # noqa: N818 - of the rows, not of the caller
    """The database refuses these very rows (a number out of range, a text that is none, a key that is there
    already), and would again. None of them was written."""


class NameTaken(Exception):  # noqa: N818 - it is there, and nothing has failed
    """Another run has the name that a new one was to get, which is the text."""


class KeyLost(Exception):  # noqa: N818 - nothing has failed but to be in time
    """Another request works under the idempotency key by now; nothing was written."""


class ObjectsUnavailable(Exception):  # noqa: N818 - a state of the world, as above
    """Trouble of object storage that passes: no answer, a full disk. What was asked may have been done, and
    can be asked again."""


class ObjectsRefused(Exception):  # noqa: N818 - of the settings, not of the caller
    """Object storage cannot be used as it is set up: credentials, a right, a bucket, a region. It lasts until
    a person does what `remedy` says."""

    def __init__(self, message: str, remedy: str) -> None:
        super().__init__(f"{message}: {remedy}")
        self.message = message
        self.remedy = remedy


@dataclass(frozen=True, slots=True)
class ArchivedBlock:
    """One object of the archive: deliveries of a day, from one id to another."""

    day_ms: int
    """Midnight (UTC)."""
    path: str
    """Within the archive."""
    first_id: str
    last_id: str
    count: int
    body_bytes: int
    """Of the bodies, as they were received."""
    block_bytes: int
    sha256: str
    """Of the whole object, in hex."""


class BlockDamaged(Exception):  # noqa: N818 - a state of the block
    """Bytes of the archive that are no block, or not the one that was written; the text says why."""


ARCHIVE_TROUBLE = (ObjectsUnavailable, ObjectsRefused, BlockDamaged)
"""What the archive raises; of the database it says nothing."""


class ArchivedDeliveries(Protocol):
    """The archive, as who reads it knows it."""

    async def deliveries(self, block: ArchivedBlock, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Delivery id -> its row as it stood in the database, `body` as it was received (encoding identity).
        Without those that are not in the block. Raises BlockDamaged, ObjectsUnavailable, ObjectsRefused."""


@dataclass(frozen=True, slots=True)
class CreateAnswer:
    """The end of one create call, whatever edition answered it."""

    answer: Answer
    http_status: int | None = None
    """None: no response."""
    code: str | None = None
    message: str | None = None
    provider_task_id: str | None = None
    credits_to_charge: Decimal | None = None
    wait_s: float | None = None
    """What the provider asked us to wait, by Retry-After or retry_after."""
    request_id: str | None = None

    @property
    def is_providers(self) -> bool:
        """The provider itself said it, where it takes tasks."""
        elsewhere = Answer.GATEWAY, Answer.LOST, Answer.MISDIRECTED
        return self.http_status is not None and self.answer not in elsewhere


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """The end of one status call."""

    found: bool | None
    """True: the task is known. False: the provider says 404. None: no usable answer, ask again later."""
    finished: bool = False
    body: bytes = b""
    """The raw body, for a finished task."""
    gateway: str | None = None
    """What answered in the provider's place, or that it serves no such address, for people; None: it was the
    provider, or nobody."""


@dataclass(frozen=True, slots=True)
class Slots:
    """GET /v1/async/status, as far as admission needs it (C-G.5)."""

    concurrency: int | None
    """None: the provider could not say."""
    used: int | None = None
    """Of them in use, sync calls included; None: the provider could not say."""


class BalanceEnd(StrEnum):
    """How a request for the balance ended."""

    REPORTED = "told"
    ABSENT = "absent"  # the provider says that its edition does not report it (C-B22)
    REFUSED = "refused"  # the provider does not take our key
    UNKNOWN = "unknown"  # it did not answer, or something else did


@dataclass(frozen=True, slots=True)
class BalanceAnswer:
    """The end of a request for the balance."""

    end: BalanceEnd
    balance: "Balance | None" = None
    """Only when TOLD."""
    why: str = ""
    """Why it was not, for people."""


@dataclass(frozen=True, slots=True)
class Outstanding:
    """What an account has at the provider and not yet back."""

    tasks: int
    credits: Decimal
    """Held: the estimates of what is accepted and not settled."""


class Provider(Protocol):
    """The provider as the services see it. Paces itself; never raises for what the provider does."""

    @property
    def share_per_s(self) -> float:
        """Requests a second that this process may send at present."""
        ...

    async def create(self, task: "ClaimedTask") -> CreateAnswer: ...

    async def create_batch(self, tasks: "Sequence[ClaimedTask]") -> list[CreateAnswer] | None: ...

    async def slots(self) -> Slots | None: ...

    async def balance(self, now_ms: int) -> BalanceAnswer: ...

    async def poll(self, task_id_or_key: str) -> PollAnswer: ...


class ReportError(ValueError):
    """A report that cannot be used; the text says why."""


class ReadReport(Protocol):
    """Parses a raw report; raises ReportError with the reason for one that cannot be used."""

    def __call__(self, body: bytes) -> "Report": ...


ReadAnswer = Callable[[bytes], bytes]
"""The answer in a raw report, unwrapped, as UTF-8; raises ReportError for one that cannot be used."""


@dataclass(slots=True)
class WaitingDeliveries:
    """Deliveries that still wait to be settled."""

    readable: "Iterator[RawDelivery]"
    """Oldest first. Each is unpacked as it is taken, and need not be kept: a group's bodies are megabytes."""
    broken: dict[str, str]
    """Delivery id -> why its stored bytes do not come back; of those that were taken so far."""
