"""A server that answers with every kind of problem, in the words of a dialect: for clients that we did not
write, which make exceptions of them."""

from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

from aiohttp import web
from aiohttp.test_utils import TestServer

from app.api.dispatch import problem_parts
from app.api.problems import KINDS, Dialect, FieldError, Problem

KIND_OF = {kind.code: kind for kind in KINDS}

WAITING = (429, 503)
RETRY_S = 1
"""Longer than either client waits by itself before its first repetition."""


@dataclass
class Refusing:
    """Where it listens, and how often it was asked for each kind."""

    url: str
    asked: Counter[str] = field(default_factory=Counter)


@asynccontextmanager
async def refusing(dialect: Dialect) -> AsyncIterator[Refusing]:
    """The last word of a path is the code of the problem. What may be tried again may be so in RETRY_S."""

    async def refuse(request: web.Request) -> web.Response:
        code = request.path.rpartition("/")[2]
        told.asked[code] += 1
        kind = KIND_OF[code]
        wait = {"Retry-After": str(RETRY_S)} if kind.status in WAITING else {}
        errors = [FieldError(field="limit", code="less_than_equal", remedy="write 1000 or less")]
        problem = Problem(kind, f"what to do about {code}", errors=errors, headers=wait)
        status, headers, body = problem_parts(problem, dialect, {"X-Request-Id": "r-1"})
        return web.Response(status=status, body=body, headers=headers, content_type=dialect.media_type)

    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", refuse)
    async with TestServer(app) as server:
        told = Refusing(str(server.make_url("")).rstrip("/"))
        yield told
