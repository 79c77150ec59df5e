"""One request of aiohttp's, answered by an ASGI application. Bodies and answers are whole, and bounded."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from aiohttp import web

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

_LEFT_OUT = (b"authorization", b"cookie")
"""Nothing behind needs them, and what does not have them cannot log them."""
_OURS = ("content-length", "content-type")


async def call_asgi(
    application: Application, request: web.Request, body: bytes, more: dict[str, Any]
) -> web.Response:
    """Its answer. `more`: for the scope. Raises what the application raises, and RuntimeError where it says
    nothing."""
    headers = [(name.lower(), value) for name, value in request.raw_headers]
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": request.path,
        "raw_path": request.path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [pair for pair in headers if pair[0] not in _LEFT_OUT],
        "client": None,
        "server": None,
        **more,
    }
    incoming: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]
    start: Message = {}
    answered = bytearray()
    is_over = asyncio.Event()

    async def receive() -> Message:
        if incoming:
            return incoming.pop()
        await is_over.wait()
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            start.update(message)
        else:
            answered.extend(message.get("body", b""))

    try:
        await application(scope, receive, send)
    finally:
        is_over.set()
    if not start:
        raise RuntimeError("the application did not answer")
    return _response(start, bytes(answered))


def _response(start: Message, body: bytes) -> web.Response:
    given = {name.decode("latin-1"): value.decode("latin-1") for name, value in start.get("headers", ())}
    response = web.Response(
        status=start["status"], body=body, headers={n: v for n, v in given.items() if n.lower() not in _OURS}
    )
    if (media_type := given.get("content-type")) is not None:
        response.headers["Content-Type"] = media_type
    return response
