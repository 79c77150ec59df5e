"""One tool for agents: everything that its listing, its validation and its call are made of. Knows nothing of
the protocol.
"""

from dataclasses import dataclass, replace

from pydantic import BaseModel

from app.api.route import Call, Handler, Params, Route
from app.domain.access import Scope


@dataclass(frozen=True, slots=True)
class Tool:
    """A name, and what stands behind it."""

    name: str
    title: str
    description: str
    """For a model: what it answers, when to use it, what to do next."""
    handler: Handler
    params: type[Params]
    result: type[BaseModel]
    scope: Scope = Scope.READ
    action: str | None = None
    """What the list of actions calls it; None: it changes nothing."""
    is_idempotent: bool = True
    """Whether the same call again changes nothing more."""
    is_long: bool = False
    waits: bool = False

    @property
    def route(self) -> Route:
        """The same as a route, of which the dispatcher knows how to answer it."""
        return Route(
            "POST",
            "/mcp",
            self.handler,
            self.title,
            {200: self.result},
            scope=self.scope,
            group="agents",
            params=self.params,
            action=self.action,
            is_idempotent=self.is_idempotent,
            is_long=self.is_long,
            waits=self.waits,
        )


def with_params(call: Call[Params, None], params: Params) -> Call[Params, None]:
    """The same call, asking a handler of the native dialect."""
    return replace(call, params=params)
