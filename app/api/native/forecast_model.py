"""What `/v1/forecast` answers: the document of `tallyhook forecast --json`, its credits in strings."""

from typing import Generic, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from app.api.fields import Credits, Id, TimeText
from app.api.native.report_model import ReportedRun

T = TypeVar("T")


class _Part(BaseModel):
    """A field that the document has and its model has not is a bug of ours, and told as one."""

    model_config = ConfigDict(extra="forbid")


class Range(_Part, Generic[T]):
    """The least, the likely and the most."""

    low: T
    likely: T
    high: T


class Span(_Part):
    """null: not foreseen."""

    earliest: TimeText | None
    likely: TimeText | None
    latest: TimeText | None


class LastBalance(_Part):
    """As the provider last told it."""

    remaining: Credits
    at: TimeText


class QueuedWork(_Part):
    """Tasks that are not settled, and what they will cost."""

    tasks: int
    cost: Range[Credits]


class EngineBurn(_Part):
    """What one engine in one country cost lately; `country` null: the provider chose."""

    task_type: str
    country: str | None
    tasks: int
    credits: Credits
    credits_per_hour: Credits = Field(description="Of working time.")
    per_estimate: Credits | None = Field(description="Charged for each credit of our estimate.")


class SlotUse(_Part):
    """Tasks that the provider works on at once."""

    max: int | None
    used: int | None


class ForecastRunName(_Part):
    """Which run."""

    id: Id
    name: str
    state: str
    reason: str | None


class RunOutlook(_Part):
    """When a run ends, and what it will still cost."""

    run: ForecastRunName
    open: int
    cost: Range[Credits]
    ends: Span
    why_not: str | None = Field(description="Set when it does not end by itself.")


class LimitWarning(_Part):
    """What will or may not suffice."""

    kind: str
    sure: bool
    run_id: Id | None
    message: str


class AccountForecast(_Part):
    """An account's near future, as far as it is known; null: unknown."""

    account: str
    at: TimeText
    run: ReportedRun | None
    balance: LastBalance | None
    available: Range[Credits] | None
    resets_at: TimeText | None
    runs_out: Span
    queued: QueuedWork
    tasks_per_hour: Range[float]
    measured: bool = Field(description="false: the rate is what the slots should do.")
    usual_per_hour: Range[Credits] | None
    burn: list[EngineBurn]
    slots: SlotUse
    busiest_second: int | None
    runs: list[RunOutlook]
    warnings: list[LimitWarning]
