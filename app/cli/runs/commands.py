"""Commands that look at runs: watch, runs, status, report; and what all commands on runs share."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import LISTED_MAX, AsJson, RunArgument, examples, settings_for
from app.errors import FAILED

if TYPE_CHECKING:
    from app.config import Settings
    from app.store import Store
    from app.store.read.progress import RunProgress
    from app.store.read.runs import RunRow
    from app.views.runs import Document

FINDINGS_SHOWN = 100
USABLE_MAX = 1_000_000
RUNS_SHOWN = 20
FINDINGS_MAX = 100_000
"""A page of 20 MB; a run has far fewer."""


def watch(run: RunArgument = "latest", as_json: AsJson = False) -> None:
    """Show the progress of RUN until it is finished.

    Ends with 1 when the run is paused or stopped, and says why.
    """
    from app.cli.runs.draw import draw_status
    from app.cli.runs.watch import follow
    from app.cli.terminal import show
    from app.views.runs import status_document

    async def work(store: "Store") -> None:
        row, progress = await follow(store, run)
        show(status_document(row, progress), as_json=as_json, draw=draw_status)
        exit_if_halted(row, progress)

    with_store(settings_for(log_level="warning"), work)


def runs(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=LISTED_MAX)] = RUNS_SHOWN,
    as_json: AsJson = False,
) -> None:
    """List the newest runs."""
    from app.cli.runs.draw import draw_runs
    from app.cli.terminal import show
    from app.views.runs import status_document

    async def work(store: "Store") -> None:
        rows = await store.queries.list_runs(limit)
        progress = await store.queries.progress_of_runs([row.id for row in rows])
        document = {"runs": [status_document(row, progress[row.id]) for row in rows]}
        show(document, as_json=as_json, draw=draw_runs)

    with_store(settings_for(log_level="warning"), work)


def status(run: RunArgument = "latest", as_json: AsJson = False) -> None:
    """Show where the tasks of RUN stand, its credits so far, and whether a worker is running."""
    from app.cli.runs.choose import choose_run
    from app.cli.runs.draw import draw_status
    from app.cli.runs.watch import waits_of
    from app.cli.terminal import show
    from app.views.runs import status_document
    from app.views.workers import workers_document

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        progress = await store.queries.progress(row.id)
        document = status_document(row, progress)
        document["worker"] = await workers_document(store)
        document["waits"] = await waits_of(store, row, progress, document["worker"])
        show(document, as_json=as_json, draw=draw_status)

    with_store(settings_for(log_level="warning"), work)


def report(
    run: RunArgument = "latest",
    findings: Annotated[
        int, typer.Option(help="How many findings to show.", min=0, max=FINDINGS_MAX)
    ] = FINDINGS_SHOWN,
    html: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write one page with charts, which needs nothing else."),
    ] = None,
    usable_chars: Annotated[
        int | None,
        typer.Option(
            help="An answer with less text counts as too short to use.",
            min=0,
            max=USABLE_MAX,
            show_default="TALLYHOOK_USABLE_CHARS_MIN, or 20",
        ),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the books of RUN: what the money bought by engine and country, verdicts, credits held, posted and
    voided, how long tasks took, and what needs explaining."""
    from app.cli.runs.choose import choose_run
    from app.cli.runs.draw import draw_report
    from app.cli.terminal import draw_line, show
    from app.views.report import full_report_document

    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        least = settings.usable_chars_min if usable_chars is None else usable_chars
        full = await store.reports.full_report(row, findings, least)
        document = full_report_document(full, least)
        document["set_aside"] = asdict(await store.set_aside.set_aside_about(row.id))
        if html is None:
            show(document, as_json=as_json, draw=draw_report)
        else:
            document |= {"output": str(html), "message": f"Report on {row.name} written to {html}"}
            _write_page(document, html)
            show(document, as_json=as_json, draw=draw_line)

    with_reads(settings, work)


def _write_page(document: "Document", path: Path) -> None:
    from app.bootstrap import now_ms
    from app.cli.report.html import report_page
    from app.files.atomic_file import atomic_file

    with atomic_file(path) as output:
        output.write(report_page(document, now_ms=now_ms()).encode())


def with_reads(settings: "Settings", work: "Callable[[Store], Awaitable[None]]") -> None:
    """As `with_store`, for work that only reads: on the replica, where there is one. Says on standard error
    how far that is behind, if it is a second or more."""
    from app.bootstrap import reads_settings

    async def said(store: "Store") -> None:
        behind_s = (await store.replica.replay()).behind_s
        if behind_s >= BEHIND_SHOWN_S:
            from app.cli.terminal import error_console

            error_console().print(f"Read from the replica, which is {behind_s:.0f} s behind.")
        await work(store)

    chosen = reads_settings(settings)
    with_store(chosen, work if chosen is settings else said)


def with_store(settings: "Settings", work: "Callable[[Store], Awaitable[None]]") -> None:
    """Run `work`, an async function, on the opened store. SIGTERM and SIGHUP interrupt it as Ctrl-C does."""
    import asyncio
    import gc

    from app.cli import GARBAGE_AFTER
    from app.cli.interruption import ended_in_order
    from app.cli.store_access import opened_store, trouble, unreachable

    async def opened() -> None:
        with ended_in_order():
            async with opened_store(settings) as store:
                # What was loaded stays; from here on garbage is looked for (app.cli.main puts it off).
                gc.freeze()
                gc.set_threshold(GARBAGE_AFTER)
                await work(store)

    try:
        asyncio.run(opened())
    except trouble() as error:
        raise unreachable(settings, error) from error


def exit_if_halted(run: "RunRow", progress: "RunProgress", *, code: int = FAILED) -> None:
    """Ends with `code` for a run that needs a person."""
    from app.views.runs import is_halted

    if is_halted(run, progress):
        raise typer.Exit(code)


WATCH_EXAMPLES = examples("tallyhook watch latest", "tallyhook watch monday --json")
BEHIND_SHOWN_S = 1.0
REPORT_EXAMPLES = examples(
    "tallyhook report monday",
    "tallyhook report monday --html monday.html",
    "tallyhook report 5d2f --json | jq .verdicts",
)
