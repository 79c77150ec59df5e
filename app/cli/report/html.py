"""The report on a run as one HTML page that needs nothing else: no script, no font, no image, no address.
Drawn from the report's document alone; every text in it is other people's and goes through `text`.
"""

from collections.abc import Iterable, Sequence
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from app.cli.report.style import STYLE
from app.cli.report.svg import Chart, bars, figure, stacked_columns, text
from app.domain.task import TaskState
from app.domain.time_format import iso_utc
from app.domain.verdicts import QUIET_VERDICTS
from app.store.read.breakdown import BUCKETS_MS, PERCENTILES
from app.views.runs import Document

DAYS_FILLED_MAX = 366
"""A longer run is drawn without the days on which nothing was charged."""
QUIET, LOUD = 2, 1
"""Colours of verdicts that need no explaining, and that do."""
NO_SCRIPT = "default-src 'none'; style-src 'unsafe-inline'"


def report_page(document: Document, *, now_ms: int) -> str:
    """The page; `document` as of report_document.full_report_document."""
    name = text(document["run"]["name"])
    engines = sorted({one["task_type"] for one in document["by_engine_country"]})
    body = "".join(
        [
            _head(document, now_ms),
            _figures(document),
            _credits(document, engines),
            _latency(document, engines),
            _verdicts(document),
            _engine_countries(document, engines),
            _findings(document),
        ]
    )
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>Run {name}</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{text(NO_SCRIPT)}">'
        f"<style>{STYLE}</style></head><body><main>{body}</main></body></html>\n"
    )


def _head(document: Document, now_ms: int) -> str:
    run = document["run"]
    state = "finished" if run["state"] == "running" and document["finished"] else run["state"]
    facts = {
        "State": f"{state}: {run['reason']}" if run["reason"] else state,
        "Source": run["source"],
        "Account": run["account"],
        "Started": _moment(run["created_at"]),
        "Id": run["id"],
        "Budget": "none" if run["budget"] is None else f"{run['budget']} credits",
    }
    if run["bad_lines"]:
        facts["Bad lines"] = f"{run['bad_lines']} lines of the source could not be used"
    listed = "".join(f"<dt>{name}</dt><dd><bdi>{text(value)}</bdi></dd>" for name, value in facts.items())
    return (
        f"<h1>Run <bdi>{text(run['name'])}</bdi></h1><p>{text(_sentence(document))}</p><dl>{listed}</dl>"
        f"<p class=dim>As of {_moment(iso_utc(now_ms))}. Days and times are UTC, credits exact.</p>"
    )


def _sentence(document: Document) -> str:
    credits, unknown = document["credits"], document["exposure"]["unknown"]
    said = [
        f"{figure(document['tasks'])} tasks: {figure(document['completed'])} completed, "
        f"{figure(document['failed'])} failed, {figure(document['open'])} open.",
        f"{figure(Decimal(credits['posted']))} credits posted, {figure(Decimal(credits['held']))} held.",
    ]
    if unknown["attempts"]:
        said.append(f"What {figure(unknown['attempts'])} finished attempts cost is not known yet.")
    found = document["findings_count"]
    return " ".join([*said, f"{figure(found)} findings to explain." if found else "Nothing to explain."])


def _figures(document: Document) -> str:
    states = [(state.value, document[state.value]) for state in TaskState if document[state.value]]
    seen = [
        (name.replace("_", " "), document[name])
        for name in ("duplicates", "swept", "recovered_submits", "reused")
    ]
    credits = document["credits"]
    exposure = [
        (f"{title} ({figure(one['attempts'])} attempts)", _amount(one["credits"]))
        for title, one in (
            ("held: in flight", document["exposure"]["in_flight"]),
            ("held: charge unknown, work closed", document["exposure"]["unknown"]),
        )
    ]
    ledger = [(name, _amount(credits[name])) for name in ("estimate", "held", "posted", "voided", "charged")]
    ledger.append(("adjusted", _amount(document["adjusted"])))
    return (
        "<section><h2>Where it stands</h2><div class=row>"
        + _table("Tasks", ("state", "tasks"), [*states, ("all", document["tasks"])])
        + _table("Ledger", ("", "credits"), [*ledger, *exposure])
        + _table("Seen", ("", "tasks"), seen)
        + "</div></section>"
    )


def _credits(document: Document, engines: Sequence[str]) -> str:
    by_day = {(one["day"], one["task_type"]): Decimal(one["posted"]) for one in document["by_day"]}
    if not by_day:
        return _nothing("Credits by engine and day", "Nothing was charged yet.")
    days = _days(sorted({day for day, _ in by_day}))
    series = {engine: [by_day.get((day, engine), Decimal(0)) for day in days] for engine in engines}
    total = sum(by_day.values(), Decimal(0))
    chart = Chart(
        "credits",
        "Credits by engine and day",
        f"Stacked columns: {figure(total)} credits posted from {days[0]} to {days[-1]}. "
        "The table has each figure.",
        "credits",
    )
    rows = [(one["day"], one["task_type"], _amount(one["posted"])) for one in document["by_day"]]
    table = _table("Credits posted", ("day", "engine", "credits"), [*rows, ("all", "", total)])
    return _figure(chart, stacked_columns(chart, days, series), table, engines)


def _days(days: Sequence[str]) -> list[str]:
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    span = (last - first).days + 1
    if span > DAYS_FILLED_MAX:
        return list(days)
    return [(first + timedelta(days=n)).isoformat() for n in range(span)]


