"""The tables of the page: rows made of the report's document, and what each column is. Pure; no markup."""

from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

from app.charts.figures import amount, duration, figure, share
from app.domain.task import TaskState
from app.views.report import per_usable
from app.views.runs import Document

Row = Sequence[Any]
Kind = Literal["word", "figure", "bar", "text"]
FOLDED_ROWS = 16
"""A longer table than this is folded up until the reader opens it: it would part what belongs together."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column, and how its values are set."""

    name: str
    kind: Kind = "word"
    title: str = ""
    """What it is, where its name is too short to say so."""


@dataclass(frozen=True, slots=True)
class Table:
    """A table as the page draws it."""

    id: str
    """Unique in its page."""
    caption: str
    columns: Sequence[Column]
    rows: Sequence[Row]
    last_is_total: bool = False
    is_wide: bool = False
    """It has more columns than a phone shows side by side, and is scrolled there."""
    look: Literal["plain", "bars", "stacked"] = "plain"
    """stacked: on a phone the cells of a row stand one under the other."""
    note: str = ""

    @property
    def is_folded(self) -> bool:
        """Whether it is closed at first."""
        return len(self.rows) > FOLDED_ROWS and self.look == "plain"


def states_table(document: Document) -> Table:
    """Tasks by state, with their share."""
    whole = document["tasks"]
    states = [(state.value, document[state.value]) for state in TaskState if document[state.value]]
    rows = [(name, count, share(count, whole)) for name, count in states]
    columns = (Column("state"), Column("tasks", "figure"), Column("share", "figure"))
    total = ("all", whole, share(whole, whole))
    return Table("states", "Tasks by state", columns, [*rows, total], last_is_total=True)


def samples_table(document: Document) -> Table:
    """Records that ask for several samples, by how many of these are answered."""
    parts = document["repeats"]
    whole = sum(part["records"] for part in parts)
    rows = [
        (
            f"{figure(part['answered'])} of {figure(part['repeats'])}",
            part["records"],
            share(part["records"], whole),
        )
        for part in parts
    ]
    columns = (Column("answered"), Column("records", "figure"), Column("share", "figure"))
    return Table("samples", "Records by samples answered", columns, rows)


def ledger_table(document: Document) -> Table:
    """What the ledger comes to, with what is at stake still."""
    credits, exposure = document["credits"], document["exposure"]
    names = {
        "estimate": "our estimate",
        "held": "held: reserved, not charged yet",
        "posted": "posted: charged",
        "voided": "voided: given back",
        "charged": "charged, by the tasks' rows",
    }
    at_stake = (
        ("of it in flight", exposure["in_flight"]),
        ("of it charge unknown, work closed", exposure["unknown"]),
    )
    rows = {name: (words, amount(credits[name])) for name, words in names.items()}
    stakes = [
        (f"{words} (attempts: {figure(part['attempts'])})", amount(part["credits"]))
        for words, part in at_stake
        if part["attempts"]
    ]
    posted = [rows[name] for name in ("posted", "voided", "charged")]
    rows_drawn = [
        rows["estimate"],
        rows["held"],
        *stakes,
        *posted,
        ("adjusted later", amount(document["adjusted"])),
    ]
    return Table("ledger", "Ledger", (Column("entry"), Column("credits", "figure")), rows_drawn)


def seen_table(document: Document) -> Table:
    """What else happened to deliveries and sends."""
    names = {
        "duplicates": "deliveries that came again",
        "swept": "answers fetched by poll: their webhook did not come",
        "recovered_submits": "sends whose answer was lost, found again",
        "reused": "tasks that an earlier answer served",
    }
    rows = [(words, document[name]) for name, words in names.items()]
    return Table("seen", "On the way", (Column("what"), Column("count", "figure")), rows)


def findings_table(document: Document) -> Table:
    """What needs explaining: which task, what was asked, what was due and what was charged."""
    rows = [
        (
            finding["verdict"],
            _task_of(finding),
            amount(finding["expected"]),
            amount(finding["actual"]),
            _difference(finding),
            finding["detail"],
        )
        for finding in document["findings"]
    ]
    shown, count = len(rows), document["findings_count"]
    note = f"The first {figure(shown)} of {figure(count)}; --findings shows more." if shown < count else ""
    columns = (
        Column("verdict"),
        Column("task", "text"),
        Column("expected", "figure"),
        Column("actual", "figure"),
        Column("difference", "figure"),
        Column("why", "text"),
    )
    return Table("findings", "What needs explaining", columns, rows, look="stacked", note=note)


