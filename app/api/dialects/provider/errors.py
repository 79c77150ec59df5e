"""What goes wrong, in the provider's envelope (C-J)."""

import time
from collections.abc import Mapping
from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.access import NO_TOKEN
from app.api.problems import (
    CONFLICT,
    FORBIDDEN,
    INTERNAL,
    INVALID,
    MALFORMED,
    NOT_FOUND,
    RATE_LIMITED,
    TOO_LARGE,
    UNAUTHORIZED,
    UNAVAILABLE,
    UNSUPPORTED_MEDIA_TYPE,
    Dialect,
    FieldError,
    Kind,
    Problem,
)
from app.domain.time_format import iso_utc

VALIDATION = "VALIDATION_ERROR"
VALIDATION_MESSAGE = "Request validation failed"
Details = list[dict[str, str]] | dict[str, Any]


class ProviderError(BaseModel):
    """What went wrong, as the provider says it."""

    code: str = Field(description="For programs: VALIDATION_ERROR, RESOURCE_ALREADY_EXISTS …")
    message: str
    details: Details | None = Field(default=None, exclude_if=lambda details: details is None)
    timestamp: str


class ProviderErrorEnvelope(BaseModel):
    """The body of every answer that is none of 2xx."""

    success: Literal[False] = False
    error: ProviderError


class Refusal(Problem):
    """A problem that the provider has a code of its own for."""

    def __init__(
        self,
        kind: Kind,
        code: str,
        message: str,
        details: Details | None = None,
        *,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(kind, message, headers=headers)
        self.code = code
        self.details = details

    @property
    def error(self) -> ProviderError:
        return provider_error(self.code, self.detail, self.details)


def provider_error(code: str, message: str, details: Details | None = None) -> ProviderError:
    """With the present time."""
    now = iso_utc(time.time_ns() // 1_000_000)
    return ProviderError(code=code, message=message, details=details, timestamp=now)


def already_exists(key: str) -> Refusal:
    """An earlier task of the token has the key; which, GET with the key in place of an id tells."""
    details = {"field": "idempotencyKey", "value": key}
    return Refusal(CONFLICT, "RESOURCE_ALREADY_EXISTS", "Task already exists", details)


def insufficient_credits() -> Refusal:
    """The balance, less what is queued, does not cover the task."""
    return Refusal(FORBIDDEN, "INSUFFICIENT_CREDITS", "Insufficient credits")


def task_not_found(task_id: str) -> Refusal:
    """None of the account's has this id or key."""
    return Refusal(NOT_FOUND, "RESOURCE_NOT_FOUND", "Task not found", {"id": task_id})


def field_details(errors: list[FieldError], prefix: str = "") -> list[dict[str, str]]:
    """As the provider lists what is wrong with fields."""
    return [{"field": prefix + (error.field or ""), "message": error.remedy} for error in errors]


_CODES = {
    MALFORMED: VALIDATION,
    UNAUTHORIZED: "INVALID_OR_EXPIRED_API_KEY",
    FORBIDDEN: "INSUFFICIENT_PERMISSIONS",
    NOT_FOUND: "RESOURCE_NOT_FOUND",
    TOO_LARGE: VALIDATION,
    UNSUPPORTED_MEDIA_TYPE: VALIDATION,
    INVALID: VALIDATION,
    RATE_LIMITED: "RATE_LIMIT_EXCEEDED",
    UNAVAILABLE: "SERVICE_UNAVAILABLE",
}
_STATUSES = {INVALID.status: 400}


def _document(problem: Problem, _request_id: str) -> tuple[int, BaseModel]:
    status = _STATUSES.get(problem.kind.status, problem.kind.status)
    error = problem.error if isinstance(problem, Refusal) else _error(problem)
    return status, ProviderErrorEnvelope(error=error)


def _error(problem: Problem) -> ProviderError:
    code = _CODES.get(problem.kind, "INTERNAL_SERVER_ERROR")
    if problem.kind is UNAUTHORIZED and problem.errors:
        code = "INVALID_API_KEY_FORMAT" if problem.errors[0].code == NO_TOKEN else "MISSING_API_KEY"
    if problem.kind is INVALID:
        return provider_error(code, VALIDATION_MESSAGE, field_details(problem.errors))
    message = "Internal server error" if problem.kind is INTERNAL else problem.detail
    return provider_error(code, message)


PROVIDER = Dialect(
    "provider", ProviderErrorEnvelope, "application/json", _document, _STATUSES, subjects=("run", "task")
)
