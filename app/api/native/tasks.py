"""/v1/runs/{run_id}/tasks and /v1/tasks: where a task stands, and everything that is known of it."""

import hashlib
import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field

from app.api.fields import Credits, Id, Time
from app.api.native.books import Finding, LedgerEntry, entry_model, finding_model
from app.api.native.visible import visible_run
from app.api.pages import Page, PageParams, read_cursor, write_cursor
from app.api.problems import not_found
from app.api.route import Call, Params, Route
from app.domain.access import Scope
from app.domain.engines.places import COUNTRIES, country_remedy
from app.domain.engines.table import TASK_TYPES
from app.domain.evidence.records import DisputedAttempt, Send, StoredReport
from app.domain.own_columns import own_document
from app.domain.task_filter import TaskFilter
from app.domain.text import storable
from app.store import Store

TaskStateName = Literal[
    "pending", "submitting", "submitted", "completed", "failed", "rejected", "expired", "cancelled"
]
VerdictName = Literal[
    "matched", "free_failure", "explained", "overcharged", "undercharged", "charged_failure", "unknown"
]


def _engine(value: Any) -> Any:
    if isinstance(value, str) and value.upper() not in TASK_TYPES:
        raise ValueError(f"is no engine: use one of {', '.join(TASK_TYPES)}")
    return value.upper() if isinstance(value, str) else value


def _country(value: str) -> str:
    # UK would be taken for a country of which there is nothing.
    if (code := value.upper()) not in COUNTRIES:
        raise ValueError(f"is no country code: {country_remedy(value)}")
    return code


Engine = Annotated[str, BeforeValidator(_engine), Field(json_schema_extra={"enum": list(TASK_TYPES)})]
Country = Annotated[
    str,
    AfterValidator(_country),
    Field(json_schema_extra={"pattern": "^[A-Za-z]{2}$"}, description="Where it is asked from, such as GB."),
]


CustomId = Annotated[str, Field(min_length=1, max_length=500), AfterValidator(storable)]
"""As it is stored: no database takes a NUL."""


class TaskError(BaseModel):
    """Why a task failed or was rejected."""

    code: str | None
    message: str | None


class TaskCredits(BaseModel):
    """Of one attempt; null: not known, or not yet."""

    estimated: Credits = Field(description="Ours, before it was sent.")
    to_charge: Credits | None = Field(description="As the provider said when it took the task.")
    held: Credits | None
    charged: Credits | None = Field(description="As its report said; null is unknown, and not 0.")


class Task(BaseModel):
    """A task, and its current attempt."""

    id: Id
    run_id: Id
    ordinal: int = Field(description="Its place in the source, from 1.")
    custom_id: str | None = Field(description="As its record named it.")
    sample: int | None = Field(description="Which of how many samples of its record; null: of one only.")
    repeats: int | None
    engine: str
    country: str | None
    state: TaskStateName
    verdict: VerdictName | None = Field(description="What reconciling its charge found.")
    attempt: int
    credits: TaskCredits
    provider_task_id: str | None
    error: TaskError | None
    first_sent_at: Time | None
    submitted_at: Time | None = Field(description="When the provider accepted it.")
    settled_at: Time | None = Field(description="When its report was taken.")
    settled_by: str | None = Field(description="delivery, poll, sync or reuse.")
    reused_from: Id | None = Field(description="The task whose result answers this one, for nothing.")


class SendOutcome(BaseModel):
    """How one create call ended."""

    at: Time
    answer: str
    http_status: int | None = Field(description="null: no response.")
    code: str | None
    provider_task_id: str | None
    request_id: str | None = Field(description="The provider's.")


class Report(BaseModel):
    """A report as it is stored: a delivery, or the answer to a poll."""

    id: Id
    source: str = Field(description="delivery, poll or sync.")
    received_at: Time
    effect: str | None = Field(description="What settling it did.")
    webhook_id: str | None
    signed_at: str | None
    is_signed: bool
    body_bytes: int
    body_sha256: str


class Attempt(BaseModel):
    """One try of a task under one idempotency key."""

    attempt: int
    state: str
    money: str = Field(description="none, held, posted or voided.")
    credits: TaskCredits
    provider_task_id: str | None
    first_sent_at: Time | None
    submitted_at: Time | None
    settled_at: Time | None
    sends: list[SendOutcome]
    deliveries: list[Report]


class TaskDetail(Task):
    """A task with its prompt, all attempts, and what bears on its charge."""

    payload: dict[str, Any] = Field(description="As it is sent.")
    metadata: dict[str, Any] | None = Field(
        description="Own columns of its record. A number of more digits than a float holds is a string."
    )
    attempts: list[Attempt]
    ledger: list[LedgerEntry]
    findings: list[Finding]