@dataclass(frozen=True, slots=True)
class TaskWords:
    """A task as a person knows it: what was asked, of whom, on which line of the source."""

    prompt: str | None
    about: str
    id: str | None


def _task_of(finding: Document) -> TaskWords:
    line, attempt = finding.get("ordinal"), finding["attempt"]
    about = (
        "" if line is None else f"{'task' if finding.get('repeats') else 'record'} {figure(line)}",
        f"sample {finding['sample']} of {finding['repeats']}" if finding.get("repeats") else "",
        finding.get("custom_id") or "",
        finding.get("task_type") or "",
        finding.get("country") or "",
        f"attempt {attempt}" if attempt and attempt > 1 else "",
    )
    return TaskWords(finding.get("prompt"), " · ".join(filter(None, about)), finding["task_id"])


def _difference(finding: Document) -> Decimal | str:
    expected, actual = amount(finding["expected"]), amount(finding["actual"])
    if expected is None or actual is None:
        return ""
    return actual - expected


COUNTED = (
    "tasks",
    "completed",
    "usable",
    "short",
    "failed",
    "unanswered",
    "open",
    "posted",
    "held",
    "reported",
    "swept",
)


def engine_tables(document: Document, engines: Sequence[str]) -> list[Table]:
    """What the money bought, by engine, then by country too; and what was charged in each country."""
    parts = document["by_engine_country"]
    if not parts:
        return []
    times = {one["task_type"]: one for one in document["latency"]}
    by_engine = [
        _bought(engine, [part for part in parts if part["task_type"] == engine], times.get(engine))
        for engine in engines
    ]
    by_country = [_bought(f"{p['task_type']} · {p['country'] or 'any'}", [p], p) for p in parts]
    total = _bought("all", parts, None)
    return [
        Table("engines", "By engine", _BOUGHT, [*by_engine, total], last_is_total=True, is_wide=True),
        Table("engines-countries", "By engine and country", _BOUGHT, by_country, is_wide=True),
        _countries(parts, engines),
    ]


_BOUGHT = (
    Column("engine"),
    Column("usable", "figure", "answers that can be used"),
    Column("of closed", "figure", "usable answers, of the tasks that are not open"),
    Column("too short", "figure", "answered, but empty or too short to use"),
    Column("failed", "figure"),
    Column("no answer", "figure", "rejected, expired or cancelled"),
    Column("open", "figure"),
    Column("posted", "figure", "credits that were charged"),
    Column("held", "figure", "credits that are reserved"),
    Column("per usable", "figure", "credits for each usable answer"),
    Column("p50", "figure", "half of the tasks took no longer"),
    Column("p95", "figure", "95 of 100 tasks took no longer"),
    Column("polled", "figure", "reports that were polled for: their webhook did not come"),
)


def _bought(name: str, parts: Sequence[Document], times: Document | None) -> Row:
    sums = {column: sum((Decimal(part[column]) for part in parts), Decimal(0)) for column in COUNTED}
    each = per_usable(sums["posted"], int(sums["usable"]))
    return (
        name,
        sums["usable"],
        share(sums["usable"], sums["tasks"] - sums["open"]),
        *(sums[column] for column in ("short", "failed", "unanswered", "open", "posted", "held")),
        "" if each is None else Decimal(each),
        *("" if times is None else duration(times[column]) for column in ("p50_ms", "p95_ms")),
        share(sums["swept"], sums["reported"]),
    )


def _countries(parts: Sequence[Document], engines: Sequence[str]) -> Table:
    """Credits posted, a row for each country and a column for each engine, with their sums."""
    posted = {(part["task_type"], part["country"] or "any"): Decimal(part["posted"]) for part in parts}
    whole = sum(posted.values(), Decimal(0))
    rows: list[Row] = []
    for country in sorted({country for _, country in posted}):
        amounts = [posted.get((engine, country)) for engine in engines]
        total = sum(filter(None, amounts), Decimal(0))
        rows.append((country, *("" if one is None else one for one in amounts), total, share(total, whole)))
    totals = [
        sum((posted.get((engine, row[0]), Decimal(0)) for row in rows), Decimal(0)) for engine in engines
    ]
    columns = (
        Column("country"),
        *(Column(engine, "figure") for engine in engines),
        Column("all", "figure"),
        Column("share", "figure"),
    )
    rows.append(("all", *totals, whole, share(whole, whole)))
    return Table("countries", "Credits posted by country", columns, rows, last_is_total=True, is_wide=True)
