"""A request's path, query and body against the models of its route. Each fault is named with its field and
its remedy; what was sent is never quoted.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator, Awaitable, Iterable, Mapping
from typing import Any, TypeVar

from aiohttp import web
from multidict import MultiMapping
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from app.api.faults import field_errors
from app.api.problems import (
    INVALID,
    MALFORMED,
    NOT_FOUND,
    TOO_LARGE,
    TOO_SLOW,
    UNSUPPORTED_MEDIA_TYPE,
    FieldError,
    Problem,
    not_found,
)
from app.api.repeated import refuse_repeated_members
from app.api.route import Body, Params, Route, Upload, Uploads
from app.domain.remarks import shown

T = TypeVar("T")
M = TypeVar("M", bound=BaseModel)
JSON = "application/json"
NO_PARAMS = Params()
EMPTY_BYTES_MAX = 100
ERRORS_NAMED = 100
"""The others are counted."""
SILENT_S = 60.0
"""Of an upload: whoever sends nothing for so long holds a slot that others wait for."""


def read_params(route: Route, path: Mapping[str, str], query: MultiMapping[str]) -> Params:
    """Path and query, validated. Raises Problem: 404 where the path names nothing, else 422."""
    if not query and not path and route.params is Params:
        return NO_PARAMS
    errors = [_unknown(name, route.query_fields) for name in set(query) if name not in route.query_fields]
    errors += [_twice(name) for name in set(query) if len(query.getall(name)) > 1]
    if errors:
        raise _invalid(errors)
    given = {**query, **path}
    try:
        return route.params.model_validate(given)
    except ValidationError as error:
        errors = field_errors(error, given)
        for wrong in errors:
            if wrong.field in path:
                raise _no_such(wrong) from None
        problem = _invalid(errors)
    raise problem


def _no_such(wrong: FieldError) -> Problem:
    """Of what a path names: one of some words, or an id."""
    if wrong.code == "literal_error":
        return Problem(NOT_FOUND, f"there is no such {wrong.field}: {wrong.remedy}")
    return not_found("such thing")


def read_values(model: type[Params], values: Mapping[str, Any]) -> Params:
    """Values that came as JSON, validated. Raises Problem 422."""
    known = list(model.model_fields)
    if errors := [_unknown(name, known) for name in values if name not in known]:
        raise _invalid(errors)
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problem = _invalid(field_errors(error, values))
    raise problem


def _unknown(name: str, known: Iterable[str]) -> FieldError:
    names = ", ".join(known)
    remedy = f"leave it out; known are: {names}" if names else "leave it out; there are none"
    return FieldError(field=shown(name), code="unknown_parameter", remedy=remedy)


def _twice(name: str) -> FieldError:
    return FieldError(field=shown(name), code="given_twice", remedy="give it once")


async def read_body(
    route: Route, request: web.BaseRequest, bytes_max: int, whole: bytes | None = None
) -> BaseModel | Upload | None:
    """The body, as the route takes it. `whole`: it was read already. Raises Problem."""
    if route.body is None:
        if route.takes_key:
            await _refuse_body(request)
        return None
    if route.body_is_optional and whole is None and not request.can_read_body:
        return None
    media_type = request.content_type if "Content-Type" in request.headers else JSON
    if isinstance(route.body, Uploads) and media_type in route.body.media_types:
        return Upload(media_type, _lively_chunks(request), request.headers, request.content)
    refuse_compressed(request.headers)
    if isinstance(route.body, Uploads):
        taken = [*route.body.media_types, *([JSON] if route.body.json else [])]
        model = route.body.json
    else:
        taken, model = [JSON], route.body
    if model is None or media_type != JSON:
        kinds = ", ".join(taken)
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE, f"set Content-Type to one of: {kinds}", headers={"Accept": kinds}
        )
    bytes_max = route.body_bytes_max or bytes_max
    if whole is None:
        whole = await read_whole(request, bytes_max, is_stream=route.is_stream)
    return parsed(model, whole)


async def _refuse_body(request: web.BaseRequest) -> None:
    """Raises Problem for something in a body where none is taken: it may say how a change is meant. Some
    clients send an empty object with every POST."""
    sent = b""
    if request.can_read_body:
        async for chunk in _chunks(request):
            sent += chunk
            if len(sent) > EMPTY_BYTES_MAX:
                break
    if sent.strip() not in (b"", b"{}", b"null"):
        remedy = "leave the body out: nothing is taken from it"
        raise _invalid([FieldError(code="takes_no_body", remedy=remedy)])


def parsed(model: type[M], body: bytes) -> M:
    """A JSON body, validated. Raises Problem."""
    # As RFC 8259 allows: editors of one system begin every file so.
    body = body.removeprefix(codecs.BOM_UTF8)
    try:
        read = model.model_validate_json(body)
    except ValidationError as error:
        problem = _no_json(error) or _invalid(field_errors(error, from_json(body)))
    else:
        refuse_repeated_members(body)
        if isinstance(read, Body):
            read.note_text(body)
        return read
    raise problem


def _no_json(error: ValidationError) -> Problem | None:
    if error.error_count() > 1:
        return None
    (fault,) = error.errors(include_input=False, include_url=False)
    is_json = fault["type"] != "json_invalid"
    return None if is_json else Problem(MALFORMED, f"the body is no JSON: {fault['ctx']['error']}")


def refuse_compressed(headers: Mapping[str, str]) -> None:
    """Raises Problem, which names what is taken instead."""
    if headers.get("Content-Encoding", "identity").lower() != "identity":
        raise Problem(
            UNSUPPORTED_MEDIA_TYPE,
            "bodies are not taken compressed: send it as it is",
            headers={"Accept-Encoding": "identity"},
        )


async def read_whole(request: web.BaseRequest, bytes_max: int, *, is_stream: bool = False) -> bytes:
    """A body, as it is. Raises Problem for one that is larger."""
    if (request.content_length or 0) > bytes_max:
        raise _too_large(bytes_max)
    body = bytearray()
    # Any other request has its own time.
    async for chunk in _lively_chunks(request) if is_stream else _chunks(request):
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
    return bytes(body)


def _too_large(bytes_max: int) -> Problem:
    return Problem(TOO_LARGE, f"the body has more than {bytes_max} bytes: send less at once")


async def _chunks(request: web.BaseRequest) -> AsyncIterator[bytes]:
    while chunk := await request.content.readany():
        yield chunk


async def arriving(part: Awaitable[T]) -> T:
    """A part of what may take as long as it likes. Raises Problem when nothing comes."""
    deadline = asyncio.timeout(SILENT_S)
    try:
        async with deadline:
            return await part
    except TimeoutError:
        if not deadline.expired():
            raise
        raise Problem(TOO_SLOW, f"nothing came for {SILENT_S:g} s: send it again") from None


async def _lively_chunks(request: web.BaseRequest) -> AsyncIterator[bytes]:
    while chunk := await arriving(request.content.readany()):
        yield chunk


def _invalid(errors: list[FieldError]) -> Problem:
    first = errors[0]
    more = f" (and {len(errors) - 1:,} more)" if len(errors) > 1 else ""
    detail, unnamed = f"{first.field or 'body'}: {first.remedy}{more}", max(0, len(errors) - ERRORS_NAMED)
    return Problem(INVALID, detail, errors=errors[:ERRORS_NAMED], errors_unnamed=unnamed)
