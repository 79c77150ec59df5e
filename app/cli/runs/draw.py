"""Draws the documents about runs on a terminal. Everything a person sees and no program reads."""

import json
from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import TYPE_CHECKING

from rich.console import Console
from rich.markup import escape
from rich.text import Text

from app.charts.figures import duration, share
from app.cli.runs.choose import SHORT_ID_CHARS
from app.cli.terminal import STATE_STYLES, draw_largest, figure, pairs, second, table
from app.domain.credits import to_json_number
from app.domain.text import agreeing, counted, sanitize

if TYPE_CHECKING:
    from app.views.runs import Document


GAP_CHARS = 2
"""Between two columns."""
NAME_CHARS_MIN = 20
"""Of a run, before a column makes room for them; a name by the file and the time has some 24."""
DISPENSABLE = ("account", "completed", "created", "failed", "charged", "open")
"""Columns of the runs, the first to go first."""


SAMPLES_SHOWN = 8


def draw_runs(output: Console, document: "Document") -> None:
    """One line for each run."""
    if not document["runs"]:
        output.print("No run yet. tallyhook submit FILE makes one.")
        return
    width = output.width if output.is_terminal else None
    lines = [_cells(status) for status in document["runs"]]
    columns = _fitted({name: [line[name] for line in lines] for name in lines[0]}, width)
    rows = table(*columns)
    for cells in zip(*columns.values(), strict=True):
        rows.add_row(*cells)
    output.print(rows)
    for status in document["runs"]:
        if status["run"]["state"] == "loading":
            output.print(escape(_unread(status["run"])))


def _cells(status: "Document") -> dict[str, str]:
    run, states = status["run"], status["states"]
    return {
        "id": run["id"][-SHORT_ID_CHARS:],
        "name": escape(run["name"]),
        "account": run["account"],
        "state": _state(status),
        "tasks": str(status["tasks"]),
        "open": str(status["open"]),
        "completed": str(states["completed"]),
        "failed": str(states["failed"]),
        "charged": str(status["credits"]["charged"]),
        "created": second(run["created_at"]),
    }


def _fitted(columns: dict[str, list[str]], width: int | None) -> dict[str, list[Text]]:
    """Without those that a terminal of `width` has no room for, so that what stays can be read; the names,
    shortened where even so they are too long."""
    texts = {
        name: [Text.from_markup(sanitize(cell), emoji=False) for cell in cells]
        for name, cells in columns.items()
    }
    if width is None:
        return texts
    wide = {name: max(len(name), *(cell.cell_len for cell in cells)) for name, cells in texts.items()}
    name_least = min(wide["name"], NAME_CHARS_MIN)
    room = width - sum(wide.values()) + wide["name"] - GAP_CHARS * (len(wide) - 1)
    for dropped in DISPENSABLE:
        if room < name_least:
            del texts[dropped]
            room += wide[dropped] + GAP_CHARS
    for text in texts["name"]:
        text.truncate(max(room, len("name")), overflow="ellipsis")
    return texts


def _unread(run: "Document") -> str:
    short = run["id"][-SHORT_ID_CHARS:]
    return (
        f"{run['name']} is still being read, or was interrupted: submit FILE --resume {short} goes on, "
        f"cancel {short} gives it up."
    )


def draw_status(output: Console, document: "Document") -> None:
    """One run in a few lines."""
    _draw_run_head(output, document)
    counts = {state: count for state, count in document["states"].items() if count}
    output.print(f"  tasks    {document['tasks']}: {pairs(counts)}")
    output.print(f"  credits  {pairs(document['credits'])}")
    for line in document.get("waits", ()):
        output.print(f"  waits    {escape(line)}")
    worker = document.get("worker")
    if worker and (worker["running"] or document["finished"]):  # else it is waited for
        output.print(f"  worker   {worker['message']}")


