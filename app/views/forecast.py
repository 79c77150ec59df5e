"""What the command forecast says, as a JSON document and drawn from the same one."""

from collections.abc import Callable
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.table import Table

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
    runs = [_run(one) for one in found.runs if chosen is None or one.run.id == chosen.id]
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
            {"kind": one.kind.value, "sure": one.is_sure, "run_id": one.run_id, "message": one.message}
            for one in seen.warnings
        ],
    }


def draw_forecast(output: Console, document: Document) -> None:
    """The near future in a few lines, then run by run."""
    balance, available = document["balance"], document["available"]
    output.print(f"Account {document['account']}, {_shown(document['at'])} UTC")
    if balance is None:
        output.print("  credits  unknown: the provider told no balance yet; tallyhook audit asks")
    else:
        output.print(
            f"  credits  {available['likely']} available, by the balance of {_shown(balance['at'])}; "
            f"next reset {_shown(document['resets_at'])}"
        )
    queued, rate = document["queued"], document["tasks_per_hour"]
    output.print(f"  queued   {queued['tasks']} tasks, {_from_to(queued['cost'])} credits")
    how = "" if document["measured"] else ": a guess by the slots, nothing finished lately"
    output.print(f"  pace     {_from_to(rate)} tasks an hour{how}")
    output.print(f"  runs out {_moments(document['runs_out'])}")
    if document["burn"]:
        table = _table("engine", "country", "tasks", "credits", "an hour", "per estimate")
        for row in document["burn"]:
            figures = (row["tasks"], row["credits"], row["credits_per_hour"], row["per_estimate"])
            table.add_row(row["task_type"], escape(row["country"] or ""), *map(str, figures))
        output.print(table)
    _draw_runs(output, document)
    for warning in document["warnings"]:
        style = "red" if warning["sure"] else "yellow"
        output.print(f"[{style}]{warning['kind']}[/{style}]: {escape(warning['message'])}")


def _draw_runs(output: Console, document: Document) -> None:
    if not document["runs"]:
        output.print("No task is open." if document["run"] is None else "No task of this run is open.")
        return
    table = _table("run", "open", "credits", "ends")
    for row in document["runs"]:
        ends = row["why_not"] or _moments(row["ends"])
        table.add_row(escape(row["run"]["name"]), str(row["open"]), _from_to(row["cost"]), escape(ends))
    output.print(table)


def _run(one: RunForecast) -> Document:
    run = {"id": one.run.id, "name": one.run.name, "state": one.run.state, "reason": one.run.reason}
    return {
        "run": run,
        "open": one.open,
        "cost": _range(one.cost, to_json_number),
        "ends": _span(one.ends),
        "why_not": one.why_not,
    }


def _range(figures: Range[T], shown: Callable[[T], Any]) -> Document:
    return {"low": shown(figures.low), "likely": shown(figures.likely), "high": shown(figures.high)}


def _span(span: Span) -> Document:
    return {"earliest": iso_utc(span.low), "likely": iso_utc(span.likely), "latest": iso_utc(span.high)}


def _from_to(figures: Document) -> str:
    return f"{figures['likely']} ({figures['low']} to {figures['high']})"


def _moments(span: Document) -> str:
    if span["earliest"] is None:
        return "not in sight"
    latest = _shown(span["latest"]) if span["latest"] else "never"
    likely = f"likely {_shown(span['likely'])}" if span["likely"] else "likely not"
    return f"{likely}; from {_shown(span['earliest'])} to {latest}"


def _shown(moment: str | None) -> str:
    return "none" if moment is None else moment[:16].replace("T", " ")


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column)
    return table
