"""A handler's result as an HTTP answer: JSON with an ETag, or a stream."""

import hashlib
from collections.abc import Mapping
from typing import Any

import structlog
from aiohttp import web

from app.api.compression import coding_for, compressed
from app.api.pages import Page
from app.api.problems import Problem
from app.api.readers import StalledError, drain, send
from app.api.route import Answer, Route, Stream
from app.api.whole import SECURITY, whole_answer
from app.ports import StoreUnavailable

EVENTS = "text/event-stream"
log = structlog.get_logger(__name__)


async def respond(
    result: Any, request: web.Request, route: Route, headers: Mapping[str, str]
) -> web.StreamResponse:
    """Send a stream; make the answer of anything else."""
    if isinstance(result, Stream):
        return await _streamed(result, request, headers)
    answer = result if isinstance(result, Answer) else Answer(result)
    body = answer.body
    if body is None and answer.model is not None:
        body = answer.model.model_dump_json().encode()
    body = body or b"null"
    more = dict(answer.headers)
    if request.method in ("GET", "HEAD") and answer.status == 200:
        more["ETag"] = etag = _etag(answer, body, route)
        if _is_known(etag, ",".join(request.headers.getall("If-None-Match", []))):
            return web.Response(status=304, headers={**SECURITY, **headers, **more})
    if isinstance(answer.model, Page) and answer.model.next_cursor is not None:
        following = request.rel_url.update_query(cursor=answer.model.next_cursor)
        more["Link"] = f'<{following}>; rel="next"'
    return whole_answer(request, answer.status, {**headers, **more}, body, "application/json")


def _etag(answer: Answer, body: bytes, route: Route) -> str:
    """Of the bytes; a weak one where the time alone changes them."""
    if answer.model is None or not route.of_the_moment:
        return f'"{_version(body)}"'
    return f'W/"{_version(answer.model.model_dump_json(exclude=dict(route.of_the_moment)).encode())}"'


def _version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:32]


def _is_known(etag: str, asked: str) -> bool:
    """Weak comparison, as If-None-Match has it (RFC 9110)."""
    tags = [tag.strip().removeprefix("W/") for tag in asked.split(",")]
    return "*" in tags or etag.removeprefix("W/") in tags


async def _streamed(stream: Stream, request: web.Request, headers: Mapping[str, str]) -> web.StreamResponse:
    response = web.StreamResponse(
        status=stream.status, headers={**SECURITY, "X-Accel-Buffering": "no", **headers, **stream.headers}
    )
    response.content_type = stream.media_type
    chunks = stream.chunks
    # Events are few, small and due at once.
    if stream.media_type != EVENTS:
        response.headers["Vary"] = "Accept-Encoding"
        if coding := coding_for(",".join(request.headers.getall("Accept-Encoding", []))):
            response.headers["Content-Encoding"] = coding
            chunks = compressed(chunks, coding)
    await response.prepare(request)
    try:
        if request.method != "HEAD":
            async for chunk in chunks:
                await send(response, request, chunk)
            await drain(request)
    except StalledError:
        _cut_off(request)
        return response
    except ConnectionError:
        return response  # whoever read it has left
    except Problem:
        # The token has ended. Who listens to events comes back, and is told so.
        if stream.media_type != EVENTS:
            _cut_off(request)
            return response
    except StoreUnavailable as error:
        log.warning("api_store_unavailable", error=type(error).__name__)
        _cut_off(request)
        return response
    except Exception as error:
        log.exception("api_stream_failed", error=type(error).__name__)
        _cut_off(request)
        return response
    finally:
        # At once, not when it is found to be garbage: whoever listens is counted.
        if (close := getattr(stream.chunks, "aclose", None)) is not None:
            await close()
    await response.write_eof()
    return response


def _cut_off(request: web.Request) -> None:
    """Too late for a status: without its end the answer is seen to be cut off."""
    if request.transport is not None:
        request.transport.abort()
