"""What goes wrong, as problem documents (RFC 9457), and how a dialect says the same in its own shape.

A problem names fields and remedies and never quotes what was sent: that may be a secret or a prompt.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated

from pydantic import BaseModel, Field


@dataclass(frozen=True, slots=True)
class Kind:
    """A kind of problem; the documentation lists all of them."""

    code: str
    status: int
    title: str


MALFORMED = Kind("malformed", 400, "The request cannot be read.")
UNAUTHORIZED = Kind("unauthorized", 401, "A valid token is needed.")
FORBIDDEN = Kind("forbidden", 403, "This token may not do that.")
NOT_FOUND = Kind("not_found", 404, "There is no such thing, or this token may not see it.")
METHOD_NOT_ALLOWED = Kind("method_not_allowed", 405, "This address does not take that method.")
TOO_SLOW = Kind("too_slow", 408, "The body came too slowly.")
CONFLICT = Kind("conflict", 409, "Its present state does not allow that.")
TOO_LARGE = Kind("too_large", 413, "The body is too large.")
UNSUPPORTED_MEDIA_TYPE = Kind("unsupported_media_type", 415, "The body is of a type that is not taken here.")
MISDIRECTED = Kind("misdirected", 421, "This is not the host that was asked for.")
INVALID = Kind("invalid", 422, "The request is understood and not valid.")
RATE_LIMITED = Kind("rate_limited", 429, "This token sends too many requests.")
INTERNAL = Kind("internal", 500, "This is a bug of Tallyhook.")
NOT_INSTALLED = Kind("not_installed", 501, "A part that this needs is not installed.")
UNAVAILABLE = Kind("unavailable", 503, "The service cannot answer now.")
TIMEOUT = Kind("timeout", 504, "The answer took too long.")

KINDS = (
    MALFORMED,
    UNAUTHORIZED,
    FORBIDDEN,
    NOT_FOUND,
    METHOD_NOT_ALLOWED,
    TOO_SLOW,
    CONFLICT,
    TOO_LARGE,
    UNSUPPORTED_MEDIA_TYPE,
    MISDIRECTED,
    INVALID,
    RATE_LIMITED,
    INTERNAL,
    NOT_INSTALLED,
    UNAVAILABLE,
    TIMEOUT,
)


class FieldError(BaseModel):
    """One thing that is wrong."""

    line: Annotated[int | None, Field(description="Of an upload, from 1; null elsewhere.")] = None
    field: Annotated[str | None, Field(description="The parameter, header, column or field of the body.")] = (
        None
    )
    code: str = Field(description="For programs.")
    remedy: str = Field(description="For people: what to write instead.")


class ProblemDocument(BaseModel):
    """A problem as RFC 9457 has it, with `code`, `request_id` and `errors` added."""

    type: str = Field(description="`urn:tallyhook:problem:` and the code.")
    title: str
    status: int
    detail: str
    code: str = Field(description="For programs; it does not change.")
    request_id: str = Field(description="As the logs have it, and the header X-Request-Id.")
    errors: list[FieldError] = Field(default_factory=list)
    errors_unnamed: int = Field(default=0, description="How many more there are than `errors` names.")


class Problem(Exception):  # noqa: N818 - as RFC 9457 calls it
    """Ends a request. `detail` is for people and ends with what to do."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        *,
        errors: Sequence[FieldError] = (),
        errors_unnamed: int = 0,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail
        self.errors = list(errors)
        self.errors_unnamed = errors_unnamed
        self.headers = dict(headers or {})

    def document(self, request_id: str) -> ProblemDocument:
        """As the native dialect answers it."""
        return ProblemDocument(
            type=f"urn:tallyhook:problem:{self.kind.code}",
            title=self.kind.title,
            status=self.kind.status,
            detail=self.detail,
            code=self.kind.code,
            request_id=request_id,
            errors=self.errors,
            errors_unnamed=self.errors_unnamed,
        )


@dataclass(frozen=True, slots=True)
class Dialect:
    """How a group of routes says what went wrong."""

    name: str
    error_model: type[BaseModel]
    media_type: str
    document: Callable[[Problem, str], tuple[int, BaseModel]]
    """(HTTP status, body) of a problem and a request id; the status may be another than the problem's."""
    statuses: Mapping[int, int] = field(default_factory=dict)
    """Which others it answers with instead."""
    subjects: tuple[str, ...] = ()
    """First words of addresses that its clients ask for, besides those of its routes."""


def _native(problem: Problem, request_id: str) -> tuple[int, BaseModel]:
    return problem.kind.status, problem.document(request_id)


NATIVE = Dialect("native", ProblemDocument, "application/problem+json", _native)


def not_found(what: str) -> Problem:
    """Nothing has this id; or something of another account has, which is not said."""
    return Problem(NOT_FOUND, f"no {what} of this id is visible to this token: look at its list")


def invalid(field: str, code: str, remedy: str) -> Problem:
    """One field is wrong."""
    return Problem(INVALID, f"{field}: {remedy}", errors=[FieldError(field=field, code=code, remedy=remedy)])