def _latency(document: Document, engines: Sequence[str]) -> str:
    counts = {
        (one["task_type"], part["below_ms"]): part["tasks"]
        for one in document["latency"]
        for part in one["histogram"]
    }
    if not counts:
        return _nothing("From submission to settlement", "Nothing is settled yet.")
    ends = [*BUCKETS_MS, None]
    used = [n for n, below in enumerate(ends) if any(engine_below[1] == below for engine_below in counts)]
    shown = ends[used[0] : used[-1] + 1]
    labels = [_class_name(below) for below in shown]
    series = {engine: [counts.get((engine, below), 0) for below in shown] for engine in engines}
    chart = Chart(
        "latency",
        "From submission to settlement",
        f"Stacked columns: how many tasks took {labels[0]} to {labels[-1]}. "
        "The table has percentiles by engine.",
        "tasks",
    )
    names = [f"p{p}_ms" for p in PERCENTILES] + ["max_ms"]
    rows = [
        (one["task_type"], one["tasks"], *(_seconds(one[name]) for name in names))
        for one in document["latency"]
    ]
    header = ("engine", "tasks", *(f"p{p}" for p in PERCENTILES), "longest")
    return _figure(
        chart, stacked_columns(chart, labels, series), _table("Percentiles", header, rows), engines
    )


def _verdicts(document: Document) -> str:
    found = [(name, count) for name, count in document["verdicts"].items() if count]
    if not found:
        return _nothing("Verdicts", "Nothing is reconciled yet.")
    chart = Chart(
        "verdicts",
        "Verdicts",
        "Bars: how many tasks have each verdict, and how many findings stand beside them.",
        "tasks",
    )
    rows = [(name, count, QUIET if name in QUIET_VERDICTS else LOUD) for name, count in found]
    return _figure(chart, bars(chart, rows), _table("Verdicts", ("verdict", "tasks"), found), ())


def _engine_countries(document: Document, engines: Sequence[str]) -> str:
    parts = document["by_engine_country"]
    if not parts:
        return _nothing("Credits by engine and country", "There is no task.")
    posted = {(one["task_type"], one["country"] or "any"): Decimal(one["posted"]) for one in parts}
    rows = []
    for country in sorted({country for _, country in posted}):
        row = [posted.get((engine, country)) for engine in engines]
        rows.append((country, *("" if value is None else value for value in row), sum(filter(None, row))))
    totals = [sum(posted.get((engine, row[0]), 0) for row in rows) for engine in engines]
    matrix = _table("Credits posted", ("country", *engines, "all"), [*rows, ("all", *totals, sum(totals))])
    counts = ("tasks", "completed", "failed", "open", "posted", "held")
    by_engine = [
        (engine, *(sum(Decimal(one[name]) for one in parts if one["task_type"] == engine) for name in counts))
        for engine in engines
    ]
    table = _table("Engines", ("engine", *counts), by_engine)
    return f"<section><h2>Credits by engine and country</h2><div class=row>{table}{matrix}</div></section>"


def _findings(document: Document) -> str:
    rows = [
        (
            one["verdict"],
            one["task_id"],
            one["attempt"],
            _amount(one["expected"]),
            _amount(one["actual"]),
            one["detail"],
        )
        for one in document["findings"]
    ]
    if not document["findings_count"]:
        return _nothing("Findings", "Every charge is explained.")
    count = document["findings_count"]
    said = f"The first {len(rows)} of {figure(count)}; --findings shows more." if len(rows) < count else ""
    header = ("verdict", "task", "attempt", "expected", "actual", "detail")
    return f"<section><h2>Findings</h2><p>{said}</p>{_table('What needs explaining', header, rows)}</section>"


def _figure(chart: Chart, drawn: str, table: str, engines: Iterable[str]) -> str:
    legend = "".join(f'<li><i class="s{n % 8}"></i>{text(engine)}</li>' for n, engine in enumerate(engines))
    return (
        f"<section><h2>{text(chart.title)}</h2><div class=row><figure>{drawn}"
        f"{f'<ul class=legend>{legend}</ul>' if legend else ''}</figure>{table}</div></section>"
    )


def _nothing(title: str, said: str) -> str:
    return f"<section><h2>{text(title)}</h2><p>{text(said)}</p></section>"


def _table(caption: str, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    head = "".join(f'<th scope="col">{text(name)}</th>' for name in header)
    body = "".join(
        f'<tr><th scope="row"><bdi>{text(row[0])}</bdi></th>{"".join(map(_cell, row[1:]))}</tr>'
        for row in rows
    )
    # Focusable, so that a table which is scrolled can be scrolled by keyboard.
    return (
        f'<div class=table role="region" tabindex="0" aria-label="{text(caption)}">'
        f"<table><caption>{text(caption)}</caption>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    if value is None:
        return "<td class=dim>unknown</td>"
    if isinstance(value, int | Decimal):
        return f"<td class=n>{figure(value)}</td>"
    return f"<td><bdi>{text(value)}</bdi></td>"


def _amount(credits: int | str | None) -> Decimal | None:
    return None if credits is None else Decimal(credits)


def _moment(at: str | None) -> str:
    return (at or "")[:19].replace("T", " ")


def _seconds(ms: int) -> str:
    return f"{ms / 1000:,.1f} s"


def _class_name(below_ms: int | None) -> str:
    if below_ms is None:
        return f"over {_span(BUCKETS_MS[-1])}"
    return f"< {_span(below_ms)}"


def _span(ms: int) -> str:
    seconds = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
