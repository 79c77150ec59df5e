"""What goes wrong, in the shape that clients of OpenAI's API read."""

from pydantic import BaseModel, Field

from app.api.problems import INVALID, Dialect, FieldError, Problem


class BatchApiError(BaseModel):
    """What went wrong."""

    message: str = Field(description="For people; it ends with what to do.")
    type: str = Field(description="invalid_request_error, server_error …")
    param: str | None = Field(description="The parameter or field.")
    code: str | None = Field(description="For programs.")


class BatchApiErrorEnvelope(BaseModel):
    """The body of every answer that is none of 2xx."""

    error: BatchApiError


# Their clients send 409 again, and show 422 as another kind of error than theirs.
_STATUSES = {INVALID.status: 400}
_TYPES = {403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}


def _document(problem: Problem, _request_id: str) -> tuple[int, BaseModel]:
    status = _STATUSES.get(problem.kind.status, problem.kind.status)
    first = problem.errors[0] if problem.errors else None
    kind = "server_error" if status >= 500 else _TYPES.get(status, "invalid_request_error")
    code = _CODES.get(status) or (first.code if first else problem.kind.code)
    error = BatchApiError(message=problem.detail, type=kind, param=first.field if first else None, code=code)
    return status, BatchApiErrorEnvelope(error=error)


_SUBJECTS = (
    "assistants",
    "audio",
    "chat",
    "completions",
    "conversations",
    "embeddings",
    "fine_tuning",
    "images",
    "models",
    "moderations",
    "responses",
    "threads",
    "uploads",
    "vector_stores",
    "videos",
)
BATCH = Dialect("batch", BatchApiErrorEnvelope, "application/json", _document, _STATUSES, _SUBJECTS)


def wrong(param: str | None, code: str, message: str) -> Problem:
    """A request that is understood and not valid."""
    return Problem(INVALID, message, errors=[FieldError(field=param, code=code, remedy=message)])
