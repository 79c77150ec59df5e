"""Bodies and answers in the provider's shapes (C-G)."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, RootModel

from app.api.dialects.provider.errors import ProviderError
from app.api.route import Body, Params
from app.domain.provider_task import Status

BATCH_MAX = 500
KEY_CHARS_MAX = 255
KEY_PATTERN = r"^[^\x00-\x1f\x7f]+$"
TaskType = Literal["AIMODE", "GOOGLE", "GOOGLE_NEWS", "GEMINI", "CHATGPT", "COPILOT", "PERPLEXITY", "GROK"]
Number = int | float


def _whole(value: Any) -> Any:
    """JSON knows one kind of number: 5.0 is 5."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


class ProviderWebhook(Body):
    """Where the finished task is posted."""

    url: str = Field(min_length=1, max_length=2_000)


class ProviderTaskBody(Body):
    """A task that is to be done."""

    taskType: TaskType  # noqa: N815
    payload: dict[str, Any] = Field(description="The body of the matching synchronous request.")
    priority: Annotated[
        int, Field(strict=True, ge=1, le=10, description="Higher is served first."), BeforeValidator(_whole)
    ] = 1
    idempotencyKey: Annotated[  # noqa: N815
        str | None,
        Field(
            min_length=1,
            max_length=KEY_CHARS_MAX,
            pattern=KEY_PATTERN,
            description="Unique for each token, for as long as it is kept.",
        ),
    ] = None
    webhook: ProviderWebhook | None = None


class ProviderTaskBatch(RootModel[list[Any]]):
    """Tasks, each judged by itself."""

    root: Annotated[list[Any], Field(min_length=1, max_length=BATCH_MAX)]


class ProviderRequest(RootModel[dict[str, Any]]):
    """What one engine is asked."""


class ProviderTask(BaseModel):
    """A task as its caller knows it."""

    id: str
    taskType: str  # noqa: N815
    status: Status
    priority: int
    createdAt: str  # noqa: N815
    latencyMs: int | None  # noqa: N815
    idempotencyKey: str | None  # noqa: N815


class ProviderCredits(BaseModel):
    """What a task costs."""

    creditsToCharge: Number  # noqa: N815
    creditsCharged: Number | None = Field(description="Null: not known yet.")  # noqa: N815


class ProviderTaskTaken(BaseModel):
    """A task that is stored."""

    success: Literal[True] = True
    task: ProviderTask
    credits: ProviderCredits


class ProviderBatchItem(BaseModel):
    """What became of one task of a batch."""

    success: bool
    index: int
    task: ProviderTask | None = Field(default=None, exclude_if=lambda value: value is None)
    credits: ProviderCredits | None = Field(default=None, exclude_if=lambda value: value is None)
    error: ProviderError | None = Field(default=None, exclude_if=lambda value: value is None)


class ProviderBatchSummary(BaseModel):
    """How many tasks of a batch were taken."""

    total: int
    succeeded: int
    failed: int


class ProviderBatchTaken(BaseModel):
    """A batch, item by item."""

    success: Literal[True] = True
    summary: ProviderBatchSummary
    results: list[ProviderBatchItem]


class ProviderTaskStatus(BaseModel):
    """A task, and its answer once there is one."""

    task: ProviderTask
    credits: ProviderCredits
    response: dict[str, Any] | None = Field(
        default=None,
        description="As the provider gave it, byte for byte; of a failed task `error`. Not there before.",
    )


class ProviderTaskParams(Params):
    """One task."""

    task_id: str = Field(
        min_length=1,
        max_length=KEY_CHARS_MAX,
        pattern=KEY_PATTERN,
        description="Its id, or the caller's key.",
    )


class ProviderAnswer(BaseModel):
    """The answer of one engine."""

    success: Literal[True] = True
    result: dict[str, Any]


class ProviderPriority(BaseModel):
    """Queued tasks of one priority."""

    priority: int
    count: int


class ProviderConcurrency(BaseModel):
    """Slots at the provider."""

    used: int
    max: int


class ProviderQueue(BaseModel):
    """What the account has before it."""

    queuedTasks: int  # noqa: N815
    processingTasks: int  # noqa: N815
    priorityBreakdown: list[ProviderPriority] = Field(  # noqa: N815
        description="The highest first; empty also where more than 10,000 tasks are queued."
    )
    concurrency: ProviderConcurrency | None = Field(description="Null: not known here.")


class ProviderBalance(BaseModel):
    """Credits of the account."""

    remaining: Number = Field(description="As last reported, less what is queued here.")
    perCycle: Number | None  # noqa: N815
    cycleResetsAt: str | None  # noqa: N815


class ProviderCountries(RootModel[list[str]]):
    """Codes of countries."""


class ProviderState(BaseModel):
    """A state of the US."""

    code: str
    name: str


class ProviderStates(RootModel[list[ProviderState]]):
    """States of a country."""
