"""The command bulk: something done to all tasks, or runs, that match a filter. Tried out, confirmed, done."""

from dataclasses import replace
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import LISTED_MAX, AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.config import Settings
    from app.domain.bulk_change import BulkChange, Verb
    from app.domain.task_filter import TaskFilter
    from app.store import Store

SHOWN = 20
SHORT_CHARS = 8

bulk = typer.Typer(
    help="Retry, cancel, pause or resume all that match a filter: tried out first, then confirmed.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Filter = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="FILTER",
        help="Words such as state:failed engine:CHATGPT country:GB verdict:unknown run:monday custom_id:a7 "
        "text:shoes; of several all hold.",
    ),
]
Yes = Annotated[bool, typer.Option("--yes", help="Do it at once, with the figures that trying it out gives.")]
Change = Annotated[str, typer.Argument(metavar="CHANGE", help="Its id, or the end of it.")]


@bulk.command(
    epilog=examples("tallyhook bulk retry state:failed engine:CHATGPT", "tallyhook bulk retry --yes")
)
def retry(
    filter: Filter = None,
    even_if_held: Annotated[
        bool,
        typer.Option("--even-if-held", help="Also where the old attempt may still be charged: pay twice."),
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Send failed, expired and rejected tasks of all runs again: those that match."""
    from app.domain.bulk_change import Verb

    _change(Verb.RETRY, filter, yes, as_json, even_if_held=even_if_held)


@bulk.command(epilog=examples("tallyhook bulk cancel run:monday engine:GROK"))
def cancel(filter: Filter = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Never send tasks that match and were not sent yet. What the provider has goes on."""
    from app.domain.bulk_change import Verb

    _change(Verb.CANCEL, filter, yes, as_json)


@bulk.command(epilog=examples("tallyhook bulk pause engine:GROK state:pending"))
def pause(filter: Filter = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Send nothing more of running runs that have a task that matches, until they are resumed."""
    from app.domain.bulk_change import Verb

    _change(Verb.PAUSE, filter, yes, as_json)


@bulk.command(epilog=examples("tallyhook bulk resume --yes"))
def resume(filter: Filter = None, yes: Yes = False, as_json: AsJson = False) -> None:
    """Let paused and stopped runs go on that have a task that matches."""
    from app.domain.bulk_change import Verb

    _change(Verb.RESUME, filter, yes, as_json)


@bulk.command(epilog=examples("tallyhook bulk confirm 5f0c2b1a"))
def confirm(change: Change, as_json: AsJson = False) -> None:
    """Do what was tried out. Refused when more matches by now.

    Should this end before its time, a worker goes on.
    """
    from app.cli.terminal import show

    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        found = await choose_change(store, change)
        show(await _carried_out(store, settings, found), as_json=as_json, draw=draw_change)

    with_store(settings, work)


@bulk.command(epilog=examples("tallyhook bulk stop 5f0c2b1a"))
def stop(change: Change, as_json: AsJson = False) -> None:
    """Do no more of a bulk change that runs. What was done stays."""
    from app.bootstrap import now_ms
    from app.cli.terminal import show
    from app.services import bulk_changes
    from app.services.access import BY_COMMAND
    from app.services.bulk_changes import NotConfirmed

    async def work(store: "Store") -> None:
        found, now = await choose_change(store, change), now_ms()
        action = BY_COMMAND.action("bulk_change.stop", found.id, now)
        try:
            stopped = await bulk_changes.stop(store, found, now_ms=now, action=action)
        except NotConfirmed as error:
            raise UserError(error.code, str(error)) from None
        done(f"bulk change {found.id} is stopped")
        show(_document(stopped), as_json=as_json, draw=draw_change)

    with_store(settings_for(log_level="warning"), work)


@bulk.command(name="list", epilog=examples("tallyhook bulk list"))
def list_(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=LISTED_MAX)] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """List bulk changes, newest first: what each does, and how far it has come."""
    from app.cli.terminal import show
    from app.views.bulk_changes import bulk_change_document

    async def work(store: "Store") -> None:
        rows = await store.bulk_changes.changes_before(None, limit)
        show({"changes": [bulk_change_document(row) for row in rows]}, as_json=as_json, draw=draw_changes)

    with_store(settings_for(log_level="warning"), work)


def _change(
    verb: "Verb", words: list[str] | None, yes: bool, as_json: bool, *, even_if_held: bool = False
) -> None:
    from app.bootstrap import now_ms
    from app.cli.terminal import show
    from app.domain.task_filter import FilterError
    from app.services.access import BY_COMMAND
    from app.services.bulk_changes import propose

    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        try:
            wanted = await _wanted(store, words or [])
            change = await propose(
                store, verb, wanted, BY_COMMAND, now_ms=now_ms(), even_if_held=even_if_held
            )
        except FilterError as error:
            raise UserError("bad_filter", str(error), error.remedy, exit_code=USAGE) from None
        if not change.proposed.matched:
            raise UserError("nothing_matches", f"nothing that matches can be {_DONE[verb]}", _left(change))
        document = await _carried_out(store, settings, change) if yes else _document(change)
        show(document, as_json=as_json, draw=draw_change)

    with_store(settings, work)


_DONE = {"retry": "sent again", "cancel": "cancelled", "pause": "paused", "resume": "resumed"}


async def _wanted(store: "Store", words: list[str]) -> "TaskFilter":
    """Raises FilterError, and UserError for a run that there is not."""
    from app.cli.runs.choose import choose_run
    from app.domain.task_filter import parse_filter

    wanted = parse_filter(" ".join(words))
    if wanted.run is None:
        return wanted
    return replace(wanted, run=(await choose_run(store, wanted.run)).id)


async def _carried_out(store: "Store", settings: "Settings", change: "BulkChange") -> dict[str, Any]:
    from app.bootstrap import now_ms
    from app.cli.runs.submit_file import wake_workers
    from app.services import bulk_changes
    from app.services.access import BY_COMMAND
    from app.services.bulk_changes import NotConfirmed

    proposed, now = change.proposed, now_ms()
    try:
        begun = await bulk_changes.confirm(
            store,
            change,
            matched=proposed.matched,
            credits=proposed.credits,
            now_ms=now,
            action=BY_COMMAND.action("bulk_change.confirm", change.id, now),
        )
    except NotConfirmed as error:
        raise UserError(error.code, str(error)) from None
    done(f"bulk change {change.id} is confirmed; a worker goes on with it, whatever becomes of this command")
    await bulk_changes.carry_out(store, begun.id, clock=now_ms)
    if change.verb in ("retry", "resume"):
        await wake_workers(settings)
    return _document(await store.bulk_changes.find(change.id) or begun)


async def choose_change(store: "Store", given: str) -> "BulkChange":
    """What a person means. Raises UserError for none, or for several."""
    rows = [
        row for row in await store.bulk_changes.changes_before(None, LISTED_MAX) if row.id.endswith(given)
    ]
    if not given or not rows:
        what = f"there is no bulk change {given[:80]!r}"
        raise UserError("no_bulk_change", what, "tallyhook bulk list shows them", exit_code=USAGE)
    if len(rows) > 1:
        details = [f"{row.id}  {row.verb} {row.filter}" for row in rows[:SHOWN]]
        raise UserError("ambiguous", "several fit", "give more of its id", details=details, exit_code=USAGE)
    return rows[0]


def _document(change: "BulkChange") -> dict[str, Any]:
    from app.domain.bulk_change import ChangeState
    from app.views.bulk_changes import bulk_change_document, what_it_does

    is_proposed = change.state is ChangeState.PROPOSED
    figures = change.proposed if is_proposed else change.done
    message = what_it_does(change, figures, is_done=not is_proposed)
    return {"change": bulk_change_document(change), "message": f"{message}.", "left": _lines(change)}


def _lines(change: "BulkChange") -> list[str]:
    from app.domain.bulk_change import ChangeState
    from app.views.bulk_changes import what_is_left

    is_proposed = change.state is ChangeState.PROPOSED
    return what_is_left(change, change.proposed if is_proposed else change.done)


def _left(change: "BulkChange") -> str:
    return "; ".join(_lines(change)) or "tallyhook report RUN shows where the tasks of a run stand"


def draw_change(output: "Console", document: dict[str, Any]) -> None:
    """What it does or did, what is left alone, and what to do next."""
    from rich.markup import escape

    from app.cli.terminal import minute

    change = document["change"]
    output.print(escape(document["message"]))
    for line in document["left"]:
        output.print(f"  {escape(line)}.")
    if change["state"] == "proposed":
        output.print(f"Nothing is changed yet. Until {minute(change['lapses_at'])} UTC this does it:")
        output.print(f"  [cyan]tallyhook bulk confirm {change['id'][-SHORT_CHARS:]}[/cyan]")
    elif change["reason"]:
        output.print(f"[yellow]{escape(change['reason'][:1].upper() + change['reason'][1:])}.[/yellow]")
    elif change["state"] == "running":
        output.print("It goes on: tallyhook bulk list shows how far it is.")


def draw_changes(output: "Console", document: dict[str, Any]) -> None:
    """A row for each."""
    from rich.markup import escape

    from app.cli.terminal import STATE_STYLES, minute, table

    if not document["changes"]:
        output.print("Nothing was changed in bulk yet: tallyhook bulk retry state:failed tries it out.")
        return
    rows = table("change", "at", "what", "filter", "state", "done", "of", "by")
    for row in document["changes"]:
        style = STATE_STYLES.get(row["state"], "cyan")
        rows.add_row(
            row["id"][-SHORT_CHARS:],
            minute(row["created_at"]),
            row["verb"],
            escape(row["filter"] or "-"),
            f"[{style}]{row['state']}[/{style}]",
            f"{row['done']['matched']:,}",
            f"{row['proposed']['matched']:,}",
            escape(row["actor"]),
        )
    output.print(rows)
