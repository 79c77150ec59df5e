"""GET of one task: where it stands, and its answer as the provider gave it, for as long as it is kept here
(C-G.4)."""

import re
from typing import Any

from app.api.dialects.provider.errors import task_not_found
from app.api.dialects.provider.models import ProviderTaskParams
from app.api.route import Answer, Call
from app.domain.provider_task import compact, credits_of, error_of, head_of
from app.domain.task import OPEN_STATES, TaskState

_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


async def get_provider_task(call: Call[ProviderTaskParams, None]) -> Answer:
    """One task of the account's."""
    asked = call.params.task_id
    task_id: str | None = asked
    if not _ID.fullmatch(asked):
        task_id = await call.store.standing_tasks.task_with_key(call.caller.token_id, asked)
    row = None if task_id is None else await call.store.standing_tasks.task(task_id, call.caller.account)
    if row is None:
        raise task_not_found(asked)
    response = response_of(row)
    if response is None and row["state"] not in OPEN_STATES:
        # As the provider says once it has deleted an answer.
        raise task_not_found(asked)
    head, credits = head_of(row["task_id"], row["state"], row), credits_of(row["state"], row)
    text = compact({"task": head, "credits": credits})
    return Answer(None, body=text if response is None else text[:-1] + b',"response":' + response + b"}")


def response_of(row: dict[str, Any]) -> bytes | None:
    """The answer, or how the task failed; None: there is none, or none any more."""
    state = row["state"]
    if row["response"] is not None:
        return str(row["response"]).encode()
    if state in OPEN_STATES or state == TaskState.COMPLETED:
        return None
    return compact({"error": error_of(state, row)})
