"""The commands prune and retain: what is older than the policy goes, and what must stay is locked."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, RunArgument, examples, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.domain.text import agreeing, counted

if TYPE_CHECKING:
    from rich.console import Console

    from app.store import Store
    from app.views.runs import Document

PAUSE_S = 0.02
"""After each batch, for who else writes to SQLite."""


def prune(
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would go, and what stays.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Drop what is older than the policy of TALLYHOOK_KEEP_BODIES_DAYS and its like, and leave receipts.

    Without a policy nothing goes. What is not settled, whose money is open, what is in dispute and retained
    runs are never dropped; the ledger, tasks and results stay for ever. Bodies, submissions, balances,
    notices, findings and callers' keys each have a setting. Workers do the same once an hour.
    """
    import asyncio

    from app.bootstrap import now_ms, open_archive
    from app.cli.terminal import show
    from app.services.in_archive import InArchive
    from app.services.prune import Pruner
    from app.views.prune import prune_document

    settings = settings_for(log_level="warning")
    policy = settings.keep_days()

    async def work(store: "Store") -> None:
        archive = open_archive(settings)
        pruner = Pruner(
            store,
            policy,
            clock=now_ms,
            pause=lambda: asyncio.sleep(PAUSE_S),
            place=None if archive is None else InArchive(store, archive),
        )
        found = await (pruner.plan() if dry_run else pruner.turn())
        if found and not dry_run:
            pruned = sum(one.rows for one in found)
            done(f"{counted(pruned, 'row')} {agreeing(pruned)} pruned")
        document = prune_document(found, policy, dry_run=dry_run, held=pruner.held)
        show(document, as_json=as_json, draw=draw_pruned)
        if pruner.held:
            raise typer.Exit(1)

    with_store(settings, work)


def retain(
    run: RunArgument,
    release: Annotated[bool, typer.Option("--release", help="Let it be pruned again.")] = False,
    as_json: AsJson = False,
) -> None:
    """Lock RUN against pruning: all that is stored of it stays, until it is released.

    What was pruned before does not come back. Asking twice changes nothing.
    """
    from app.bootstrap import now_ms
    from app.cli.runs.choose import choose_run
    from app.cli.terminal import draw_line, show
    from app.views.runs import run_document

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        await store.pruning.retain_run(row.id, None if release else now_ms())
        done(f"run {row.id} is {'released' if release else 'retained'}")
        document = run_document(await choose_run(store, row.id))
        what = "may be pruned again" if release else f"is retained since {document['retained_at']}"
        show({"run": document, "message": f"Run {row.name} {what}."}, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


def draw_pruned(output: "Console", document: "Document") -> None:
    """A line for each kind and day, then the sentence."""
    from rich.markup import escape

    from app.cli.terminal import pairs, table

    if document["days"]:
        rows = table("kind", "day", "rows", "bytes", "credits", "kept")
        for day in document["days"]:
            figures = (f"{day['rows']:,}", f"{day['bytes']:,}", str(day["credits_charged"]))
            rows.add_row(day["kind"], day["day"], *figures, pairs(day["kept"]))
        output.print(rows)
    for day in document["held_up"]:
        output.print(escape(f"Nothing of {day['day']} went: {day['reason']}."))
    output.print(escape(document["message"]))


PRUNE_EXAMPLES = examples(
    "tallyhook prune --dry-run", "TALLYHOOK_KEEP_BODIES_DAYS=90 tallyhook prune --json | jq .days"
)
RETAIN_EXAMPLES = examples("tallyhook retain monday", "tallyhook retain monday --release")
