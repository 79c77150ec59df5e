"""POST /v1/tasks/{task_id}/retry and cancel: one task, by hand."""

import functools
from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from typing import Annotated, Any

from pydantic import Field

from app.api.native.tasks import Task, TaskParams, task_model
from app.api.problems import CONFLICT, FieldError, Problem, not_found
from app.api.route import Body, Call, Route
from app.domain.access import Scope
from app.domain.bulk_change import Figures
from app.services import control
from app.services.control import NotAllowed


class RetryTaskBody(Body):
    """How a task is sent again; no body: at no double cost."""

    even_if_held: Annotated[
        bool, Field(description="Also where the old attempt may still be charged: it may be paid for twice.")
    ] = False


async def retry_task(call: Call[TaskParams, RetryTaskBody | None]) -> Task:
    """Under a new key."""
    even_if_held = call.body is not None and call.body.even_if_held
    await _once(call, functools.partial(control.retry_task, even_if_held=even_if_held))
    call.parts.wakes.soon()
    return task_model(await _visible(call))


async def cancel_task(call: Call[TaskParams, None]) -> Task:
    """One that was never sent."""
    await _once(call, control.cancel_task)
    return task_model(await _visible(call))


async def _once(call: Call[Any, Any], change: Callable[..., Awaitable[Figures]]) -> None:
    """Whoever comes after a process that died between change and answer changes nothing again."""
    row, key = await _visible(call), call.key
    if key is not None and key.row.progress is not None:
        return
    noted = (
        nullcontext() if key is None else key.note(lambda done: {"progress": "1"} if done.matched else None)
    )
    try:
        with noted:
            await change(call.store, row["run_id"], row["ordinal"], now_ms=call.parts.clock())
    except NotAllowed as error:
        wrong = FieldError(code=error.code, remedy="look at it first: GET /v1/tasks/{task_id}")
        raise Problem(CONFLICT, f"the task {error}", errors=[wrong]) from None


def _progress(done: Figures) -> dict[str, object] | None:
    return {"progress": "1"} if done.matched else None


async def _visible(call: Call[Any, Any]) -> dict[str, Any]:
    row = await call.store.task_pages.task_with_id(call.params.task_id, call.caller.account)
    if row is None:
        raise not_found("task")
    return row


ROUTES = (
    Route(
        "POST",
        "/v1/tasks/{task_id}/retry",
        retry_task,
        "Send one failed, expired or rejected task again",
        {200: Task},
        scope=Scope.OPERATE,
        group="tasks",
        params=TaskParams,
        body=RetryTaskBody,
        body_is_optional=True,
        is_idempotent=False,
        action="task.retry",
        description="Under a new key. 409: its state does not allow it, or it may be paid for twice.",
    ),
    Route(
        "POST",
        "/v1/tasks/{task_id}/cancel",
        cancel_task,
        "Never send one task that was not sent yet",
        {200: Task},
        scope=Scope.OPERATE,
        group="tasks",
        params=TaskParams,
        is_idempotent=False,
        action="task.cancel",
        description="It cannot be undone. 409: the provider has it, or may have it, or it is over.",
    ),
)