def draw_report(output: Console, document: "Document") -> None:
    """The books of one run."""
    _draw_run_head(output, document)
    states = ("completed", "failed", "rejected", "expired", "cancelled", "open")
    found = ("duplicates", "swept", "recovered_submits", "reused", "money_open")
    output.print(f"  tasks    {document['tasks']}: {pairs({name: document[name] for name in states})}")
    if document["repeats"]:
        output.print(f"  samples  {_samples(document['repeats'])}")
    output.print(f"  seen     {pairs({name: document[name] for name in found})}")
    output.print(f"  credits  {pairs(document['credits'])}")
    output.print(f"  verdicts {pairs({k: v for k, v in document['verdicts'].items() if v}) or 'none yet'}")
    for name, part in document["exposure"].items():
        if part["attempts"]:
            words = "in flight" if name == "in_flight" else "[yellow]charge unknown, work closed[/yellow]"
            output.print(
                f"  held     {counted(part['credits'], 'credit')} "
                f"of {counted(part['attempts'], 'attempt')} {words}"
            )
    aside = document["set_aside"]
    if aside["named"] or aside["unnamed"]:
        output.print(
            f"  inbox    [red]{counted(aside['named'], 'delivery', 'deliveries')} about it set aside[/red], ",
            end="",
        )
        output.print(f"{aside['unnamed']} more whose task cannot be made out: tallyhook inbox list")
    if gone := document["pruned"]:
        counts = ", ".join(
            f"{gone[name]:,} {name}" for name in ("answers", "sends", "findings") if gone[name]
        )
        output.print(f"  pruned   {counts}, since {gone['first_at'][:10]}; hashes and counts stay")
    if document["adjusted"]:
        output.print(f"  adjusted {counted(document['adjusted'], 'credit')} by later corrections")
    _draw_engines(output, document)
    if document["findings"]:
        rows = table("verdict", "task", "expected", "actual", "detail")
        for finding in document["findings"]:
            rows.add_row(
                finding["verdict"],
                escape(_asked(finding)),
                figure(finding["expected"]),
                figure(finding["actual"]),
                escape(finding["detail"]),
            )
        output.print(rows)


def _samples(repeats: Sequence["Document"]) -> str:
    """How many of the samples of a record are answered, and of how many records."""
    parts = [f"{part['answered']} of {part['repeats']} answered: {_records(part)}" for part in repeats]
    others = len(parts) - SAMPLES_SHOWN
    return "; ".join(parts[:SAMPLES_SHOWN]) + (f"; and {others} more, in --json" if others > 0 else "")


def _records(part: "Document") -> str:
    return counted(part["records"], "record")


def _asked(finding: "Document") -> str:
    """Which task a finding is about, as a person knows it: what was asked, of whom, where it stands."""
    sample = f"sample {finding['sample']} of {finding['repeats']}" if finding["repeats"] else None
    place = f"task {finding['ordinal']}" if sample else f"record {finding['ordinal']}"
    about = (finding["task_type"], finding["country"], place, sample, finding["custom_id"])
    known = finding["ordinal"] is not None
    lines = (finding["prompt"], " ".join(filter(None, about)) if known else None, finding["task_id"])
    return "\n".join(filter(None, lines))


def _draw_engines(output: Console, document: "Document") -> None:
    names = ("tasks", "completed", "failed", "open", "posted", "held")
    latency = {part["task_type"]: part for part in document["latency"]}
    rows = table("engine", "countries", *names, "longest")
    parts = document["by_engine_country"]
    for engine in sorted({part["task_type"] for part in parts}):
        countries = [part for part in parts if part["task_type"] == engine]
        sums = (
            to_json_number(sum((Decimal(part[name]) for part in countries), Decimal(0))) for name in names
        )
        longest = f"{latency[engine]['max_ms'] / 1000:.1f} s" if engine in latency else ""
        rows.add_row(engine, str(len(countries)), *map(str, sums), longest)
    if parts:
        output.print(rows)
        _draw_bought(output, document)


