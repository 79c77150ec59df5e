"""What the command forecast says, as a JSON document."""

from collections.abc import Callable
from typing import Any, TypeVar

from app.domain.accounting.forecast import RunForecast, Span
from app.domain.accounting.rates import Range
from app.domain.credits import to_json_number
from app.domain.time_format import iso_utc
from app.services.forecast import AccountForecast
from app.store.read.runs import RunRow
from app.views.runs import Document, run_document

T = TypeVar("T")


def forecast_document(seen: AccountForecast, chosen: RunRow | None) -> Document:
    """What lies ahead of an account; with a run, of its runs only that one."""
    found, use = seen.forecast, seen.use
    runs = [_run(entry) for entry in found.runs if chosen is None or entry.run.id == chosen.id]
    return {
        "account": found.account,
        "at": iso_utc(found.now_ms),
        "run": run_document(chosen) if chosen else None,
        "balance": None
        if found.balance is None
        else {"remaining": to_json_number(found.balance.remaining), "at": iso_utc(found.balance.at_ms)},
        "available": None if found.available is None else _range(found.available, to_json_number),
        "resets_at": iso_utc(found.resets_at_ms),
        "runs_out": _span(found.runs_out),
        "queued": {"tasks": found.queued, "cost": _range(found.queued_cost, to_json_number)},
        "tasks_per_hour": _range(found.tasks_per_hour, lambda rate: round(rate, 1)),
        "measured": found.is_measured,
        "usual_per_hour": None
        if found.usual_per_hour is None
        else _range(found.usual_per_hour, to_json_number),
        "burn": [
            {
                "task_type": burn.task_type,
                "country": burn.country,
                "tasks": burn.tasks,
                "credits": to_json_number(burn.credits),
                "credits_per_hour": to_json_number(burn.credits_per_hour),
                "per_estimate": to_json_number(burn.per_estimate),
            }
            for burn in found.burn
        ],
        "slots": {"max": use.slots, "used": use.slots_used},
        "busiest_second": use.busiest_second,
        "runs": runs,
        "warnings": [
            {
                "kind": entry.kind.value,
                "sure": entry.is_sure,
                "run_id": entry.run_id,
                "message": entry.message,
            }
            for entry in seen.warnings
        ],
    }


def _run(entry: RunForecast) -> Document:
    run = {"id": entry.run.id, "name": entry.run.name, "state": entry.run.state, "reason": entry.run.reason}
    return {
        "run": run,
        "open": entry.open,
        "cost": _range(entry.cost, to_json_number),
        "ends": _span(entry.ends),
        "why_not": entry.why_not,
    }


def _range(figures: Range[T], shown: Callable[[T], Any]) -> Document:
    return {"low": shown(figures.low), "likely": shown(figures.likely), "high": shown(figures.high)}


def _span(span: Span) -> Document:
    return {"earliest": iso_utc(span.low), "likely": iso_utc(span.likely), "latest": iso_utc(span.high)}
