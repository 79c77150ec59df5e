"""What a caller asks as a task of ours: judged by the rules of prompt files, priced, stored."""

from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any

import msgspec

from app.api.dialects.provider.errors import VALIDATION, VALIDATION_MESSAGE, Refusal, insufficient_credits
from app.api.dialects.provider.models import ProviderTaskBody
from app.api.problems import INVALID, UNAVAILABLE
from app.api.route import Call, Caller, Parts
from app.config import DEFAULT_ACCOUNT
from app.domain import pricing
from app.domain.engines.rules import check
from app.domain.provider_task import created_at, number
from app.domain.relay.message import NewEndpoint
from app.domain.remarks import shown, unquoted
from app.domain.standing import NewTask, Producer, Taking
from app.domain.task import TaskSpec, new_id
from app.domain.time_format import iso_day
from app.relay_options import refusal_of
from app.services.intake import IntakeFull

SENT_BY_N8N = "city"
"""Of the vendor's n8n node: its own API takes it with Google search, though its schema does not name it."""


def account_of(caller: Caller) -> str:
    """Whose credits the caller spends."""
    return caller.account or DEFAULT_ACCOUNT


def new_task(
    parts: Parts, body: ProviderTaskBody, *, prefix: str = "payload.", push_to: NewEndpoint | None = None
) -> NewTask:
    """`push_to`: where its end is posted, should it not say so itself. Raises Refusal for what the provider
    would refuse too."""
    payload = _plain(body.taskType, body.payload)
    judged = {k: v for k, v in payload.items() if k != SENT_BY_N8N or body.taskType != "GOOGLE"}
    problems = check(body.taskType, judged)
    if problems:
        details = [
            {"field": prefix + shown(p.field), "message": unquoted(p.problem, p.remedy)} for p in problems
        ]
        raise Refusal(INVALID, VALIDATION, VALIDATION_MESSAGE, details)
    url = None if body.webhook is None else body.webhook.url
    if url is not None and (refusal := refusal_of(url, parts.settings)):
        details = [{"field": "webhook.url", "message": f"it {refusal[0]}: {refusal[1]}"}]
        raise Refusal(INVALID, VALIDATION, VALIDATION_MESSAGE, details)
    if url is None and push_to is not None:
        url = push_to.url
    now_ms = parts.clock()
    return NewTask(
        new_id(now_ms),
        body.taskType,
        msgspec.json.encode(payload).decode(),
        body.priority,
        TaskSpec(0, body.taskType, payload).fingerprint(),
        pricing.estimate(body.taskType, payload, iso_day(now_ms)),
        body.idempotencyKey,
        url,
    )


def _plain(task_type: str, payload: Mapping[str, Any]) -> dict[str, object]:
    """The older spelling of an overview, with its markdown beside it, as the present one (C-L36)."""
    plain: dict[str, object] = dict(payload)
    include = plain.get("include")
    if (
        task_type != "GOOGLE"
        or not isinstance(include, dict)
        or not isinstance(include.get("markdown"), bool)
    ):
        return plain
    include = dict(include)
    markdown = include.pop("markdown")
    if include.get("aioverview") is True:
        include["aioverview"] = {"markdown": markdown}
    return plain | {"include": include}


def taking_of(caller: Caller, tasks: Sequence[NewTask], action: str, request_id: str) -> Taking:
    """What is to be stored for a request."""
    return Taking(Producer(caller.token_id, caller.name, account_of(caller)), tasks, action, request_id)


async def store(call: Call[Any, Any], tasks: Sequence[NewTask], action: str) -> set[str]:
    """Store tasks, durably; ids of those that are not, since an earlier one of the token has their key."""
    try:
        return await call.parts.intake.take(taking_of(call.caller, tasks, action, call.request_id))
    except IntakeFull:
        text = "Too many tasks wait to be stored"
        raise Refusal(UNAVAILABLE, "SERVICE_UNAVAILABLE", text, headers={"Retry-After": "1"}) from None


async def refuse_uncovered(call: Call[Any, Any], credits: Decimal) -> None:
    """Raises Refusal where the balance is known, and does not cover this besides what is queued."""
    room = await call.parts.rooms.room(account_of(call.caller))
    if room is not None and room < credits:
        raise insufficient_credits()


def task_blocks(task: NewTask) -> tuple[dict[str, Any], dict[str, Any]]:
    """ProviderTask and ProviderCredits of a task that was stored now."""
    head = {
        "id": task.id,
        "taskType": task.task_type,
        "status": "QUEUED",
        "priority": task.priority,
        "createdAt": created_at(task.id),
        "latencyMs": None,
        "idempotencyKey": task.key,
    }
    return head, {"creditsToCharge": number(task.estimate), "creditsCharged": None}
