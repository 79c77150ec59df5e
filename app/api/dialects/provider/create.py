"""POST of tasks, one or many: durable before they are acknowledged (C-G.2, C-G.3)."""

from decimal import Decimal
from typing import Any

import msgspec
from pydantic import ValidationError

from app.api.dialects.provider.errors import (
    VALIDATION,
    ProviderError,
    Refusal,
    already_exists,
    field_details,
    insufficient_credits,
    provider_error,
)
from app.api.dialects.provider.intake import account_of, new_task, refuse_uncovered, store, task_blocks
from app.api.dialects.provider.models import (
    ProviderBatchItem,
    ProviderBatchSummary,
    ProviderBatchTaken,
    ProviderCredits,
    ProviderTask,
    ProviderTaskBatch,
    ProviderTaskBody,
)
from app.api.faults import field_errors
from app.api.route import Answer, Call, Params
from app.domain.standing import NewTask


async def create_provider_task(call: Call[Params, ProviderTaskBody]) -> Answer:
    """One task."""
    task = new_task(call.parts, call.body, push_to=call.caller.push_to)
    await refuse_uncovered(call, task.estimate)
    if await store(call, [task], "provider.task"):
        raise already_exists(task.key or "")
    call.parts.rooms.take(account_of(call.caller), task.estimate)
    return Answer(None, body=taken_body(task))


def taken_body(task: NewTask) -> bytes:
    """ProviderTaskTaken of a task that was stored now."""
    head, credits = task_blocks(task)
    return msgspec.json.encode({"success": True, "task": head, "credits": credits})


async def create_provider_batch(call: Call[Params, ProviderTaskBatch]) -> ProviderBatchTaken:
    """Up to 500 tasks, each judged by itself; all that are good are stored together."""
    read = [_item(call, index, item) for index, item in enumerate(call.body.root)]
    tasks = await _covered(call, read)
    known = await store(call, tasks, "provider.batch") if tasks else set()
    call.parts.rooms.take(
        account_of(call.caller), sum((task.estimate for task in tasks if task.id not in known), Decimal(0))
    )
    results = [_result(index, item, known) for index, item in enumerate(read)]
    succeeded = sum(result.success for result in results)
    summary = ProviderBatchSummary(total=len(results), succeeded=succeeded, failed=len(results) - succeeded)
    return ProviderBatchTaken(summary=summary, results=results)


async def _covered(call: Call[Any, Any], read: list[NewTask | ProviderError]) -> list[NewTask]:
    """Those that the balance covers besides the ones before them; of the others `read` says that it does
    not."""
    room, covered = await call.parts.rooms.room(account_of(call.caller)), []
    for index, task in enumerate(read):
        if not isinstance(task, NewTask):
            continue
        if room is not None and room < task.estimate:
            read[index] = insufficient_credits().error
            continue
        room = None if room is None else room - task.estimate
        covered.append(task)
    return covered


def _item(call: Call[Any, Any], index: int, item: Any) -> NewTask | ProviderError:
    try:
        body = ProviderTaskBody.model_validate(item)
        return new_task(call.parts, body, push_to=call.caller.push_to)
    except ValidationError as error:
        details: Any = field_details(field_errors(error, item))
    except Refusal as refusal:
        details = refusal.details
    return provider_error(VALIDATION, f"Invalid task at index {index}", {"errors": details})


def _result(index: int, item: NewTask | ProviderError, known: set[str]) -> ProviderBatchItem:
    if isinstance(item, ProviderError):
        return ProviderBatchItem(success=False, index=index, error=item)
    if item.id in known:
        return ProviderBatchItem(success=False, index=index, error=already_exists(item.key or "").error)
    head, credits = task_blocks(item)
    return ProviderBatchItem(
        success=True, index=index, task=ProviderTask(**head), credits=ProviderCredits(**credits)
    )
