"""Tasks that come one by one, and whose they are: each is in the standing run of its token and day (UTC), so
that a run ends and its report stays small. Data only.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.time_format import DAY_MS, iso_day

API_SOURCE = "api"
"""Source of a standing run, which has no file."""
OPEN_AFTER_MS = 3_600_000
"""A standing run is not over before so long after its day, though none of its tasks is open: a request that
began within the day may still bring one."""


@dataclass(frozen=True, slots=True)
class Producer:
    """Whose token brings tasks."""

    token_id: str
    name: str
    account: str

    def run_name(self, now_ms: int) -> str:
        """Of the standing run of the day."""
        return f"api-{self.name}-{iso_day(now_ms)}"


@dataclass(frozen=True, slots=True)
class NewTask:
    """A task that is to be stored. Its id is made before, so that storing it can be repeated."""

    id: str
    task_type: str
    payload: str
    """JSON, as it is sent."""
    priority: int
    fingerprint: str
    """TaskSpec.fingerprint."""
    estimate: Decimal
    key: str | None = None
    """The caller's own, unique for each token; None: it gave none."""
    webhook_url: str | None = None
    """Where its end is to be posted, as the provider would."""


@dataclass(frozen=True, slots=True)
class Taking:
    """The tasks of one request."""

    producer: Producer
    tasks: Sequence[NewTask]
    action: str
    """What the list of actions calls it."""
    request_id: str


def day_start(now_ms: int) -> int:
    """Midnight (UTC) before a time."""
    return now_ms - now_ms % DAY_MS