class TaskPageParams(PageParams):
    """Which tasks of a run."""

    run_id: Id
    state: TaskStateName | None = None
    engine: Engine | None = None
    country: Country | None = None
    verdict: VerdictName | None = None
    custom_id: Annotated[CustomId | None, Field(description="As its record named it.")] = None
    text: Annotated[
        CustomId | None, Field(description="In its prompt, whatever the case of its letters.")
    ] = None


class TaskParams(Params):
    """One task."""

    task_id: Id


def task_model(row: dict[str, Any]) -> Task:
    """A task, of a row of the store."""
    return Task(**_values(row))


def _values(row: dict[str, Any]) -> dict[str, Any]:
    has_error = row["error_code"] is not None or row["error_message"] is not None
    error = TaskError(code=row["error_code"], message=row["error_message"]) if has_error else None
    credits = {name: row[f"credits_{name}"] for name in ("to_charge", "held", "charged")}
    times = {name: row[f"{name}_ms"] for name in ("first_sent_at", "submitted_at", "settled_at")}
    same = {name: row[name] for name in Task.model_fields if name in row}
    return {
        **same,
        **times,
        "engine": row["task_type"],
        "error": error,
        "credits": TaskCredits(estimated=row["credits_estimate"], **credits),
    }


async def list_tasks(call: Call[TaskPageParams, None]) -> Page[Task]:
    """In the order of the source."""
    asked = call.params
    await visible_run(call, asked.run_id)
    place = read_cursor(asked.cursor, "tasks", int)
    wanted = TaskFilter(
        asked.state, asked.engine, asked.country, asked.verdict, asked.custom_id, text=asked.text
    )
    after = int(place[0]) if place else 0
    found = await call.reads.task_pages.tasks_after(asked.run_id, after, asked.limit, wanted)
    following = None if found.is_last else write_cursor("tasks", found.through)
    return Page(data=[task_model(row) for row in found.rows], next_cursor=following)


async def get_task(call: Call[TaskParams, None]) -> TaskDetail:
    """One task, and everything that is known of it."""
    return (await whole_task(call.store, call.params.task_id, call.caller.account))[0]


async def whole_task(
    store: Store, task_id: str, account: str | None
) -> tuple[TaskDetail, Sequence[DisputedAttempt]]:
    """A task, and its attempts with the bytes of their reports. Raises Problem for one that a caller of this
    account may not see; None: of all."""
    row = await store.task_pages.task_with_id(task_id, account)
    if row is None:
        raise not_found("task")
    known = await store.disputes.task_with_attempts(task_id)
    attempts = known.attempts if known else ()
    entries = await store.books_pages.ledger_of_task(task_id)
    found = await store.books_pages.findings_of_task(task_id)
    detail = TaskDetail(
        **_values(row),
        payload=json.loads(row["payload"]),
        metadata=own_document(row["metadata"]),
        attempts=[_attempt(attempt) for attempt in attempts],
        ledger=[entry_model(entry) for entry in entries],
        findings=[finding_model(finding) for finding in found],
    )
    return detail, attempts


def _attempt(attempt: DisputedAttempt) -> Attempt:
    return Attempt(
        attempt=attempt.attempt,
        state=attempt.state,
        money=attempt.money,
        credits=TaskCredits(
            estimated=attempt.estimate,
            to_charge=attempt.to_charge,
            held=attempt.held,
            charged=attempt.charged,
        ),
        provider_task_id=attempt.provider_task_id,
        first_sent_at=attempt.first_sent_at_ms,
        submitted_at=attempt.submitted_at_ms,
        settled_at=attempt.settled_at_ms,
        sends=[_send(send) for send in attempt.sends],
        deliveries=[_report(report) for report in attempt.reports],
    )


def _send(send: Send) -> SendOutcome:
    return SendOutcome(
        at=send.at_ms,
        answer=send.answer,
        http_status=send.http_status,
        code=send.code,
        provider_task_id=send.provider_task_id,
        request_id=send.request_id,
    )


def _report(report: StoredReport) -> Report:
    return Report(
        id=report.id,
        source=report.source,
        received_at=report.received_at_ms,
        effect=report.effect,
        webhook_id=report.webhook_id,
        signed_at=report.signed_at,
        is_signed=report.signature is not None,
        body_bytes=len(report.body),
        body_sha256=hashlib.sha256(report.body).hexdigest(),
    )


ROUTES = (
    Route(
        "GET",
        "/v1/runs/{run_id}/tasks",
        list_tasks,
        "List the tasks of a run, in the order of its source",
        {200: Page[Task]},
        scope=Scope.READ,
        group="tasks",
        params=TaskPageParams,
        description="A page looks through a bounded part of the run: with a filter it may have few tasks, "
        "or none, and still a `next_cursor`.",
    ),
    Route(
        "GET",
        "/v1/tasks/{task_id}",
        get_task,
        "Show a task with its attempts, deliveries, ledger lines and findings",
        {200: TaskDetail},
        scope=Scope.READ,
        group="tasks",
        params=TaskParams,
    ),
)
