"""A caller of the API, for services."""

from app.api.route import Caller
from app.services.access import COMMAND_LINE_ID, Asker


def asker_of(caller: Caller, request_id: str) -> Asker:
    """Who asks for a change."""
    token_id = None if caller.token_id == COMMAND_LINE_ID else caller.token_id
    return Asker(caller.name, token_id, caller.account, request_id)
