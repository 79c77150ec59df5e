"""Draws what the commands say about accounts on a terminal. Everything a person sees and no program reads."""

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from app.views.runs import Document


def draw_plan(output: Console, document: Document) -> None:
    """Plan and cycle in a few lines, then what the account is spent on."""
    cycle, held, unknown = document["cycle"], document["held"], document["unknown"]
    output.print(
        f"Account {document['account']}: cycle {cycle['starts_at'][:10]} to {cycle['ends_at'][:10]}, "
        f"{cycle['days_left']} days left"
    )
    if not document["audited"]:
        output.print("  [yellow]no balance of this cycle was seen yet; tallyhook audit takes one[/yellow]")
    output.print(
        f"  allocation {document['allocation']}, used {document['used']}, foreign {document['foreign']}"
    )
    output.print(
        f"  remaining  {document['remaining']}, held {held['credits']} ({held['tasks']} tasks), "
        f"unknown {unknown['credits']} ({unknown['tasks']} tasks), available {document['available']}"
    )
    if document["overage"]:
        output.print(f"  [yellow]overage    {document['overage']}[/yellow]")
    told = document["provider"]
    if told is not None:
        output.print(f"  provider   {told['remaining']} at {told['at'][:19].replace('T', ' ')}")
    burn = document["burn"]
    output.print(f"  burn       {burn['credits_per_day']} credits a day, by the last {burn['hours']} hours")
    if burn["by"]:
        table = _table("engine", "country", "tasks", "credits", "a day")
        for row in burn["by"]:
            figures = (row["tasks"], row["credits"], row["credits_per_day"])
            table.add_row(row["task_type"], escape(row["country"]), *map(str, figures))
        output.print(table)


def draw_statement(output: Console, document: Document) -> None:
    """A cycle line by line."""
    cycle, totals = document["cycle"], document["totals"]
    state = "closed" if document["closed"] else "running"
    days = f"{cycle['starts_at'][:10]} to {cycle['ends_at'][:10]}"
    output.print(f"Statement of account {document['account']}, {days} ({state})")
    table = _table("day", "what", "detail", "count", "credits", "balance")
    for line in document["lines"]:
        detail = f"{line['task_type']} {line['mode']}" if "task_type" in line else line.get("reason", "")
        count = str(line.get("count", ""))
        table.add_row(
            line["day"], line["what"], escape(detail), count, str(line["credits"]), str(line["balance"])
        )
    output.print(table)
    output.print("  " + ", ".join(f"{name} {value}" for name, value in totals.items()))


def draw_audit(output: Console, document: Document) -> None:
    """Whether every change of the balance is explained, and where it is not."""
    both = f"balance {_figure(document['balance'])}, books {_figure(document['books'])}"
    output.print(f"Account {document['account']}: {both}")
    exposure, foreign = document["unknown_exposure"], document["foreign"]
    output.print(f"  unknown exposure {exposure['credits']} credits of {exposure['tasks']} tasks")
    output.print(f"  foreign spend    {foreign['lowest']} to {foreign['highest']}")
    for entry in document["booked"]:
        output.print(f"  booked           {entry['what']} {entry['credits']}: {escape(entry['reason'])}")
    _draw_intervals(output, document)
    for reset in document["resets"]:
        lost = f"{reset['expired_lowest']} to {reset['expired_highest']}"
        output.print(
            f"  new cycle        {_minute(reset['at'])}: {lost} expired, {reset['allocation']} allocated"
        )
    if document["explained"]:
        output.print("[green]Explained.[/green] Every change of the balance has its entries.")
    else:
        output.print(f"[red]Unexplained:[/red] {document['unexplained']} credits should be gone and are not.")


def _draw_intervals(output: Console, document: Document) -> None:
    moved = [i for i in document["intervals"] if i["actual"] or i["ours_lowest"] or i["unexplained"]]
    if not moved:
        return
    table = _table("from", "to", "before", "after", "change", "ours", "foreign", "unexplained")
    for i in moved:
        low, high = i["ours_lowest"], i["ours_highest"]
        table.add_row(
            _minute(i["from"]),
            _minute(i["to"]),
            str(i["before"]),
            str(i["after"]),
            str(i["actual"]),
            str(low) if low == high else f"{low} to {high}",
            str(i["foreign"]),
            str(i["unexplained"]),
        )
    output.print(table)


def _minute(iso: str) -> str:
    return iso[:16].replace("T", " ")


def _figure(value: object) -> str:
    return "unknown" if value is None else str(value)


def _table(*columns: str) -> Table:
    table = Table(box=None, pad_edge=False, header_style="dim")
    for column in columns:
        table.add_column(column, no_wrap=column in ("from", "to", "day"))
    return table
