"""The routes of the provider's dialect."""

from typing import Any

from app.api.dialects.provider.account import (
    CountriesParams,
    StatesParams,
    get_provider_balance,
    get_provider_queue,
    list_provider_countries,
    list_provider_states,
)
from app.api.dialects.provider.create import create_provider_batch, create_provider_task
from app.api.dialects.provider.errors import PROVIDER
from app.api.dialects.provider.models import (
    ProviderAnswer,
    ProviderBalance,
    ProviderBatchTaken,
    ProviderCountries,
    ProviderQueue,
    ProviderRequest,
    ProviderStates,
    ProviderTaskBatch,
    ProviderTaskBody,
    ProviderTaskParams,
    ProviderTaskStatus,
    ProviderTaskTaken,
)
from app.api.dialects.provider.monitor import MonitorParams, ask_engine, ask_google_news
from app.api.dialects.provider.tasks import get_provider_task
from app.api.route import Route
from app.domain.access import Scope

GROUP = "the provider's dialect"
BATCH_BYTES_MAX = 16 * 1024 * 1024
"""500 prompts of 10,000 characters, at three bytes each."""
_TASK: dict[str, Any] = {
    "taskType": "GEMINI",
    "idempotencyKey": "run-42:item-7",
    "payload": {"prompt": "Which CRM suits a small firm?", "country": "DE"},
}
_ID = "019ac5d0-1f2a-7c39-8aa2-23e828c426f9"
_HEAD: dict[str, Any] = {
    "id": _ID,
    "taskType": "GEMINI",
    "status": "QUEUED",
    "priority": 1,
    "createdAt": "2026-11-27T15:00:00.000Z",
    "latencyMs": None,
    "idempotencyKey": "run-42:item-7",
}
_TAKEN: dict[str, Any] = {
    "success": True,
    "task": _HEAD,
    "credits": {"creditsToCharge": 4, "creditsCharged": None},
}
_SAME = "A synchronous request waits for its task, up to 285 s, and costs what the task costs. "
_REPEATED = _SAME + "Asked once more after its connection was cut, it gets the answer of the same task."


def _route(method: str, path: str, handler: Any, summary: str, answer: Any, **more: Any) -> Route:
    scope = more.pop("scope", Scope.READ)
    return Route(method, path, handler, summary, {200: answer}, scope, group=GROUP, dialect=PROVIDER, **more)


ROUTES = (
    _route(
        "POST",
        "/v1/async/task",
        create_provider_task,
        "Store a task, durably, to be sent in our pace",
        ProviderTaskTaken,
        scope=Scope.SUBMIT,
        body=ProviderTaskBody,
        is_idempotent=False,
        problems=(409,),
        examples={"request": _TASK, "answer": _TAKEN},
        is_frequent=True,
        description="With a key that an earlier task of the token has: 409, and nothing is bought.",
    ),
    _route(
        "POST",
        "/v1/async/task/batch",
        create_provider_batch,
        "Store up to 500 tasks together, each judged by itself",
        ProviderBatchTaken,
        scope=Scope.SUBMIT,
        body=ProviderTaskBatch,
        is_idempotent=False,
        examples={"request": [_TASK]},
        body_bytes_max=BATCH_BYTES_MAX,
    ),
    _route(
        "GET",
        "/v1/async/task/{task_id}",
        get_provider_task,
        "Show where a task stands, and its answer",
        ProviderTaskStatus,
        params=ProviderTaskParams,
        description="By its id, or by the key that the token gave it. Its answer is there for as long as "
        "it is kept or archived here.",
    ),
    _route(
        "GET",
        "/v1/async/status",
        get_provider_queue,
        "Count what the account has queued, and what the provider has",
        ProviderQueue,
    ),
    _route(
        "GET",
        "/v1/credits",
        get_provider_balance,
        "Show the credits that are left, less what is queued here",
        ProviderBalance,
        problems=(404,),
        description="404 while no balance was read.",
    ),
    _route(
        "GET",
        "/v1/countries",
        list_provider_countries,
        "List codes of countries, all or an engine's",
        ProviderCountries,
        params=CountriesParams,
    ),
    _route(
        "GET",
        "/v1/states",
        list_provider_states,
        "List states of a country",
        ProviderStates,
        params=StatesParams,
    ),
    _route(
        "POST",
        "/v1/monitor/{engine}",
        ask_engine,
        "Ask an engine, and wait for its answer",
        ProviderAnswer,
        scope=Scope.SUBMIT,
        params=MonitorParams,
        body=ProviderRequest,
        is_idempotent=False,
        waits=True,
        description=_REPEATED,
    ),
    _route(
        "POST",
        "/v1/monitor/google/news",
        ask_google_news,
        "Ask Google News, and wait for its answer",
        ProviderAnswer,
        scope=Scope.SUBMIT,
        body=ProviderRequest,
        is_idempotent=False,
        waits=True,
        description=_REPEATED,
    ),
)
