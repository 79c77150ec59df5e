"""Draws the demo's report: what was found, next to what the emulator expects."""

from rich.console import Console
from rich.table import Table

from app.cli.demo.expected import COUNTS
from app.domain.text import counted
from app.views.runs import Document


def draw_demo(output: Console, document: Document) -> None:
    """One line a figure; figures that differ are marked."""
    expected = document["emulator"]
    table = Table(box=None, pad_edge=False, header_style="dim")
    table.add_column("")
    table.add_column("found", justify="right")
    table.add_column("emulator says", justify="right")
    table.add_column("")
    for name in COUNTS:
        _add(table, name.replace("_", " "), document[name], expected[name])
    for name, count in document["verdicts"].items():
        _add(table, f"verdict {name.replace('_', ' ')}", count, expected["verdicts"][name])
    output.print(table)
    ledger = document["ledger"]
    output.print(
        f"Ledger: {counted(ledger['posted'], 'credit')} posted, "
        f"{ledger['voided']} voided, {ledger['held']} still held. "
        f"Drift against the provider's balance: {document['drift']}."
    )
    for difference in document["differences"]["tasks"]:
        output.print(
            f"[red]{difference['idempotency_key']}: found {difference['found']}, "
            f"emulator {difference['emulator']}[/red]"
        )
    count = document["differences"]["tasks_count"]
    if document["agree"]:
        output.print(f"[green]The books agree, task by task[/green], after {document['seconds']} s.")
    else:
        output.print(f"[red]The books differ[/red], {count} charges among them.")
    if "page" in document:
        output.print(f"\nThe page is at {document['page']}; sign in with the token {document['token']}")
        output.print("Everything runs on until Ctrl-C.")
    else:
        output.print("[dim]make demo ARGS=--keep leaves everything up, with the page to look at.[/dim]")


def _add(table: Table, name: str, found: object, expected: object) -> None:
    style = "" if found == expected else "red"
    table.add_row(name, str(found), str(expected), "" if found == expected else "differs", style=style)
