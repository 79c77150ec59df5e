"""Handlers of servers that misbehave."""

from aiohttp import web


async def cut_connection(request: web.Request) -> web.StreamResponse:
    """Close the connection before any byte of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
