"""Commands that look at runs: watch, runs, status, report, export; and what all commands on runs share."""

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import LISTED_MAX, AsJson, RunArgument, examples, settings_for
from app.errors import FAILED

if TYPE_CHECKING:
    from collections import Counter

    from app.config import Settings
    from app.store import Store
    from app.store.read.progress import RunProgress
    from app.store.read.runs import RunRow
    from app.views.runs import Document

FINDINGS_SHOWN = 100
USABLE_MAX = 1_000_000
RUNS_SHOWN = 20
GARBAGE_AFTER = 20_000
"""Objects made and not freed; Python's own 700 is for programs that are small all their life."""
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

    with_store(settings, work)


def _write_page(document: "Document", path: Path) -> None:
    from app.bootstrap import now_ms
    from app.cli.atomic_file import atomic_file
    from app.cli.report.html import report_page

    with atomic_file(path) as output:
        output.write(report_page(document, now_ms=now_ms()).encode())


def export(
    run: Annotated[
        str | None,
        typer.Argument(
            metavar="RUN",
            help="Name or id of a run, the beginning or end of an id, or [b]latest[/b].",
            show_default="latest; all runs with --follow",
        ),
    ] = None,
    what: Annotated[
        str,
        typer.Option(metavar="results|ledger", help="Tasks with their answers, or entries of the ledger."),
    ] = "results",
    format_: Annotated[
        str | None,
        typer.Option(
            "--format",
            metavar="jsonl|csv|parquet",
            help="One JSON object a line, or a table.",
            show_default="by FILE's ending, else jsonl; parquet with --follow",
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option("--output", "-o", help="File to write; whole or not at all. Default: standard output."),
    ] = "-",
    follow: Annotated[
        str | None,
        typer.Option(
            metavar="DIR|URL",
            help="Keep adding results, as they are settled, to a folder or to s3://, gs:// or az://.",
        ),
    ] = None,
    every: Annotated[
        str | None, typer.Option(metavar="TIME", help="With --follow: how often to look.", show_default="1m")
    ] = None,
    once: Annotated[bool, typer.Option("--once", help="With --follow: add what is there, and end.")] = False,
    account: Annotated[
        list[str] | None, typer.Option(help="With --follow: results of this account only; may be repeated.")
    ] = None,
    excel: Annotated[
        bool,
        typer.Option("--excel", help="CSV as Excel opens it; says how many cells are longer than it takes."),
    ] = False,
    remaining: Annotated[
        bool,
        typer.Option("--remaining", help="Tasks without an answer instead, as an input file for submit."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write every task of RUN with its answer, in the order of its source, or every entry of its ledger.

    Columns of your own come back: in JSONL as the object metadata, in CSV and Parquet as columns, where one
    that is called as one of ours has metadata. before its name.

    Memory stays flat however long the run is. Credits are exact. In CSV a text that a spreadsheet would take
    for a formula gets an apostrophe before it, and the column response holds the whole answer as JSON.
    Parquet has types for everything and needs pip install 'tallyhook\\[parquet]'.

    Where bodies were pruned, response is null and response_note says when; the command then ends with 1 and
    says how many there are.

    With --remaining the tasks that have no answer are written as they were read, as an input file that
    submit takes: JSONL, or CSV where FILE ends in .csv.

    With --follow results are added to Parquet files by day and engine, in the order in which they were
    settled and each exactly once, until Ctrl-C or SIGTERM: for DuckDB, pandas or a warehouse, which may read
    all the while. Started again it goes on where it was. See docs/warehouse.md.
    """
    if follow is not None:
        from app.cli.follow.command import follow_results

        plain = {
            "--what": what == "results",
            "--output": output == "-",
            "--remaining": not remaining,
            "--excel": not excel,
        }
        _refuse_with_follow(plain, format_)
        follow_results(
            follow, run=run, every=every or "1m", once=once, accounts=account or [], as_json=as_json
        )
        return
    for option, is_given in (("--every", every), ("--once", once), ("--account", account)):
        if is_given:
            raise typer.BadParameter("it goes with --follow only", param_hint=option)
    if excel and (format_ not in (None, "csv") or remaining):
        raise typer.BadParameter("it makes CSV, and no other format", param_hint="--excel")
    if remaining and what != "results":
        raise typer.BadParameter("--remaining writes tasks, not the ledger", param_hint="--what")
    if remaining:
        _export_remaining(run or "latest", format_, output, as_json=as_json)
        return
    chosen = format_ or ("csv" if excel else _format_by_ending(output))
    _refuse_workbook(output)
    _export_run(run or "latest", what, chosen, output, excel=excel, as_json=as_json)


def _format_by_ending(output: str) -> str:
    """As whoever opens the file will read it; JSON Lines where its name does not say."""
    ending = output.lower().rpartition(".")[2]
    return ending if ending in ("csv", "parquet") else "jsonl"


def _refuse_workbook(output: str) -> None:
    """Excel opens no text that is called so. Raises BadParameter."""
    if output.lower().endswith((".xlsx", ".xls", ".xlsm", ".xlsb")):
        message = f"{output} would be no workbook: let it end in .csv, with --excel as Excel opens it"
        raise typer.BadParameter(message, param_hint="--output")


def _refuse_with_follow(is_default: dict[str, bool], format_: str | None) -> None:
    for option, is_fine in (is_default | {"--format": format_ in (None, "parquet")}).items():
        if not is_fine:
            raise typer.BadParameter("--follow writes Parquet files of results only", param_hint=option)


def _export_remaining(run: str, format_: str | None, output: str, *, as_json: bool) -> None:
    from app.cli.runs.choose import choose_run
    from app.cli.runs.export import Format
    from app.cli.runs.remaining import export_remaining, remaining_format

    if format_ is not None and format_ not in tuple(Format):
        raise typer.BadParameter(f"{format_!r} is not one of: {', '.join(Format)}", param_hint="--format")
    chosen = remaining_format(format_, output)

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        await export_remaining(store, row, chosen, output, as_json=as_json)

    with_store(settings_for(log_level="warning"), work)


def _export_run(run: str, what: str, format_: str, output: str, *, excel: bool, as_json: bool) -> None:
    from collections import Counter

    from app.cli.runs.choose import choose_run
    from app.cli.runs.export import Format, refuse_without_pyarrow, rows_of, sink_for, write_file, write_rows
    from app.cli.runs.missing import MissingAnswers
    from app.cli.terminal import draw_line, show, stdout_bytes
    from app.views.export_rows import ExportContent
    from app.views.runs import run_document

    for value, option, allowed in ((format_, "--format", Format), (what, "--what", ExportContent)):
        if value not in tuple(allowed):
            raise typer.BadParameter(f"{value!r} is not one of: {', '.join(allowed)}", param_hint=option)
    if output == "-" and format_ == Format.PARQUET:
        raise typer.BadParameter("Parquet is no text: give --output FILE", param_hint="--output")
    if output == "-" and as_json and format_ != Format.JSONL:
        raise typer.BadParameter("give --output with --json, or leave one of the two", param_hint="--json")
    if format_ == Format.PARQUET:
        refuse_without_pyarrow()

    long_cells = Counter[str]() if excel else None

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        missing = MissingAnswers()
        source = missing.noted(rows_of(store, ExportContent(what), row.id))
        own = await store.exports.own_column_names(row.id) if format_ != Format.JSONL else []
        if output == "-":
            sink = sink_for(ExportContent(what), Format(format_), stdout_bytes(format_), own, long_cells)
            await write_rows(source, sink)
            _warn_of_long_cells(long_cells)
            missing.exit_if_any()
            return
        rows = await write_file(source, ExportContent(what), Format(format_), Path(output), own, long_cells)
        _warn_of_long_cells(long_cells)
        written = "tasks" if what == ExportContent.RESULTS else "ledger entries"
        message = f"{rows} {written} of {row.name} written to {output}"
        document = {"run": run_document(row), "rows": rows, "output": output, "message": message}
        show(document | {"answers_missing": missing.count}, as_json=as_json, draw=draw_line)
        missing.exit_if_any()

    with_store(settings_for(log_level="warning"), work)


def _warn_of_long_cells(counts: "Counter[str] | None") -> None:
    from app.cli.runs.export import EXCEL_CHARS_MAX
    from app.cli.terminal import error_console

    if counts:
        columns = ", ".join(f"{count:,} of {name}" for name, count in counts.most_common())
        error_console().print(
            f"{counts.total():,} cells are longer than the {EXCEL_CHARS_MAX:,} characters that Excel takes, "
            f"and it will cut them: {columns}; the file has them whole",
            markup=False,
        )


def with_store(settings: "Settings", work: "Callable[[Store], Awaitable[None]]") -> None:
    """Run `work`, an async function, on the opened store. SIGTERM and SIGHUP interrupt it as Ctrl-C does."""
    import asyncio
    import gc

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
    from app.cli.runs.watch import is_halted

    if is_halted(run, progress):
        raise typer.Exit(code)


WATCH_EXAMPLES = examples("tallyhook watch latest", "tallyhook watch monday --json")
REPORT_EXAMPLES = examples(
    "tallyhook report monday",
    "tallyhook report monday --html monday.html",
    "tallyhook report 5d2f --json | jq .verdicts",
)
EXPORT_EXAMPLES = examples(
    "tallyhook export latest --format csv --output answers.csv",
    "tallyhook export monday | jq -r .response.text",
    "tallyhook export monday --what ledger --format parquet -o ledger.parquet",
    "tallyhook export monday --remaining -o rest.jsonl && tallyhook submit rest.jsonl",
    "tallyhook export --follow s3://bucket/results --every 5m",
)
