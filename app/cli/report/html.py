"""The report on a run as one HTML page that needs nothing else: no script, no font, no image, no address.
Rendered from the report's document alone. All text in it is other people's, and the engine escapes it: only
charts (escaped by `svg.text`) and the style sheet may be marked as markup.
"""

from decimal import Decimal

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from app.charts.figures import NO_BREAK, amount, figure, second, share
from app.charts.svg import CONTROLS, SERIES_CLASSES
from app.cli.report import charts, tables
from app.domain.time_format import iso_utc
from app.views.runs import Document


def report_page(document: Document, *, now_ms: int) -> str:
    """The page; `document` as of app.views.report.full_report_document."""
    engines = sorted({part["task_type"] for part in document["by_engine_country"]})
    bar, bar_legend = charts.progress_bar(document)
    page: str = (
        _environment()
        .get_template("report.html.j2")
        .render(
            document,
            now=iso_utc(now_ms),
            state=_state(document),
            progress_bar=bar,
            progress_legend=bar_legend,
            engine_colours=charts.legend(engines),
            states=tables.states_table(document),
            samples=tables.samples_table(document),
            ledger=tables.ledger_table(document),
            seen=tables.seen_table(document),
            by_engine=charts.credits_by_engine(document, engines),
            by_day=charts.credits_by_day(document, engines),
            latency_bars=charts.latency_bars(document, engines),
            percentiles=charts.latency_table(document),
            verdict_tables=charts.verdict_tables(document),
            engine_tables=tables.engine_tables(document, engines),
            finding_table=tables.findings_table(document),
        )
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
    environment.filters |= {"figure": figure, "amount": amount, "second": second}
    environment.globals |= {"share": share, "colours": SERIES_CLASSES, "no_break": NO_BREAK}
    environment.tests |= {"markup": lambda value: isinstance(value, Markup), "credits": _is_figure}
    return environment


def _is_figure(value: object) -> bool:
    return isinstance(value, int | Decimal)


def _without_controls(value: object) -> object:
    if isinstance(value, str) and not isinstance(value, Markup):
        return value.translate(CONTROLS)
    return value


def _state(document: Document) -> str:
    state: str = document["run"]["state"]
    return "finished" if state == "running" and document["finished"] else state
