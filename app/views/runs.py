"""What the commands say about runs, as JSON documents; the tables on a terminal are drawn from the same ones.

Credits are exact: an integer, or the decimal as text. Times are ISO 8601, UTC.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from app.domain.credits import to_json_number
from app.domain.own_columns import own_document
from app.domain.task import RunState, TaskState
from app.domain.text import one_line
from app.domain.time_format import iso_utc
from app.domain.verdicts import Verdict
from app.store.read.progress import RunProgress
from app.store.read.runs import RunReport, RunRow

Document = dict[str, Any]

PROMPT_CHARS_MAX = 200
"""Of a prompt that stands beside a finding; the export has it whole."""


def run_document(run: RunRow) -> Document:
    """A run as its row says."""
    return {
        "id": run.id,
        "name": run.name,
        "source": run.source,
        "account": run.account,
        "state": str(run.state),
        "reason": run.reason,
        "reason_code": run.reason_code,
        "budget": to_json_number(run.budget),
        "bad_lines": run.bad_lines,
        "created_at": iso_utc(run.created_at_ms),
        "finished_at": iso_utc(run.finished_at_ms),
        "restored": run.restored,
        "retained_at": iso_utc(run.retained_at_ms),
    }


def is_finished(run: RunRow, progress: RunProgress) -> bool:
    """Nothing of it will be sent or is out any more."""
    return run.state != RunState.LOADING and progress.open == 0


def is_halted(run: RunRow, progress: RunProgress) -> bool:
    """Paused or stopped, and what was sent before has come back: only a person can make it go on."""
    out = progress.states.get(TaskState.SUBMITTING, 0) + progress.states.get(TaskState.SUBMITTED, 0)
    return run.state in (RunState.PAUSED, RunState.STOPPED) and out == 0


def state_of(run: RunRow, progress: RunProgress) -> RunState:
    """The one word for how a run stands. Its row and its tasks are read one after the other, and the tasks
    decide whether it is over."""
    state = RunState(run.state)
    kept = state in (RunState.LOADING, RunState.CANCELLED)
    return RunState.FINISHED if progress.open == 0 and not kept else state


def _run_with(run: RunRow, progress: RunProgress) -> Document:
    return run_document(run) | {"state": str(state_of(run, progress))}


def status_document(run: RunRow, progress: RunProgress) -> Document:
    """A run, where its tasks stand, and its credits so far."""
    return {
        "run": _run_with(run, progress),
        "finished": is_finished(run, progress),
        "tasks": progress.tasks,
        "open": progress.open,
        "states": {state.value: progress.states.get(state, 0) for state in TaskState},
        "credits": {
            "estimate": to_json_number(progress.estimate),
            "held": to_json_number(progress.held),
            "charged": to_json_number(progress.charged),
        },
    }


def report_document(report: RunReport, findings: Sequence[Document]) -> Document:
    """The books of one run: states, verdicts, credits, and what needs explaining."""
    progress = report.progress
    return {
        "run": _run_with(report.run, progress),
        "finished": is_finished(report.run, progress),
        "tasks": progress.tasks,
        "open": progress.open,
        **{state.value: progress.states.get(state, 0) for state in TaskState},
        "duplicates": report.duplicates,
        "swept": report.swept,
        "recovered_submits": report.recovered_submits,
        "reused": report.reused,
        "verdicts": {verdict.value: report.verdicts.get(verdict, 0) for verdict in Verdict},
        "credits": {
            "estimate": to_json_number(progress.estimate),
            "charged": to_json_number(progress.charged),
            "held": to_json_number(report.held),
            "posted": to_json_number(report.posted),
            "voided": to_json_number(report.voided),
        },
        "money_open": report.unknown,
        "findings": [finding_document(finding) for finding in findings],
    }


def finding_document(finding: Document) -> Document:
    """A finding of the store: its credits as JSON numbers, and what was asked, so that a person knows which
    task it is."""
    document = {
        key: to_json_number(value) if isinstance(value, Decimal) else value
        for key, value in finding.items()
        if key not in ("payload", "metadata")
    }
    return document | _asked(finding["payload"]) | {"metadata": own_document(finding["metadata"])}


def _asked(payload: str | None) -> Document:
    """Country and first words of what a task asks; null where it names none."""
    asked = {} if payload is None else json.loads(payload)
    subject = next((asked[name] for name in ("prompt", "query", "url") if asked.get(name)), None)
    country = asked.get("country") or asked.get("gl")
    return {
        "country": None if country is None else str(country).upper(),
        "prompt": None if subject is None else _beginning(str(subject)),
    }


def _beginning(prompt: str) -> str:
    words = one_line(prompt[: 2 * PROMPT_CHARS_MAX])
    return words if len(words) <= PROMPT_CHARS_MAX else f"{words[:PROMPT_CHARS_MAX]}…"
