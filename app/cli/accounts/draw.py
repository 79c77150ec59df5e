"""Draws what the commands say about accounts on a terminal. Everything a person sees and no program reads."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape

from app.cli.terminal import draw_largest, figure, minute, second, table
from app.domain.text import counted

if TYPE_CHECKING:
    from app.views.runs import Document

HOURLY = ("tasks", "credits", "credits_per_hour", "per_estimate")
DAILY = ("tasks", "credits", "credits_per_day")


def draw_plan(output: Console, document: "Document") -> None:
    """Plan and cycle in a few lines, then what the account is spent on."""
    cycle, held, unknown = document["cycle"], document["held"], document["unknown"]
    output.print(
        f"Account {document['account']}: cycle {cycle['starts_at'][:10]} to {cycle['ends_at'][:10]}, "
        f"{counted(cycle['days_left'], 'day')} left"
    )
    if not document["audited"]:
        output.print("  [yellow]no balance of this cycle was seen yet; tallyhook audit takes one[/yellow]")
    output.print(
        f"  allocation {document['allocation']}, used {document['used']}, foreign {document['foreign']}"
    )
    output.print(
        f"  remaining  {document['remaining']}, held {held['credits']} ({counted(held['tasks'], 'task')}), "
        f"unknown {unknown['credits']} ({counted(unknown['tasks'], 'task')}), "
        f"available {document['available']}"
    )
    if document["overage"]:
        output.print(f"  [yellow]overage    {document['overage']}[/yellow]")
    balance = document["provider"]
    if balance is not None:
        output.print(f"  provider   {balance['remaining']} at {second(balance['at'])}")
    burn = document["burn"]
    output.print(
        f"  burn       {counted(burn['credits_per_day'], 'credit')} "
        f"a day, by the last {counted(burn['hours'], 'hour')}"
    )
    if burn["by"]:
        rows = table("engine", "country", "tasks", "credits", "a day")
        draw_largest(output, rows, burn["by"], partial(_burned, names=DAILY))


def _burned(part: "Document", names: Sequence[str]) -> list[str]:
    return [part["task_type"], escape(part["country"] or ""), *(str(part[name]) for name in names)]


def draw_statement(output: Console, document: "Document") -> None:
    """A cycle line by line."""
    cycle, totals = document["cycle"], document["totals"]
    state = "closed" if document["closed"] else "running"
    days = f"{cycle['starts_at'][:10]} to {cycle['ends_at'][:10]}"
    output.print(f"Statement of account {document['account']}, {days} ({state})")
    rows = table("day", "what", "detail", "count", "credits", "balance")
    for line in document["lines"]:
        detail = f"{line['task_type']} {line['mode']}" if "task_type" in line else line.get("reason", "")
        count = str(line.get("count", ""))
        rows.add_row(
            line["day"], line["what"], escape(detail), count, str(line["credits"]), str(line["balance"])
        )
    output.print(rows)
    output.print("  " + ", ".join(f"{name} {value}" for name, value in totals.items()))


def draw_audit(output: Console, document: "Document") -> None:
    """Whether every change of the balance is explained, and where it is not."""
    both = f"balance {figure(document['balance'])}, books {figure(document['books'])}"
    output.print(f"Account {document['account']}: {both}")
    exposure, foreign = document["unknown_exposure"], document["foreign"]
    output.print(
        f"  unknown exposure {counted(exposure['credits'], 'credit')} of {counted(exposure['tasks'], 'task')}"
    )
    output.print(f"  foreign spend    {foreign['lowest']} to {foreign['highest']}")
    for entry in document["booked"]:
        output.print(f"  booked           {entry['what']} {entry['credits']}: {escape(entry['reason'])}")
    _draw_intervals(output, document)
    for reset in document["resets"]:
        lost = f"{reset['expired_lowest']} to {reset['expired_highest']}"
        output.print(
            f"  new cycle        {minute(reset['at'])}: {lost} expired, {reset['allocation']} allocated"
        )
    if document["explained"]:
        output.print("[green]Explained.[/green] Every change of the balance has its entries.")
    else:
        output.print(
            f"[red]Unexplained:[/red] {counted(document['unexplained'], 'credit')} "
            f"should be gone and are not."
        )


def _draw_intervals(output: Console, document: "Document") -> None:
    moved = [i for i in document["intervals"] if i["actual"] or i["ours_lowest"] or i["unexplained"]]
    if not moved:
        return
    rows = table("from", "to", "before", "after", "change", "ours", "foreign", "unexplained")
    for i in moved:
        low, high = i["ours_lowest"], i["ours_highest"]
        rows.add_row(
            minute(i["from"]),
            minute(i["to"]),
            str(i["before"]),
            str(i["after"]),
            str(i["actual"]),
            str(low) if low == high else f"{low} to {high}",
            str(i["foreign"]),
            str(i["unexplained"]),
        )
    output.print(rows)


def draw_forecast(output: Console, document: "Document") -> None:
    """The near future in a few lines, then run by run."""
    balance, available = document["balance"], document["available"]
    output.print(f"Account {document['account']}, {_shown_minute(document['at'])} UTC")
    if balance is None:
        output.print("  credits  unknown: the provider told no balance yet; tallyhook audit asks")
    else:
        output.print(
            f"  credits  {available['likely']} available, by the balance of {_shown_minute(balance['at'])}; "
            f"next reset {_shown_minute(document['resets_at'])}"
        )
    queued, rate = document["queued"], document["tasks_per_hour"]
    output.print(
        f"  queued   {counted(queued['tasks'], 'task')}, {counted(_from_to(queued['cost']), 'credit')}"
    )
    how = "" if document["measured"] else ": a guess by the slots, nothing finished lately"
    output.print(f"  pace     {counted(_from_to(rate), 'task')} an hour{how}")
    output.print(f"  runs out {_time_span(document['runs_out'])}")
    if document["burn"]:
        rows = table("engine", "country", "tasks", "credits", "an hour", "per estimate")
        draw_largest(output, rows, document["burn"], partial(_burned, names=HOURLY))
    _draw_run_forecasts(output, document)
    for warning in document["warnings"]:
        style = "red" if warning["sure"] else "yellow"
        output.print(f"[{style}]{warning['kind']}[/{style}]: {escape(warning['message'])}")


def _draw_run_forecasts(output: Console, document: "Document") -> None:
    if not document["runs"]:
        output.print("No task is open." if document["run"] is None else "No task of this run is open.")
        return
    rows = table("run", "open", "credits", "ends")
    for row in document["runs"]:
        ends = row["why_not"] or _time_span(row["ends"])
        rows.add_row(escape(row["run"]["name"]), str(row["open"]), _from_to(row["cost"]), escape(ends))
    output.print(rows)


def _from_to(figures: "Document") -> str:
    return f"{figures['likely']} ({figures['low']} to {figures['high']})"


def _time_span(span: "Document") -> str:
    if span["earliest"] is None:
        return "not in sight"
    latest = _shown_minute(span["latest"]) if span["latest"] else "never"
    likely = f"likely {_shown_minute(span['likely'])}" if span["likely"] else "likely not"
    return f"{likely}; from {_shown_minute(span['earliest'])} to {latest}"


def _shown_minute(iso: str | None) -> str:
    return "none" if iso is None else minute(iso)
