"""The command export: the answers of a run, the entries of its ledger, or the rest of it, written out."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, examples, settings_for
from app.cli.runs.commands import with_reads
from app.domain.text import agreeing, counted

if TYPE_CHECKING:
    from collections import Counter

    from app.store import Store

Run = Annotated[
    str | None,
    typer.Argument(
        metavar="RUN",
        help="Name or id of a run, the beginning or end of an id, or [b]latest[/b].",
        show_default="latest; all runs with --follow",
    ),
]
What = Annotated[
    str, typer.Option(metavar="results|ledger", help="Tasks with their answers, or entries of the ledger.")
]
FormatName = Annotated[
    str | None,
    typer.Option(
        "--format",
        metavar="jsonl|csv|parquet",
        help="One JSON object a line, or a table.",
        show_default="by FILE's ending, else jsonl; parquet with --follow",
    ),
]
Output = Annotated[
    str, typer.Option("--output", "-o", help="File to write; whole or not at all. Default: standard output.")
]
Follow = Annotated[
    str | None,
    typer.Option(
        metavar="DIR|URL",
        help="Keep adding results, as they are settled, to a folder or to s3://, gs:// or az://.",
    ),
]
Every = Annotated[
    str | None, typer.Option(metavar="TIME", help="With --follow: how often to look.", show_default="1m")
]
Once = Annotated[bool, typer.Option("--once", help="With --follow: add what is there, and end.")]
OfAccounts = Annotated[
    list[str] | None, typer.Option(help="With --follow: results of this account only; may be repeated.")
]
Excel = Annotated[
    bool, typer.Option("--excel", help="CSV as Excel opens it; says how many cells are longer than it takes.")
]
Remaining = Annotated[
    bool, typer.Option("--remaining", help="Tasks without an answer instead, as an input file for submit.")
]


def export(
    run: Run = None,
    what: What = "results",
    format_: FormatName = None,
    output: Output = "-",
    follow: Follow = None,
    every: Every = None,
    once: Once = False,
    account: OfAccounts = None,
    excel: Excel = False,
    remaining: Remaining = False,
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
        plain = {
            "--what": what == "results",
            "--output": output == "-",
            "--remaining": not remaining,
            "--excel": not excel,
        }
        _refuse_with_follow(plain, format_)
        from app.cli.follow.command import follow_results

        follow_results(
            follow, run=run, every=every or "1m", once=once, accounts=account or [], as_json=as_json
        )
        return
    _refuse_without_follow({"--every": every, "--once": once, "--account": account})
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


def _refuse_without_follow(given: dict[str, object]) -> None:
    for option, value in given.items():
        if value:
            raise typer.BadParameter("it goes with --follow only", param_hint=option)


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
    from app.cli.runs.remaining import export_remaining, remaining_format
    from app.files.export import Format

    if format_ is not None and format_ not in tuple(Format):
        raise typer.BadParameter(f"{format_!r} is not one of: {', '.join(Format)}", param_hint="--format")
    chosen = remaining_format(format_, output)

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        await export_remaining(store, row, chosen, output, as_json=as_json)

    with_reads(settings_for(log_level="warning"), work)


def _export_run(run: str, what: str, format_: str, output: str, *, excel: bool, as_json: bool) -> None:
    from collections import Counter

    from app.cli.runs.choose import choose_run
    from app.cli.runs.missing import MissingAnswers
    from app.cli.terminal import draw_line, show, stdout_bytes
    from app.files.export import Format, refuse_without_pyarrow, rows_of, sink_for, write_file, write_rows
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
        written = ("task", "tasks") if what == ExportContent.RESULTS else ("ledger entry", "ledger entries")
        message = f"{counted(rows, *written)} of {row.name} written to {output}"
        document = {"run": run_document(row), "rows": rows, "output": output, "message": message}
        show(document | {"answers_missing": missing.count}, as_json=as_json, draw=draw_line)
        missing.exit_if_any()

    with_reads(settings_for(log_level="warning"), work)


def _warn_of_long_cells(counts: "Counter[str] | None") -> None:
    from app.cli.terminal import error_console
    from app.files.export import EXCEL_CHARS_MAX

    if counts:
        columns = ", ".join(f"{count:,} of {name}" for name, count in counts.most_common())
        error_console().print(
            f"{counted(counts.total(), 'cell')} {agreeing(counts.total())} "
            f"longer than the {EXCEL_CHARS_MAX:,} "
            f"characters that Excel takes, and will be cut by it: {columns}; the file has all of it",
            markup=False,
        )


EXPORT_EXAMPLES = examples(
    "tallyhook export latest --format csv --output answers.csv",
    "tallyhook export monday | jq -r .response.text",
    "tallyhook export monday --what ledger --format parquet -o ledger.parquet",
    "tallyhook export monday --remaining -o rest.jsonl && tallyhook submit rest.jsonl",
    "tallyhook export --follow s3://bucket/results --every 5m",
)
