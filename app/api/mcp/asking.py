"""Who calls a tool, and how a call is performed: what the transports hand to the server. Knows nothing of the
protocol.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from app.api.route import Caller, Route


@dataclass(frozen=True, slots=True)
class Asking:
    """One message, whose it is."""

    caller: Caller
    request_id: str
    is_gone: Callable[[], bool] = lambda: False


class Perform(Protocol):
    """The dispatcher's way to answer a call. Raises Problem."""

    async def __call__(
        self, route: Route, caller: Caller, values: dict[str, Any], request_id: str, **more: Any
    ) -> Any: ...
