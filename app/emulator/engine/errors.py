"""Refusals and how each edition writes them (C-J, rows B4 to B6, B9, B10, B19, B21 of C-B)."""

from collections.abc import Mapping
from typing import Any

import msgspec

from app.emulator.data.editions import Edition
from app.emulator.engine.clock import iso

_OLD_STRINGS = {
    "MISSING_API_KEY": "Invalid or missing API key",
    "INVALID_API_KEY_FORMAT": "Invalid or missing API key",
    "INVALID_OR_EXPIRED_API_KEY": "Invalid or missing API key",
    "REQUEST_CANCELED": "Request was canceled",
}
"""Messages of the oldest layer, where they are known; otherwise it uses the newer message as its string."""
_LIMIT_CODES = frozenset({"CONCURRENT_LIMIT_EXCEEDED", "CONCURRENCY_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED"})


class RefusalError(Exception):
    """An answer other than 200, raised anywhere below a route and written once, in the edition of the key."""

    def __init__(
        self,
        status: int,
        code: str,
        message: str,
        details: Any = None,
        *,
        retry_after_s: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message
        self.details = details
        self.retry_after_s = retry_after_s  # only the hourly limit of the oldest layer states one in its body
        self.headers = headers


def error_object(code: str, message: str, details: Any, now_s: float) -> dict[str, Any]:
    """The inner `error` object (C-J.1)."""
    body: dict[str, Any] = {"code": code, "message": message}
    if details is not None:
        body["details"] = details
    body["timestamp"] = iso(now_s)
    return body


def envelope(edition: Edition, refusal: RefusalError, now_s: float) -> bytes:
    """The whole error body in the form of the edition (C-J.1, rows B5, B6, B9)."""
    if edition.string_errors:
        old: dict[str, Any] = {"success": False, "error": _OLD_STRINGS.get(refusal.code, refusal.message)}
        if refusal.code == "VALIDATION_ERROR" and refusal.details is not None:
            old["details"] = refusal.details
        if refusal.retry_after_s is not None:
            old["retry_after"] = refusal.retry_after_s
        return msgspec.json.encode(old)
    body: dict[str, Any] = {}
    if edition.success_in_limit_errors or refusal.code not in _LIMIT_CODES:
        body["success"] = False
    body["error"] = error_object(refusal.code, refusal.message, refusal.details, now_s)
    return msgspec.json.encode(body)


def validation_failed(status: int, problems: list[dict[str, str]]) -> RefusalError:
    """400, or 422 for async bodies of older editions (row B19)."""
    return RefusalError(status, "VALIDATION_ERROR", "Request validation failed", problems)


def missing_key() -> RefusalError:
    """No header, another scheme word, or an empty key (C-C)."""
    return RefusalError(401, "MISSING_API_KEY", "Missing or invalid API key")


def malformed_key() -> RefusalError:
    """A key that is not of the published shape (C-C)."""
    return RefusalError(401, "INVALID_API_KEY_FORMAT", "Invalid API key format")


def unknown_key() -> RefusalError:
    """Well-formed, but unknown, revoked or expired (C-C)."""
    return RefusalError(401, "INVALID_OR_EXPIRED_API_KEY", "Invalid or expired API key")


def insufficient_credits(edition: Edition) -> RefusalError:
    """403; the code is row B21."""
    return RefusalError(403, edition.insufficient_code, edition.insufficient_message)


def route_not_found(path: str) -> RefusalError:
    """404 for a path that is not served (C-J.2)."""
    return RefusalError(404, "RESOURCE_NOT_FOUND", "Route not found", {"id": path})


def task_not_found(task_id: str) -> RefusalError:
    """404 for a task that is unknown, deleted or another organization's (C-G.4, L35)."""
    return RefusalError(404, "RESOURCE_NOT_FOUND", "Task not found", {"id": task_id})


def already_exists(idempotency_key: str) -> RefusalError:
    """409; deliberately without the id of the existing task (C-G.2)."""
    return RefusalError(
        409,
        "RESOURCE_ALREADY_EXISTS",
        "Task already exists",
        {"field": "idempotencyKey", "value": idempotency_key},
    )


def rate_limited() -> RefusalError:
    """429 of the one-second window; no Retry-After, no details (row B9)."""
    return RefusalError(429, "RATE_LIMIT_EXCEEDED", "API key rate limit exceeded")


def queue_full(edition: Edition, limit: int, queued: int, batch_size: int) -> RefusalError:
    """429 of the backlog; the details are row B48."""
    details: dict[str, int] = {"limit": limit}
    if edition.queue_limit_counts:
        details = {
            "queuedCount": queued,
            "batchSize": batch_size,
            "maxQueueSize": limit,
            "remainingCapacity": max(0, limit - queued),
        }
    message = f"Queue limit exceeded. Maximum {limit} queued tasks allowed per organization"
    return RefusalError(429, "QUEUE_LIMIT_EXCEEDED", message, details)


def concurrency_full(edition: Edition, limit: int) -> RefusalError:
    """429 of a sync call without a free slot (row B4)."""
    return RefusalError(429, edition.concurrency_code, edition.concurrency_message, {"limit": limit})


def internal_error(message: str = "Internal server error") -> RefusalError:
    """500 (C-J.2)."""
    return RefusalError(500, "INTERNAL_SERVER_ERROR", message)
