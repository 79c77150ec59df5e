"""What a run came to, drawn of its sample: what was bought, how fast, why not; each of how many it knows."""

from collections.abc import Sequence

from htpy import Element, Node, b, details, div, h3, p, span, summary

from app.charts.figures import duration, figure
from app.charts.figures import span as span_of
from app.charts.svg import Chart
from app.domain.task import OPEN_STATES, TaskState
from app.domain.time_format import DAY_MS, iso_utc
from app.page.parts.badge import badge
from app.page.parts.bar import bar
from app.page.parts.chart import columns_chart
from app.page.parts.notice import empty
from app.page.parts.table import Column, table
from app.page.parts.times import took
from app.page.parts.words import code_of, count, credits, each, nothing, of
from app.page.run.figures import PERCENTILES, Bought, bought_by, by_latency, over_time, percentile, reasons
from app.page.run.reading import RunView
from app.store.read.repeats import Repeated
from app.store.read.run_samples import RunSample


def _known(sample: RunSample, whole: int) -> Node:
    answered = sum(task.state == TaskState.COMPLETED for task in sample.tasks)
    said = of(answered, len(sample.tasks), "answered")
    if sample.is_whole:
        return said
    return [said, span(".dim")[f", in {figure(len(sample.tasks))} tasks evenly spread over {figure(whole)}"]]


def bought(view: RunView, usable_chars_min: int) -> Node:
    sample, whole = view.kept.sample, view.head.progress.tasks
    if not sample.tasks:
        return empty("There are no tasks yet.")
    parts = [
        (title, bought_by(sample.tasks, usable_chars_min, by_country=by_country))
        for title, by_country in (("By engine", False), ("By country", True))
    ]
    shown: list[Node] = [
        p[_known(sample, whole), f"; an answer of {usable_chars_min} characters or more counts as usable."]
    ]
    shown.append(_given_back(view))
    for title, found in parts:
        rows = list(found.items())
        if len(rows) <= ROWS_OPEN:
            shown.append(table(title, BOUGHT_COLUMNS, rows, empty=None, is_title_seen=True, is_compact=True))
        else:
            said = f"{title} ({len(rows)})"
            folded = table(title, BOUGHT_COLUMNS, rows, empty=None, is_compact=True)
            shown.append(details[summary[b[said]], folded])
    if sample.repeated:
        shown += [
            h3["Samples"],
            table("Records by samples answered", SAMPLE_COLUMNS, sample.repeated, empty=None),
        ]
    return shown


def _given_back(view: RunView) -> Node:
    if view.voided is not None:
        return p["Given back: ", credits(view.voided), " credits were held and voided."]
    if view.head.progress.open:
        return p(".dim")["What is given back (voided) is added up when the run has ended."]
    return p(".dim")["What was given back (voided) is being added up: look again in a moment."]


ROWS_OPEN = 12
"""A longer table is folded."""
Row = tuple[str, Bought]


def _cell_bar(row: Row) -> Node:
    b = row[1]
    words = (
        f"{figure(b.usable)} usable, {figure(b.answered - b.usable)} too short, {figure(b.failed)} without"
    )
    segments = [
        (2, b.usable, "usable"),
        (6, b.answered - b.usable, "too short"),
        (3, b.failed, "without an answer"),
    ]
    return div(".progress")[bar(segments, b.tasks, words)]


BOUGHT_COLUMNS: tuple[Column[Row], ...] = (
    Column("", lambda row: row[0] or "the provider chose"),
    Column("Ends", _cell_bar),
    Column("Answered", lambda row: of(row[1].answered, row[1].tasks, ""), is_figure=True),
    Column("Usable", lambda row: count(row[1].usable), is_figure=True),
    Column("Charged", lambda row: credits(row[1].charged), is_figure=True),
    Column("For each usable", lambda row: each(row[1].per_usable, "none is usable"), is_figure=True),
    Column("p50", lambda row: took(percentile(row[1].took_ms, 50)), is_figure=True),
    Column("p95", lambda row: took(percentile(row[1].took_ms, 95)), is_figure=True),
)
SAMPLE_COLUMNS: tuple[Column[Repeated], ...] = (
    Column("Samples", lambda row: f"{row.answered} of {row.repeats} answered"),
    Column("Records", lambda row: count(row.records), is_figure=True),
)


