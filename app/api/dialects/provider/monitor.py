"""Synchronous requests: a task like any other, whose end is waited for (C-A). It costs what a queued task
costs, without the surcharge.
"""

import json
from typing import Any, Literal

from app.api.dialects.provider.errors import VALIDATION, Refusal
from app.api.dialects.provider.intake import account_of, new_task, refuse_uncovered, store
from app.api.dialects.provider.models import ProviderRequest, ProviderTaskBody, TaskType
from app.api.dialects.provider.tasks import response_of
from app.api.problems import INTERNAL, MALFORMED, UNAVAILABLE
from app.api.route import Answer, Call, Params
from app.domain.provider_task import error_of, number
from app.domain.task import TaskState

PRIORITY = 10
"""Somebody waits for it."""
WAIT_S = 285.0
"""The provider gives up after five minutes, and its clients with it."""
LOOK_S = 2.0
"""How often it is looked whether anybody listens still."""
TIMED_OUT = "Maximum timeout (5 minutes) exceeded"
TASK_TYPES: dict[str, TaskType] = {
    "chatgpt": "CHATGPT",
    "gemini": "GEMINI",
    "grok": "GROK",
    "copilot": "COPILOT",
    "perplexity": "PERPLEXITY",
    "aimode": "AIMODE",
    "google": "GOOGLE",
    "google-news": "GOOGLE_NEWS",  # as newer clients call it
}


class MonitorParams(Params):
    """Which engine."""

    engine: Literal["chatgpt", "gemini", "grok", "copilot", "perplexity", "aimode", "google", "google-news"]


async def ask_engine(call: Call[MonitorParams, ProviderRequest]) -> Answer:
    """One question to one engine."""
    return await _ask(call, TASK_TYPES[call.params.engine])


async def ask_google_news(call: Call[Params, ProviderRequest]) -> Answer:
    """One question to Google News."""
    return await _ask(call, "GOOGLE_NEWS")


async def _ask(call: Call[Any, ProviderRequest], task_type: TaskType) -> Answer:
    body = ProviderTaskBody(taskType=task_type, payload=call.body.root, priority=PRIORITY)
    task = new_task(call.parts, body, prefix="")
    listeners, asker = call.parts.listeners, (call.caller.token_id, task.fingerprint)
    task_id = listeners.take_up(asker)
    if task_id is None:
        await refuse_uncovered(call, task.estimate)
        await store(call, [task], "provider.monitor")
        call.parts.rooms.take(account_of(call.caller), task.estimate)
        task_id = task.id
    listener = listeners.add(asker, task_id, call.is_gone)
    is_heard = False
    try:
        await _wait(call, task_id)
        is_heard = not call.is_gone()
    finally:
        listeners.end(asker, listener, is_heard=is_heard)
    return await _answer(call, task_id)


async def _wait(call: Call[Any, Any], task_id: str) -> None:
    """Raises Refusal where the task goes on for longer than anybody is to wait."""
    for _ in range(round(WAIT_S / LOOK_S)):
        if await call.parts.awaited.wait(task_id, LOOK_S):
            return
        if call.parts.stopping.is_set() or call.is_gone():
            again = {"Retry-After": "1"}
            raise Refusal(UNAVAILABLE, "SERVICE_UNAVAILABLE", "Service unavailable", headers=again)
    raise Refusal(INTERNAL, "INTERNAL_SERVER_ERROR", TIMED_OUT)


async def _answer(call: Call[Any, Any], task_id: str) -> Answer:
    row = await call.store.standing_tasks.task(task_id, None)
    response = None if row is None else response_of(row)
    if row is None or response is None:
        raise Refusal(INTERNAL, "INTERNAL_SERVER_ERROR", "the answer is not stored any more")
    if row["state"] == TaskState.COMPLETED:
        charged = row["credits_charged"]
        headers = {} if charged is None else {"X-Credits-Charged": str(number(charged))}
        return Answer(None, headers=headers, body=b'{"success":true,"result":' + response + b"}")
    if row["state"] == TaskState.REJECTED:
        raise Refusal(MALFORMED, VALIDATION, error_of(row["state"], row)["message"])
    code, message = _failure(response, row)
    raise Refusal(INTERNAL, code, message)


def _failure(response: bytes, row: dict[str, Any]) -> tuple[str, str]:
    """The provider's own code and words, where it gave some."""
    document = json.loads(response)
    error = document.get("error") if isinstance(document, dict) else None
    known = error if isinstance(error, dict) else {}
    told = error_of(row["state"], row) | {
        k: v for k, v in known.items() if k in ("code", "message") and isinstance(v, str)
    }
    return told["code"], told["message"]
