"""What the services call, as protocols: they import these and the domain, nothing else of ours."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Protocol

from app.domain.delivery import ParsedDelivery, RawDelivery
from app.domain.run_reason import ReasonCode, RunReason
from app.domain.send_outcome import Answer
from app.domain.settlement import Attempt, Report, Settlement
from app.domain.submission import ClaimedTask, SendOptions, Submission
from app.domain.task import RunState, TaskState

Clock = Callable[[], int]
"""UTC milliseconds since 1970."""
Jitter = Callable[[], float]
"""A number in [0, 1)."""
Decide = Callable[[ParsedDelivery, Attempt, bytes | None], Settlement | None]
"""(delivery, the attempt as it stands, the response already stored for it) -> decision; None: none could be
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


@dataclass(frozen=True, slots=True)
class Balance:
    """What the provider last said an account has (C-E.6)."""

    at_ms: int
    remaining: Decimal
    """May be a minute old, and negative under a contract."""
    per_cycle: Decimal | None
    resets_at_ms: int | None
    source: str = "credits"
    """`credits`: asked for. `header`: told with a sync answer, and then fresh, but of the balance alone."""


class BalanceEnd(StrEnum):
    """How asking for the balance ended."""

    TOLD = "told"
    ABSENT = "absent"  # the provider says that its edition does not tell it (C-B22)
    REFUSED = "refused"  # the provider does not take our key
    UNKNOWN = "unknown"  # it did not answer, or something else did


@dataclass(frozen=True, slots=True)
class BalanceAnswer:
    """The end of asking for the balance."""

    end: BalanceEnd
    balance: Balance | None = None
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

    async def create(self, task: ClaimedTask) -> CreateAnswer: ...

    async def create_batch(self, tasks: Sequence[ClaimedTask]) -> list[CreateAnswer] | None: ...

    async def slots(self) -> Slots | None: ...

    async def balance(self, now_ms: int) -> BalanceAnswer: ...

    async def poll(self, task_id_or_key: str) -> PollAnswer: ...


class ReportError(ValueError):
    """A report that cannot be used; the text says why."""


class ReadReport(Protocol):
    """Parses a raw report; raises ReportError with the reason for one that cannot be used."""

    def __call__(self, body: bytes) -> Report: ...


class SubmitStore(Protocol):
    """What submitting needs of the store."""

    async def claim_pending(
        self, *, account: str, limit: int, claim: str, now_ms: int, lease_until_ms: int
    ) -> list[ClaimedTask]: ...

    async def record_submissions(self, ended: Sequence[Submission]) -> None: ...

    async def was_sent_since(self, task: ClaimedTask) -> bool: ...

    async def halt_run_if_running(self, run_id: str, state: RunState, reason: RunReason) -> bool: ...

    async def acquire_lease(self, name: str, owner: str, *, until_ms: int, now_ms: int) -> bool: ...

    async def release_lease(self, name: str, owner: str) -> None: ...

    async def accounts_with_due(self, now_ms: int) -> list[str]: ...

    async def halt_account_if_running(self, account: str, state: RunState, reason: RunReason) -> int: ...

    async def send_options(self, run_ids: Sequence[str]) -> dict[str, SendOptions]: ...


class AdmissionStore(Protocol):
    """What admission needs of the store."""

    async def outstanding(self, account: str) -> Outstanding: ...

    async def spent_since(self, account: str, since_ms: int) -> Decimal: ...

    async def note_waiting(self, account: str, reason: RunReason | None) -> None: ...

    async def store_balance(self, account: str, balance: Balance) -> None: ...

    async def last_balance(self, account: str, now_ms: int) -> Balance | None: ...

    async def charged_since(self, account: str, since_ms: int) -> Decimal: ...


class SettleCount(Protocol):
    """What settling a batch did."""

    @property
    def lost_updates(self) -> int: ...
    @property
    def verdicts(self) -> Mapping[str, int]: ...


@dataclass(slots=True)
class WaitingDeliveries:
    """Deliveries that still wait to be settled."""

    readable: list[RawDelivery]
    """Oldest first."""
    broken: dict[str, str]
    """Delivery id -> why its stored bytes do not come back."""


class SettleStore(Protocol):
    """What settling needs of the store."""

    async def waiting_deliveries(self, delivery_ids: Sequence[str]) -> WaitingDeliveries: ...

    async def try_settling(self) -> None: ...

    async def settle_deliveries(
        self, parsed: Sequence[ParsedDelivery], decide: Decide, *, now_ms: int, unmatched_until_ms: int
    ) -> SettleCount: ...

    async def quarantine_deliveries(self, errors: Sequence[tuple[str, str]]) -> None: ...

    async def hold_up_deliveries(self, errors: Sequence[tuple[str, str]], *, now_ms: int) -> None: ...

    async def halt_run_if_running(self, run_id: str, state: RunState, reason: RunReason) -> bool: ...


class DuePoll(Protocol):
    """An attempt to ask the provider about."""

    @property
    def task_id(self) -> str: ...
    @property
    def attempt(self) -> int: ...
    @property
    def state(self) -> TaskState: ...
    @property
    def provider_task_id(self) -> str | None: ...
    @property
    def idempotency_key(self) -> str: ...
    @property
    def first_sent_at_ms(self) -> int: ...
    @property
    def polls(self) -> int: ...
    @property
    def account(self) -> str: ...


class SweepStore(Protocol):
    """What the sweep needs of the store."""

    async def release_overdue_claims(self, now_ms: int) -> int: ...

    async def fold_spending(self) -> int: ...

    async def finish_runs(self, now_ms: int) -> int: ...

    async def expire_unidentified(self, *, sent_before_ms: int, reason: str) -> int: ...

    async def claim_overdue_deliveries(
        self, *, limit: int, now_ms: int, next_due_at_ms: int
    ) -> list[str]: ...

    async def release_deliveries(self, delivery_ids: Sequence[str]) -> None: ...

    async def quarantine_unended(self, *, tries_max: int) -> dict[str, str]: ...

    async def claim_due_polls(self, *, limit: int, now_ms: int, interval_ms: int) -> Sequence[DuePoll]: ...

    async def store_deliveries(self, raw: Sequence[RawDelivery], *, due_at_ms: int) -> object: ...

    async def expire_if_unreported(
        self, expired: Sequence[tuple[str, int]], *, code: str, reason: str
    ) -> int: ...

    async def halt_sent_runs_if_running(self, account: str, state: RunState, reason: RunReason) -> int: ...

    async def resume_account_if_paused_for(self, account: str, code: ReasonCode) -> int: ...