def speed(sample: RunSample) -> Node:
    found = over_time(sample.tasks)
    if found is None:
        return empty("No answer has come yet.")
    answered = sum(task.settled_at_ms is not None for task in sample.tasks)
    known = of(answered, len(sample.tasks), "settled")
    labels = [_label(ms, found.step_ms) for ms in found.starts_ms]
    when = Chart(
        "throughput", "Settled over time", f"A column for each {span_of(found.step_ms)}, UTC.", "tasks"
    )
    rows = [(labels[n], [values[n] for values in found.by_engine.values()]) for n in range(len(labels))]
    return [
        columns_chart(
            when, labels, found.by_engine, known=known, table=_series_table(list(found.by_engine), rows)
        ),
        _latency(sample, known),
    ]


def _label(at_ms: int, step_ms: int) -> str:
    """A time, as exact as the steps are."""
    iso = iso_utc(at_ms)
    if step_ms >= DAY_MS // 2:
        return iso[5:10]
    return iso[11:16] if step_ms >= 60_000 else iso[11:19]


def _latency(sample: RunSample, known: Node) -> Node:
    classes = by_latency(sample.tasks)
    if not classes:
        return None
    engines = sorted({engine for _, counts in classes for engine in counts})
    labels = [f"<{span_of(below)}" if below else "over" for below, _ in classes]
    series = {engine: [counts.get(engine, 0) for _, counts in classes] for engine in engines}
    chart = Chart("latency", "Time to answer", "From acceptance to settlement, tasks in each class.", "tasks")
    rows = [(label, [values[n] for values in series.values()]) for n, label in enumerate(labels)]
    waits = [ms for _, b in bought_by(sample.tasks, 0, by_country=False).items() for ms in b.took_ms]
    summed = ", ".join(f"p{p} {duration(percentile(waits, p))}" for p in PERCENTILES)
    return columns_chart(
        chart, labels, series, known=[known, f"; {summed}"], table=_series_table(engines, rows)
    )


def _series_table(names: Sequence[str], rows: Sequence[tuple[str, Sequence[int]]]) -> Element:
    columns: list[Column[tuple[str, Sequence[int]]]] = [Column("", lambda row: row[0])]
    for n, name in enumerate(names):
        columns.append(Column(name, lambda row, n=n: figure(row[1][n]), is_figure=True))  # type: ignore[misc]
    return table("Figures of the chart", columns, rows, empty=None)


def without_answer(view: RunView) -> Node:
    found = reasons(view.kept.sample.tasks)
    closed = {state: n for state, n in view.head.progress.states.items() if state not in OPEN_STATES}
    closed.pop(TaskState.COMPLETED, None)
    total = sum(closed.values())
    if not total:
        return empty("Every task that is done has an answer.")
    states = ", ".join(f"{figure(n)} {state}" for state, n in sorted(closed.items()) if n)
    shown = sum(n for _, _, n in found)
    return [
        p[f"{states}. ", of(shown, total, "with their reasons here")],
        table(
            "Tasks without an answer, by reason",
            REASON_COLUMNS,
            found,
            empty=empty("None of them is in the sample."),
        ),
    ]


REASON_COLUMNS: tuple[Column[tuple[str, str, int]], ...] = (
    Column("Reason", lambda row: code_of(row[1]) if row[1] else nothing("none was given")),
    Column("State", lambda row: badge(row[0])),
    Column("Tasks", lambda row: count(row[2]), is_figure=True),
)
