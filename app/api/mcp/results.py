"""Tools that read tasks: the results of a run, one answer, the charge of one task in words."""

from decimal import Decimal
from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.api.fields import Credits, Id, Whole, exact
from app.api.mcp.runs import Cursor
from app.api.mcp.tool import Tool, with_params
from app.api.native.books import Finding, LedgerEntry
from app.api.native.tasks import (
    Attempt,
    Country,
    Engine,
    Task,
    TaskCredits,
    TaskDetail,
    TaskPageParams,
    TaskParams,
    TaskStateName,
    VerdictName,
    get_task,
    list_tasks,
    task_model,
)
from app.api.pages import Page
from app.api.problems import not_found
from app.api.route import Call, Params
from app.domain.stored_json import read_json
from app.domain.text import agreeing, counted
from app.domain.verdicts import words_of
from app.views.export_rows import answer_columns

CHARS = 20_000
CHARS_MAX = 200_000
TOO_LONG = "the response is longer than max_chars"


class ResultsParams(Params):
    """A page of results, and which."""

    run_id: Id
    state: TaskStateName | None = None
    engine: Engine | None = None
    country: Country | None = None
    verdict: VerdictName | None = None
    custom_id: Annotated[str | None, Field(min_length=1, max_length=500)] = None
    limit: Annotated[Whole, Field(ge=1, le=200)] = 50
    cursor: Cursor = None


class ResultParams(TaskParams):
    """One answer, and how much of it."""

    max_chars: Annotated[
        int, Field(ge=0, le=CHARS_MAX, description="Of the text, and of the whole response.")
    ] = CHARS


class TaskAnswer(BaseModel):
    """A task with its answer."""

    task: Task
    payload: dict[str, Any] = Field(description="What was asked.")
    answer_text: str | None = Field(description="null: it has no answer, or one without text.")
    is_cut: bool = Field(description="The text is longer than max_chars.")
    sources: list[str] = Field(description="Addresses that the answer cites, or found.")
    response: Any = Field(description="As the engine gave it; null: there is none, or note says why.")
    note: str | None


class LedgerSums(BaseModel):
    """Over all attempts of a task."""

    held: Credits
    posted: Credits
    voided: Credits
    open: Credits = Field(description="Held, and neither posted nor voided yet.")


class ChargeExplanation(BaseModel):
    """What a task cost and why: in words, then all that bears on it."""

    task_id: Id
    run_id: Id
    custom_id: str | None
    state: TaskStateName
    verdict: VerdictName | None
    summary: list[str] = Field(description="To be told to a person as it is.")
    credits: TaskCredits
    ledger_sums: LedgerSums
    ledger: list[LedgerEntry]
    findings: list[Finding]
    attempts: list[Attempt] = Field(description="With sends and reports: the evidence, by hash.")


async def get_results(call: Call[ResultsParams, None]) -> BaseModel:
    """In the order of the source."""
    return await list_tasks(with_params(call, TaskPageParams(**call.params.model_dump())))  # type: ignore[arg-type]


async def get_result(call: Call[ResultParams, None]) -> TaskAnswer:
    """One task, with its answer as far as it fits."""
    asked, store, account = call.params, call.store, call.caller.account
    row = await store.task_pages.task_with_id(asked.task_id, account)
    found = await store.standing_tasks.task(asked.task_id, account)
    if row is None or found is None:
        raise not_found("task")
    columns, response = answer_columns(found), found["response"]
    text, note = columns["answer_text"], found["response_note"]
    if response is not None and len(response) > asked.max_chars:
        response = None
        note = f"{TOO_LONG}; /v1/runs/{row['run_id']}/results has it whole"
    return TaskAnswer(
        task=task_model(row),
        payload=found["payload"],
        answer_text=None if text is None else text[: asked.max_chars],
        is_cut=text is not None and len(text) > asked.max_chars,
        sources=columns["source_urls"],
        response=None if response is None else read_json(response),
        note=note,
    )


async def explain_charge(call: Call[TaskParams, None]) -> ChargeExplanation:
    """From the books and the evidence of one task."""
    return explained(await get_task(call))


