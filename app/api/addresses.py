"""Which route an address and a method have, and in whose words it is said that they have none.

A client of another API gets its own API's errors also for what is no address here. What was sent is never
quoted: a path may hold what is nobody's business.
"""

from collections.abc import Sequence

from aiohttp import web
from aiohttp.web_urldispatcher import UrlDispatcher, UrlMappingMatchInfo

from app.api.problems import METHOD_NOT_ALLOWED, NATIVE, NOT_FOUND, Dialect, Problem
from app.api.route import Route

VERSION = "v1"
_NOWHERE = "there is nothing at this address"


class Addresses:
    """Those of a list of routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._plain = {(route.method, route.path): route for route in routes if "{" not in route.path}
        """Routes without a parameter in their path."""
        self._routes: dict[web.AbstractRoute, Route] = {}
        self._router = UrlDispatcher()
        for route in routes:
            self._routes[self._router.add_route(route.method, route.path, _unused)] = route
        self._router.freeze()
        self._dialects: dict[str, Dialect] = {}
        """By the first word of a path below its version."""
        for route in routes:
            self._dialects[_subject(route.path)] = route.dialect
        for dialect in {route.dialect.name: route.dialect for route in routes}.values():
            for subject in dialect.subjects:
                self._dialects.setdefault(subject, dialect)

    def dialect_of(self, path: str) -> Dialect:
        """In which a client speaks that asks for this."""
        return self._dialects.get(_subject(path), NATIVE)

    async def resolve(self, request: web.Request) -> tuple[Route, dict[str, str]]:
        """The route, and what its path names. Raises Problem: 404, or 405 with Allow."""
        method = "GET" if request.method == "HEAD" else request.method
        if (plain := self._plain.get((method, request.path))) is not None:
            return plain, {}
        # What GET says, without its body: aiohttp leaves that out.
        asked = request.clone(method="GET") if request.method == "HEAD" else request
        found = await self._router.resolve(asked)
        if (allowed := _allowed(found)) is not None:
            raise Problem(METHOD_NOT_ALLOWED, f"use one of: {allowed}", headers={"Allow": allowed})
        if found.http_exception is not None:
            raise Problem(NOT_FOUND, await self._nowhere(request))
        return self._routes[found.route], dict(found)

    async def _nowhere(self, request: web.Request) -> str:
        """With the address that is meant, where one differs in slashes or in the version only."""
        words = [word for word in request.rel_url.raw_path.split("/") if word not in ("", VERSION)]
        meant = request.rel_url.with_path("/".join(["", VERSION, *words]), encoded=True)
        if meant.raw_path != request.rel_url.raw_path:
            found = await self._router.resolve(request.clone(rel_url=meant))
            if found.http_exception is None:
                path = self._routes[found.route].path
                return f"{_NOWHERE}, but at {path}: mind a base URL's /{VERSION} and slashes at the end"
        return f"{_NOWHERE}: /openapi.json has all of them"


def _allowed(found: UrlMappingMatchInfo) -> str | None:
    """Methods of an address that takes others than the one that was asked for; None: it is no address."""
    if not isinstance(found.http_exception, web.HTTPMethodNotAllowed):
        return None
    methods = set(found.http_exception.allowed_methods)
    return ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))


def _subject(path: str) -> str:
    """`/v1/async/task` is of `async`; so is what leaves the version out, or has it twice."""
    return next((word for word in path.split("/") if word not in ("", VERSION)), "")


async def _unused(_request: web.Request) -> web.StreamResponse:
    raise RuntimeError("the dispatcher calls handlers itself")