def _draw_bought(output: Console, document: "Document") -> None:
    """What the money bought."""
    rows = table("engine", "country", "usable", "short", "each", "p50", "p95", "polled")
    least = document["usable_chars_min"]
    output.print("What the money bought. usable: of the tasks that are over; short: answered with")
    output.print(f"fewer than {least} characters; each: credits for a usable answer; polled: reports")
    output.print("whose webhook did not come.")
    draw_largest(output, rows, document["by_engine_country"], _bought)


def _bought(part: "Document") -> list[str]:
    each = part["posted_per_usable"]
    return [
        part["task_type"],
        part["country"] or "any",
        share(part["usable"], part["tasks"] - part["open"]),
        str(part["short"]),
        "" if each is None else str(to_json_number(round(Decimal(str(each)), 2))),
        duration(part["p50_ms"]),
        duration(part["p95_ms"]),
        share(part["swept"], part["reported"]),
    ]


def draw_submitted(output: Console, document: "Document") -> None:
    """What was stored, which lines were not, and what to do next."""
    draw_bad_lines(output, document["bad_lines"], document["bad_lines_unnamed"])
    output.print(
        f"[green]Run {document['run']['id']}[/green] ({escape(document['run']['name'])}): "
        f"{counted(document['tasks'], 'task')}, "
        f"{counted(document['credits']['estimate'], 'credit')} by our estimate."
    )
    for line in document["next"]:
        output.print(f"  {escape(line)}")
    if document["webhook"] is not None:
        draw_webhook(output, document["webhook"])


def draw_webhook(output: Console, webhook: "Document") -> None:
    """Where results go, and the secret of a new URL on a line that can be copied."""
    output.print(f"Results are posted to {escape(webhook['url'])}; tallyhook relay list says how that goes.")
    if webhook["secret"] is not None:
        output.print("  signed with a secret that is shown this once, for the receiver:")
        output.print(f"  [bold]{webhook['secret']}[/bold]", soft_wrap=True, highlight=False)
    else:
        whose = "you gave" if webhook["secret_given"] else "this URL had before"
        output.print(f"  signed with the secret that {whose}")


def draw_asked(output: Console, document: "Document") -> None:
    """The answer, and under it what it cost."""
    answer, credits = document["answer"], document["credits"]
    if answer is not None:
        text = answer.get("text") if isinstance(answer, dict) else None
        output.print(escape(text if isinstance(text, str) else json.dumps(answer, ensure_ascii=False)))
    else:
        error = document["error"] or {}
        output.print(f"[red]No answer:[/red] {escape(str(error.get('message') or error.get('code')))}")
    charge = "charge unknown, up to" if credits["unknown"] else "charged"
    figure = credits["estimate"] if credits["unknown"] else credits["charged"]
    output.print(
        f"[dim]{charge} {counted(figure, 'credit')}; run {document['run']['id'][-SHORT_ID_CHARS:]}[/dim]"
    )


def draw_bad_lines(output: Console, remarks: Iterable["Document"], unnamed: int) -> None:
    """What is wrong with lines of the input, each thing once, with the remedy."""
    for remark in remarks:
        where, _, problem = remark["message"].partition(": ")
        output.print(f"[yellow]{escape(where)}:[/yellow] {escape(problem)}")
    if unnamed:
        output.print(f"… and {unnamed:,} more remarks of other kinds")


def _draw_run_head(output: Console, document: "Document") -> None:
    run = document["run"]
    output.print(f"Run {run['id']} ({escape(run['name'])}) from {escape(run['source'])}: {_state(document)}")
    if run["account"] != "default":
        output.print(f"  paid by account {escape(run['account'])}")
    if run["reason"]:
        output.print(f"  [yellow]{escape(run['reason'])}[/yellow]")
    if run["retained_at"]:
        output.print(f"  retained since {second(run['retained_at'])}: nothing of it is pruned")
    if run["bad_lines"]:
        output.print(
            f"  {counted(run['bad_lines'], 'line')} of its source "
            f"{agreeing(run['bad_lines'], 'was', 'were')} bad"
        )


def _state(document: "Document") -> str:
    state = document["run"]["state"]
    style = STATE_STYLES.get(state, "default")
    return f"[{style}]{state}[/{style}]"