def explained(task: TaskDetail) -> ChargeExplanation:
    """The charge of a task in words and figures."""
    sums = _sums(task.ledger)
    return ChargeExplanation(
        task_id=task.id,
        run_id=task.run_id,
        custom_id=task.custom_id,
        state=task.state,
        verdict=task.verdict,
        summary=[*_said(task), *_judged(task), _booked(sums), *_proved(task)],
        credits=task.credits,
        ledger_sums=sums,
        ledger=task.ledger,
        findings=task.findings,
        attempts=task.attempts,
    )


def _sums(entries: list[LedgerEntry]) -> LedgerSums:
    sums = dict.fromkeys(("hold", "post", "void"), Decimal(0))
    closed = set()
    for entry in entries:
        sums[entry.kind] += entry.credits
        if entry.kind != "hold":
            closed.add(entry.attempt)
    still = sum((e.credits for e in entries if e.kind == "hold" and e.attempt not in closed), Decimal(0))
    return LedgerSums(held=sums["hold"], posted=sums["post"], voided=sums["void"], open=still)


def _said(task: TaskDetail) -> list[str]:
    """What it was to cost, and what was charged."""
    credits, where = task.credits, f" from {task.country}" if task.country else ""
    said = [
        f"Task {task.ordinal} asks {task.engine}{where}; it is {task.state}, on attempt {task.attempt}.",
        f"We estimated {_credits(credits.estimated)} before it was sent.",
    ]
    if credits.to_charge is not None:
        said.append(f"The provider took it for {_credits(credits.to_charge)} (creditsToCharge).")
    if credits.charged is not None:
        said.append(f"Its report says that {_credits(credits.charged)} were charged (creditsCharged).")
    else:
        said.append("No report has said what was charged for this attempt: unknown, which is not 0.")
    return said


_QUIET = {
    "matched": "Verdict: matched. What was charged is what was due.",
    "free_failure": "Verdict: free failure. It failed, which is free, and nothing was charged.",
    "explained": "Verdict: explained. The charge differs from creditsToCharge as the price list says, by "
    "pages or extras in the answer.",
}


def _judged(task: TaskDetail) -> list[str]:
    """What reconciling found, and each finding in words."""
    judged = [_QUIET[task.verdict]] if task.verdict in _QUIET else []
    for found in task.findings:
        figures = {
            name: "?" if value is None else exact(value)
            for name, value in (("expected", found.expected), ("actual", found.actual))
        }
        words = words_of(found.verdict).format(detail=found.detail, **figures)
        judged.append(f"Finding {found.id}, {found.verdict.replace('_', ' ')}: {words}")
    return judged or ["There is no verdict yet: nothing about its charge is settled."]


def _booked(sums: LedgerSums) -> str:
    return (
        f"Ledger: {_credits(sums.held)} held, {exact(sums.posted)} posted, {exact(sums.voided)} voided, "
        f"{exact(sums.open)} open."
    )


def _proved(task: TaskDetail) -> list[str]:
    """Which stored reports bear on it."""
    reports = [report for attempt in task.attempts for report in attempt.deliveries]
    if not reports:
        return ["Evidence: no report about it is stored."]
    signed = sum(report.is_signed for report in reports)
    last = reports[-1]
    return [
        f"Evidence: {counted(len(reports), 'report')} {agreeing(len(reports))} stored, {signed} signed; the "
        f"last is {last.id} ({last.source}, {last.body_bytes:,} bytes, sha256 {last.body_sha256})."
    ]


def _credits(amount: Decimal) -> str:
    return f"{exact(amount)} credit" if amount == 1 else f"{exact(amount)} credits"


TOOLS = (
    Tool(
        "get_results",
        "List results",
        "List tasks of a run with state, verdict and credits, without their answers; filter by state, "
        "engine, country, verdict or custom_id. A page may be short and still have a next_cursor.",
        get_results,
        ResultsParams,
        Page[Task],
    ),
    Tool(
        "get_result",
        "Get one result",
        "Get one task with its answer: text, cited addresses and, where it fits max_chars, the response as "
        "the engine gave it.",
        get_result,
        ResultParams,
        TaskAnswer,
    ),
    Tool(
        "explain_charge",
        "Explain a charge",
        "Explain in words and figures what one task cost: estimate, creditsToCharge, creditsCharged, "
        "verdict, ledger entries, and the stored evidence.",
        explain_charge,
        TaskParams,
        ChargeExplanation,
    ),
)
