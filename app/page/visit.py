"""One request of a browser, as a page's handler gets it; what it returns; and the record of a page.

Handlers ask the API's own handlers, by `ask`, in the API's turns and with its rights: they hold no rule.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

from htpy import Node
from pydantic import BaseModel

from app.api.mcp.results import TOOLS
from app.api.problems import FORBIDDEN, Problem, invalid
from app.api.route import Call, Caller, Parts, Route, Upload
from app.api.table import ROUTES
from app.domain.access import Scope

P = TypeVar("P")
B = TypeVar("B")
R = TypeVar("R")

ROUTE_OF: Mapping[Any, Route] = {route.handler: route for route in (*ROUTES, *(t.route for t in TOOLS))}
"""Handlers that a page may ask: all of the API's, and those that read for agents."""


class Dispatching(Protocol):
    """What a visit needs of the API's dispatcher."""

    async def perform(
        self, route: Route, caller: Caller, values: Mapping[str, Any], request_id: str, **more: Any
    ) -> Any: ...

    async def in_time(
        self, work: Callable[[], Awaitable[R]], timeout_s: float | None, *, is_stream: bool = False
    ) -> R: ...


@dataclass(slots=True)
class Visit:
    """One request, of somebody who is signed in, or of nobody."""

    parts: Parts
    dispatcher: Dispatching
    caller: Caller
    request_id: str
    path: str
    """With its query: to come back to."""
    now_ms: int
    values: Mapping[str, str]
    """What stands in the path, in the query, and in the form."""
    form_token: str = ""
    """What a form of this session carries; empty: nobody is signed in."""
    headers: Mapping[str, str] = field(default_factory=dict)
    upload: Upload | None = None
    """A form with a file, which its handler reads as it comes."""

    @property
    def hides_prompts(self) -> bool:
        """Prompts, and what quotes them, are not shown to anybody here."""
        return self.parts.settings.page_hide_prompts

    @property
    def accounts(self) -> list[str]:
        """Names of those that the caller sees."""
        return [name for name in self.parts.settings.all_accounts() if self.caller.sees(name)]

    def may(self, scope: Scope) -> bool:
        """Whether to offer what needs a scope."""
        return self.caller.scope.includes(scope)

    async def ask(self, handler: Callable[[Call[Any, Any]], Awaitable[R]], **values: Any) -> R:
        """What a handler of the API answers to this caller; `values`: of its path and query; None: not given.
        What it changes is in the list of actions. Raises Problem."""
        return await self.tell(handler, None, **values)

    async def tell(
        self,
        handler: Callable[[Call[Any, Any]], Awaitable[R]],
        body: BaseModel | Upload | None,
        **values: Any,
    ) -> R:
        """The same of one that takes a body."""
        given = {name: value for name, value in values.items() if value is not None}
        answer: R = await self.dispatcher.perform(
            ROUTE_OF[handler], self.caller, given, self.request_id, body=body
        )
        return answer

    async def read(self, work: Callable[[], Awaitable[R]]) -> R:
        """What a page reads by itself, in the API's turns and time. Raises Problem."""
        return await self.dispatcher.in_time(work, self.parts.settings.api_timeout_s)

    async def receive(self, work: Callable[[], Awaitable[R]]) -> R:
        """What takes as long as the browser sends. Raises Problem."""
        return await self.dispatcher.in_time(work, None, is_stream=True)


@dataclass(frozen=True, slots=True)
class Drawn:
    """A page."""

    title: str
    content: Node
    status: int = 200


@dataclass(frozen=True, slots=True)
class GoTo:
    """After a form: look there. Nothing is sent twice by a reload."""

    path: str
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Download:
    """A file, sent as it is made."""

    filename: str
    media_type: str
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Events:
    """Server-sent events, for as long as the page is open."""

    chunks: AsyncIterator[bytes]


Result = Drawn | GoTo | Download | Events


@dataclass(frozen=True, slots=True)
class PageRoute:
    """A method and an address of the page, and who may come there."""

    method: str
    path: str
    handler: Callable[[Visit], Awaitable[Result]]
    scope: Scope = Scope.READ
    query: tuple[str, ...] = ()
    """Names that its query, or its form, may have; any other one is refused."""
    is_listened: bool = False
    """Scripts ask for it, and are told when they are signed out; people are asked for a token."""
    nav: str | None = None
    """What the navigation calls it; None: it has no place there."""
    has_file: bool = False
    """Its form has a file: the handler reads it as it comes, and looks at the session's token first."""

    def refuse_unknown(self, given: Mapping[str, str]) -> None:
        """Raises Problem for a name that this address does not take: it is never passed over."""
        for name in given:
            if name not in self.query:
                known = ", ".join(self.query) or "none"
                raise invalid("query", "unknown_parameter", f"leave out what is not one of: {known}")

    def refuse_without_scope(self, caller: Caller) -> None:
        """Raises Problem for a token that may not do what is done here."""
        if not caller.scope.includes(self.scope):
            needs = f"your token may {caller.scope}, and this needs {self.scope}: sign in with another token"
            raise Problem(FORBIDDEN, needs)
