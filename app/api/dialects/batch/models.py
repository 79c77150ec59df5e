"""Objects of the batch dialect, as OpenAI's clients read them. Times are whole seconds since 1970, UTC."""

import re
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

from app.api.fields import Whole
from app.api.route import Body, Params
from app.prompts.batch_file import ENDPOINTS, endpoint_remedy

METADATA_MAX = 16
Status = Literal[
    "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
]


_WINDOW = r"^(([1-9][0-9]?|[1-6][0-9]{2}|7[01][0-9]|720)h|([1-9]|[12][0-9]|30)d)$"


def _endpoint(value: Any) -> Any:
    if isinstance(value, str) and value not in ENDPOINTS:
        raise ValueError(f"no engine has this endpoint: {endpoint_remedy()}")
    return value


def _window(value: Any) -> Any:
    if isinstance(value, str) and not re.fullmatch(_WINDOW, value):
        raise ValueError("write 1h to 720h, or 1d to 30d")
    return value


class BatchFileObject(BaseModel):
    """A file: one that was uploaded, or a view over the results of a batch."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = Field(description="Then it is deleted; null: it stays as long as its results.")
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["processed"] = "processed"


class BatchFileList(BaseModel):
    """A page of the uploaded files."""

    object: Literal["list"] = "list"
    data: list[BatchFileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchFileDeleted(BaseModel):
    """What was deleted."""

    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class BatchLineError(BaseModel):
    """Why a batch failed."""

    code: str
    line: int | None
    message: str
    param: str | None


class BatchErrors(BaseModel):
    """Why a batch failed: each fault once, with the first line that has it."""

    object: Literal["list"] = "list"
    data: list[BatchLineError]


class BatchRequestCounts(BaseModel):
    """Of the lines of its file. Once it has ended, `completed` and `failed` are all of them."""

    total: int
    completed: int
    failed: int = Field(description="Also what was not sent before the batch was cancelled or expired.")


class BatchObject(BaseModel):
    """A batch as it stands."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: Status
    output_file_id: str | None = Field(description="Once it has ended, unless nothing was answered.")
    error_file_id: str | None = Field(description="Once it has ended, unless everything was answered.")
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: BatchRequestCounts
    metadata: dict[str, str] | None


class BatchList(BaseModel):
    """A page of batches, newest first."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool


class BatchCreate(Body):
    """A batch that is asked for."""

    input_file_id: str = Field(max_length=100)
    endpoint: Annotated[
        str,
        BeforeValidator(_endpoint),
        Field(
            json_schema_extra={"enum": list(ENDPOINTS)},
            description="`/v1/monitor/` and the engine, as on every line.",
        ),
    ]
    completion_window: Annotated[
        str,
        BeforeValidator(_window),
        Field(
            json_schema_extra={"pattern": _WINDOW},
            description="Such as 24h; what was not sent by then is cancelled.",
        ),
    ]
    metadata: (
        Annotated[
            dict[
                Annotated[str, StringConstraints(max_length=64)],
                Annotated[str, StringConstraints(max_length=512)],
            ],
            Field(max_length=METADATA_MAX),
        ]
        | None
    ) = None


class BatchFileParams(Params):
    """One file."""

    file_id: str


class BatchParams(Params):
    """One batch."""

    batch_id: str


class BatchFilesParams(Params):
    """Which files."""

    after: Annotated[
        str | None,
        Field(pattern=r"^file-[0-9a-f]{32}$", description="The id of the last one of the page before."),
    ] = None
    limit: Annotated[Whole, Field(ge=1, le=10_000)] = 10_000
    order: Literal["asc", "desc"] = "desc"
    purpose: Annotated[str | None, Field(max_length=50)] = None


class BatchesParams(Params):
    """Which batches."""

    after: Annotated[
        str | None,
        Field(pattern=r"^batch_[0-9a-f]{32}$", description="The id of the last one of the page before."),
    ] = None
    limit: Annotated[Whole, Field(ge=1, le=100)] = 20
