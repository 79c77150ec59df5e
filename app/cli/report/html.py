"""The report on a run as one HTML page that needs nothing else: no script, no font, no image, no address.
Rendered from the report's document alone. All text in it is other people's, and the engine escapes it: only
charts (escaped by `svg.text`) and the style sheet may be marked as markup.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from decimal import Decimal
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.cli.report.style import STYLE
from app.cli.report.svg import CONTROLS, Chart, bars, figure, stacked_columns
from app.domain.task import TaskState
from app.domain.time_format import iso_utc
from app.domain.verdicts import QUIET_VERDICTS
from app.store.read.breakdown import BUCKETS_MS, PERCENTILES
from app.views.runs import Document

DAYS_FILLED_MAX = 366
"""A longer run is drawn without the days on which nothing was charged."""
QUIET, LOUD = 2, 1
"""Colours of verdicts that need no explaining, and that do."""
ENGINE_FIGURES = ("tasks", "completed", "failed", "open", "posted", "held")

Row = Sequence[Any]


@dataclass(frozen=True, slots=True)
class ChartSection:
    """A chart, the engines of its colours, and the table with the same figures."""

    svg: Markup
    legend: Sequence[str]
    caption: str
    header: Sequence[str]
    rows: Sequence[Row]


def report_page(document: Document, *, now_ms: int) -> str:
    """The page; `document` as of app.views.report.full_report_document."""
    engines = sorted({part["task_type"] for part in document["by_engine_country"]})
    template = _environment().get_template("report.html.j2")
    page: str = template.render(
        document,
        style=Markup(STYLE),  # noqa: S704 - our own
        now=iso_utc(now_ms),
        state=_state(document),
        engines=engines,
        engine_figures=ENGINE_FIGURES,
        state_rows=_state_rows(document),
        ledger_rows=_ledger_rows(document),
        seen_rows=_seen_rows(document),
        credits_chart=_credits_chart(document, engines),
        latency_chart=_latency_chart(document, engines),
        verdicts_chart=_verdicts_chart(document),
        engine_rows=_engine_rows(document, engines),
        country_rows=_country_rows(document, engines),
        finding_rows=_finding_rows(document),
    )
    return page


def _environment() -> Environment:
    """Escapes every value, replaces control characters, and fails on a name that the page does not have."""
    environment = Environment(
        loader=PackageLoader("app.cli.report"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_without_controls,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"figure": figure, "amount": _amount, "second": _second}
    return environment


def _without_controls(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Markup):
        return value.translate(CONTROLS)
    return value


def _state(document: Document) -> str:
    state: str = document["run"]["state"]
    return "finished" if state == "running" and document["finished"] else state


def _state_rows(document: Document) -> list[Row]:
    states = [(state.value, document[state.value]) for state in TaskState if document[state.value]]
    return [*states, ("all", document["tasks"])]


def _ledger_rows(document: Document) -> list[Row]:
    credits, exposure = document["credits"], document["exposure"]
    names = ("estimate", "held", "posted", "voided", "charged")
    at_stake = (
        ("held: in flight", exposure["in_flight"]),
        ("held: charge unknown, work closed", exposure["unknown"]),
    )
    return [
        *((name, _amount(credits[name])) for name in names),
        ("adjusted", _amount(document["adjusted"])),
        *(
            (f"{title} ({figure(part['attempts'])} attempts)", _amount(part["credits"]))
            for title, part in at_stake
        ),
    ]


def _seen_rows(document: Document) -> list[Row]:
    names = ("duplicates", "swept", "recovered_submits", "reused")
    return [(name.replace("_", " "), document[name]) for name in names]


def _credits_chart(document: Document, engines: Sequence[str]) -> ChartSection | None:
    by_day = {(part["day"], part["task_type"]): Decimal(part["posted"]) for part in document["by_day"]}
    if not by_day:
        return None
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
    rows = [(part["day"], part["task_type"], _amount(part["posted"])) for part in document["by_day"]]
    drawn = _markup(stacked_columns(chart, days, series))
    header = ("day", "engine", "credits")
    return ChartSection(drawn, engines, "Credits posted", header, [*rows, ("all", "", total)])


def _days(days: Sequence[str]) -> list[str]:
    first, last = date.fromisoformat(days[0]), date.fromisoformat(days[-1])
    span = (last - first).days + 1
    if span > DAYS_FILLED_MAX:
        return list(days)
    return [(first + timedelta(days=n)).isoformat() for n in range(span)]


def _latency_chart(document: Document, engines: Sequence[str]) -> ChartSection | None:
    counts = {
        (latency["task_type"], bucket["below_ms"]): bucket["tasks"]
        for latency in document["latency"]
        for bucket in latency["histogram"]
    }
    if not counts:
        return None
    buckets = _used_buckets({below_ms for _, below_ms in counts})
    labels = [_bucket_label(below_ms) for below_ms in buckets]
    series = {engine: [counts.get((engine, below_ms), 0) for below_ms in buckets] for engine in engines}
    chart = Chart(
        "latency",
        "From submission to settlement",
        f"Stacked columns: how many tasks took {labels[0]} to {labels[-1]}. "
        "The table has percentiles by engine.",
        "tasks",
    )
    names = [f"p{p}_ms" for p in PERCENTILES] + ["max_ms"]
    rows = [
        (latency["task_type"], latency["tasks"], *(_seconds(latency[name]) for name in names))
        for latency in document["latency"]
    ]
    header = ("engine", "tasks", *(f"p{p}" for p in PERCENTILES), "longest")
    return ChartSection(_markup(stacked_columns(chart, labels, series)), engines, "Percentiles", header, rows)


def _used_buckets(used: set[int | None]) -> list[int | None]:
    """From the first bucket with a task to the last; None: above the last boundary."""
    buckets = [*BUCKETS_MS, None]
    places = [place for place, below_ms in enumerate(buckets) if below_ms in used]
    return buckets[places[0] : places[-1] + 1]


def _verdicts_chart(document: Document) -> ChartSection | None:
    found = [(name, count) for name, count in document["verdicts"].items() if count]
    if not found:
        return None
    chart = Chart(
        "verdicts",
        "Verdicts",
        "Bars: how many tasks have each verdict, and how many findings stand beside them.",
        "tasks",
    )
    rows = [(name, count, QUIET if name in QUIET_VERDICTS else LOUD) for name, count in found]
    return ChartSection(_markup(bars(chart, rows)), (), "Verdicts", ("verdict", "tasks"), found)


def _engine_rows(document: Document, engines: Sequence[str]) -> list[Row]:
    parts = document["by_engine_country"]
    return [
        (
            engine,
            *(
                sum(Decimal(part[name]) for part in parts if part["task_type"] == engine)
                for name in ENGINE_FIGURES
            ),
        )
        for engine in engines
    ]


def _country_rows(document: Document, engines: Sequence[str]) -> list[Row]:
    """Credits posted, a row for each country and a column for each engine, with their sums."""
    posted = {
        (part["task_type"], part["country"] or "any"): Decimal(part["posted"])
        for part in document["by_engine_country"]
    }
    rows: list[Row] = []
    for country in sorted({country for _, country in posted}):
        amounts = [posted.get((engine, country)) for engine in engines]
        shown = ("" if amount is None else amount for amount in amounts)
        rows.append((country, *shown, sum(filter(None, amounts))))
    totals = [sum(posted.get((engine, row[0]), 0) for row in rows) for engine in engines]
    return [*rows, ("all", *totals, sum(totals))]


def _finding_rows(document: Document) -> list[Row]:
    return [
        (
            finding["verdict"],
            finding["task_id"],
            finding["attempt"],
            _amount(finding["expected"]),
            _amount(finding["actual"]),
            finding["detail"],
        )
        for finding in document["findings"]
    ]


def _markup(svg: str) -> Markup:
    return Markup(svg)  # noqa: S704 - escaped by svg.text


def _amount(credits: int | str | None) -> Decimal | None:
    return None if credits is None else Decimal(credits)


def _second(iso: str | None) -> str:
    return (iso or "")[:19].replace("T", " ")


def _seconds(ms: int) -> str:
    return f"{ms / 1000:,.1f} s"


def _bucket_label(below_ms: int | None) -> str:
    if below_ms is None:
        return f"over {_span(BUCKETS_MS[-1])}"
    return f"< {_span(below_ms)}"


def _span(ms: int) -> str:
    seconds = ms // 1000
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds % size == 0:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
