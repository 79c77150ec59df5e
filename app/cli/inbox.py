"""The command inbox: deliveries that were set aside, or that something holds up, and another look at them."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import AsJson, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.domain.text import counted
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.store import Store
    from app.store.read.set_aside import InboxRow

ROWS_SHOWN = 50
REMEDY = "tallyhook inbox list shows what there is"

inbox = typer.Typer(
    help="List deliveries that could not be settled, look at one, or have them looked at again.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@inbox.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=100_000)] = ROWS_SHOWN,
    as_json: AsJson = False,
) -> None:
    """List deliveries that were set aside, and those that something else holds up, newest first.

    Set aside is what a delivery itself is to blame for; it waits for you. What is held up is tried again by
    itself.
    """
    from app.cli.terminal import show
    from app.views.inbox import inbox_document

    async def work(store: "Store") -> None:
        rows = await store.set_aside.list_inbox(limit)
        document = {
            "set_aside": await store.set_aside.set_aside_count(),
            "deliveries": [inbox_document(row) for row in rows],
        }
        show(document, as_json=as_json, draw=draw_inbox)

    with_store(settings_for(log_level="warning"), work)


@inbox.command()
def show(
    delivery: Annotated[str, typer.Argument(metavar="ID", help="Its id, or the beginning or end of it.")],
    body: Annotated[bool, typer.Option("--body", help="With what it says: prompts and answers.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one delivery and why it is not settled. What it says is shown only with --body."""
    from app.cli.terminal import show as show_document
    from app.views.inbox import body_document, inbox_document

    async def work(store: "Store") -> None:
        row = await chosen(store, delivery)
        document = inbox_document(row)
        if body:
            document |= body_document(await store.set_aside.inbox_body(row.id))
        show_document(document, as_json=as_json, draw=draw_delivery)

    with_store(settings_for(log_level="warning"), work)


@inbox.command()
def retry(
    delivery: Annotated[list[str] | None, typer.Argument(metavar="ID…", help="Which ones.")] = None,
    all_: Annotated[bool, typer.Option("--all", help="All that are set aside or held up.")] = False,
    as_json: AsJson = False,
) -> None:
    """Have deliveries looked at again: after a release that reads them, or once the trouble is over.

    A worker does it within seconds. What still cannot be settled is set aside again; trying loses nothing.
    """
    from app.bootstrap import now_ms
    from app.cli.terminal import draw_line
    from app.cli.terminal import show as show_document

    if bool(delivery) is all_:
        raise UserError("usage", "name deliveries, or --all", REMEDY, exit_code=USAGE)

    async def work(store: "Store") -> None:
        rows = [await chosen(store, part) for part in delivery or ()]
        settled = [row.id for row in rows if row.state == "done"]
        if settled:
            raise UserError("settled", f"delivery {settled[0]} is settled", REMEDY)
        ids = await store.set_aside.retry_inbox(None if all_ else [row.id for row in rows], now_ms())
        if not ids:
            raise UserError("nothing_to_retry", "nothing is set aside, and nothing is held up")
        summary = f"{counted(len(ids), 'delivery', 'deliveries')} will be looked at again"
        done(summary if len(ids) > 1 else f"delivery {ids[0]} will be looked at again")
        message = f"{summary}."
        show_document({"retried": ids, "message": message}, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


async def chosen(store: "Store", part: str) -> "InboxRow":
    """The one delivery that is meant. Raises UserError."""
    rows = await store.set_aside.find_inbox(part)
    if not rows:
        raise UserError("no_such_delivery", f"no delivery {part[:80]!r}", REMEDY)
    if len(rows) > 1:
        raise UserError(
            "ambiguous",
            f"{len(rows)} deliveries begin or end with {part!r}",
            "write more of its id",
            details=[row.id for row in rows[:20]],
        )
    return rows[0]


def draw_inbox(output: "Console", document: dict[str, Any]) -> None:
    """One line for each, and under it what is wrong."""
    from app.cli.terminal import second

    if not document["deliveries"]:
        output.print("Nothing is set aside, and nothing is held up.")
    for row in document["deliveries"]:
        style = "red" if row["state"] == "set_aside" else "yellow"
        received = second(row["received_at"])
        output.print(f"{row['id']} [{style}]{row['state']:>9}[/{style}] {received} {row['account'] or '-'}")
        output.print(f"  {printable(row['error'] or '')}", markup=False)


def draw_delivery(output: "Console", document: dict[str, Any]) -> None:
    """One fact a line; at the end what it says, if that was asked for."""
    for name, value in document.items():
        if name not in ("body", "body_base64") and value is not None:
            output.print(f"{name.replace('_', ' '):<13} {printable(str(value))}", markup=False)
    if "body" in document:
        text = document["body"]
        output.print("does not unpack" if text is None else printable(text), markup=False)


def printable(text: str) -> str:
    """Text of others for a terminal: what could move the cursor or turn the writing around is spelled out."""
    return "".join(c if c.isprintable() or c == "\n" else ascii(c)[1:-1] for c in text)
