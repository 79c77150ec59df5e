"""The overview, drawn."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal

from htpy import Element, Node, a, div, h2, li, p, section, span, ul

from app.api.native.books import finding_model
from app.api.native.forecast_model import AccountForecast, Range, Span
from app.api.native.runs import Run
from app.charts.figures import figure, share
from app.domain.task import OPEN_STATES
from app.domain.text import counted
from app.page.findings.markup import finding_table
from app.page.live import Seen
from app.page.overview.reading import Ahead, RunLine, lines_of
from app.page.parts.badge import badge
from app.page.parts.bar import bar
from app.page.parts.download import all_of_it
from app.page.parts.facts import Fact, cards
from app.page.parts.notice import notice
from app.page.parts.table import Column, table
from app.page.parts.times import at, took, written
from app.page.parts.words import clipped, count, credits, nothing, others

DONE, WRONG, GOING = 2, 3, 0
"""Colours of a chart."""
NOW, HEALTH, RUNS, FINDINGS = "now", "health-rows", "run-rows", "finding-rows"
"""Where what moves stands."""
LATE_MS = 120_000
"""A delivery that waits for longer is late: the sweep settles it within seconds."""


def moving(seen: Seen, account: str | None, limits: Mapping[str, float], none: Node) -> dict[str, Node]:
    """Id of an element -> what stands in it now."""
    return {
        NOW: now_cards(seen, account, limits),
        HEALTH: health_table(seen),
        RUNS: run_table(lines_of(seen, account), none),
        FINDINGS: newest_findings(seen, account),
    }


def newest_findings(seen: Seen, account: str | None) -> Node:
    """How many of each kind the newest runs have, and the last ones found."""
    kinds = Counter[str]()
    for line in lines_of(seen, account):
        kinds.update(line.to_explain)
    shown = [span(".pair")[badge(name), " ", figure(n)] for name, n in sorted(kinds.items())]
    return [
        div(".verdicts")[shown, span(".dim")["in the runs above"]] if shown else None,
        finding_table([finding_model(row) for row in seen.of_all.findings.get(account, ())]),
    ]


def now_cards(seen: Seen, account: str | None, limits: Mapping[str, float]) -> Element:
    """What happens now, of the accounts that the caller sees."""
    state, rates = seen.of_all.state, seen.of_all.rates
    names = [name for name in limits if account in (None, name)]
    rate = sum(rates.get(name, 0.0) for name in names) if rates else None
    limit = sum(limits[name] for name in names)
    out = sum(n for (name, word), n in state.tasks.items() if name in names and word in _OUT)
    queued = sum(n for (name, word), n in state.tasks.items() if name in names and word == "pending")
    going = sum(n for (name, word), n in state.runs.items() if name in names and word == "running")
    held = sum((state.held.get(name, Decimal(0)) for name in names), Decimal(0))
    shown = nothing("measured while this page is open") if rate is None else f"{rate:.1f}"
    return cards(
        [
            Fact("Sending", shown, f"tasks a second, of {limit:g} allowed"),
            Fact("With the provider", count(out), "tasks, sent and not reported"),
            Fact("To be sent", count(queued), f"tasks, {counted(going, 'run')} running"),
            Fact("Held", credits(held), "credits, for what is under way"),
        ]
    )


_OUT = tuple(state.value for state in OPEN_STATES if state.value != "pending")
Row = tuple[str, str, Node]


def health_table(seen: Seen) -> Element:
    """Who runs, judged by what moves."""
    return table("Health", HEALTH_COLUMNS, list(_health(seen)), empty=None)


_TONES = {"well": "done", "late": "doubt", "away": "wrong"}
HEALTH_COLUMNS: tuple[Column[Row], ...] = (
    Column("Part", lambda row: row[0]),
    Column("State", lambda row: badge(row[1], tone=_TONES[row[1]])),
    Column("What shows it", lambda row: row[2]),
)


def _health(seen: Seen) -> Iterator[Row]:
    state = seen.of_all.state
    web, since = state.processes.get("web", 0), state.delivered_ms
    last: Node = ["last delivery ", at(since)] if since else "no delivery yet"
    yield "Receiver", "well" if web else "away", [counted(web, "process", "processes"), ", ", last]
    age = 0 if state.waiting_ms is None else max(0, state.now_ms - state.waiting_ms)
    waits: Node = ["the oldest waits for ", took(age)] if state.waiting_ms is not None else "nothing waits"
    yield "Queue", "late" if age > LATE_MS else "well", ["deliveries to be settled: ", waits]
    workers = state.processes.get("worker", 0)
    running = "well" if seen.worker["running"] else "away"
    yield "Workers", running, [counted(workers, "process", "processes"), ", ", others(seen.worker["message"])]
    yield "Database", "well", ["one look at all of this took ", took(seen.took_ms)]
    if state.relay_endpoints:
        ends = ", ".join(f"{figure(n)} {name}" for name, n in sorted(state.relay_endpoints.items()))
        relay_age = 0 if state.relay_ms is None else max(0, state.now_ms - state.relay_ms)
        oldest: Node = ["; the oldest result waits for ", took(relay_age)] if state.relay_ms else None
        yield "Relay", "late" if relay_age > LATE_MS else "well", ["endpoints: ", ends, oldest]


def run_table(lines: Sequence[RunLine], none: Node) -> Element:
    """Runs, a line each."""
    return table("Runs, newest first", COLUMNS, lines, empty=none, is_compact=True)


def _name(line: RunLine) -> Node:
    return a(href=f"/runs/{line.run.id}")[clipped(line.run.name)]


def _progress(line: RunLine) -> Node:
    counts = line.run.counts
    closed = counts.failed + counts.rejected + counts.expired + counts.cancelled
    done = counts.completed + closed
    words = f"{figure(done)} of {figure(counts.total)} done"
    segments = [
        (DONE, counts.completed, "completed"),
        (WRONG, closed, "failed, rejected, expired or cancelled"),
        (GOING, counts.submitting + counts.submitted, "on their way"),
    ]
    return div(".progress")[
        bar(segments, counts.total, words), span(".dim")[words, " ", share(done, counts.total)]
    ]


def _state(line: RunLine) -> Node:
    run: Run = line.run
    return [badge(run.state), span(".more")[others(run.reason)] if run.reason else None]


def _loud(line: RunLine) -> Node:
    if not line.judged:
        return nothing("nothing is judged yet")
    loud = sum(line.to_explain.values())
    return span(class_="loud" if loud else None)[count(loud)]


COLUMNS: tuple[Column[RunLine], ...] = (
    Column("Run", _name),
    Column("State", _state),
    Column("Progress", _progress),
    Column("To explain", _loud, is_figure=True),
    Column("Charged", lambda line: credits(line.run.credits.charged), is_figure=True),
    Column("Held", lambda line: credits(line.run.credits.held), is_figure=True),
    Column("Account", lambda line: others(line.run.account)),
    Column("Created", lambda line: at(line.run.created_at)),
)


def warnings(accounts: Sequence[Ahead]) -> Node:
    """What will or may not suffice, the sure ones first."""
    found = [(w, one.account) for one in accounts if one.forecast for w in one.forecast.warnings]
    if not found:
        return None
    found.sort(key=lambda pair: not pair[0].sure)
    lines = [li[others(warning.message), span(".dim")[f" ({account})"]] for warning, account in found]
    return notice(ul[lines], tone="loud" if found[0][0].sure else "warn")


def account_section(accounts: Sequence[Ahead]) -> Element:
    """What each account has, what it uses, and when that runs out."""
    return section(aria_labelledby="accounts")[
        h2("#accounts")["Accounts"],
        table("Accounts", ACCOUNT_COLUMNS, accounts, empty=p["No account is visible to this token."]),
        all_of_it("accounts") if accounts else None,
    ]


def _balance(one: Ahead) -> Node:
    balance = one.balance
    if balance is None or balance.remaining is None:
        return nothing("the provider has not told it")
    return [credits(balance.remaining), span(".more")["read ", at(balance.read_at)]]


def _burn(one: Ahead) -> Node:
    usual = one.forecast.usual_per_hour if one.forecast else None
    return nothing("its balance was not watched for an hour yet") if usual is None else _range(usual)


def _range(found: Range[Decimal]) -> Node:
    if found.low == found.high:
        return credits(found.likely)
    return [credits(found.likely), span(".more")["(", credits(found.low), " to ", credits(found.high), ")"]]


def _runs_out(one: Ahead) -> Node:
    if one.forecast is None:
        return nothing("it is being looked at")
    found: Span = one.forecast.runs_out
    if found.likely is None and found.earliest is None:
        return span(".dim")["not foreseen"]
    earliest = written(found.earliest, "not foreseen")
    return [written(found.likely, "not likely"), span(".more")["at the earliest ", earliest]]


def _queued(one: Ahead) -> Node:
    forecast: AccountForecast | None = one.forecast
    if forecast is None:
        return nothing("it is being looked at")
    return [count(forecast.queued.tasks), span(".more")["may cost ", _range(forecast.queued.cost)]]


def _slots(one: Ahead) -> Node:
    if one.slots is None:
        return nothing("no audit was told yet" if one.forecast else "it is being looked at")
    told = span(".more")["told ", at(one.slots.at_ms)]
    return [count(one.slots.used), " of ", count(one.slots.max), told]


def _busiest(one: Ahead) -> Node:
    busiest = one.forecast.busiest_second if one.forecast else None
    return [
        count(busiest, "it is being looked at"),
        span(".more")[f"of {one.limit_per_s:g}, in the last minute"],
    ]


ACCOUNT_COLUMNS: tuple[Column[Ahead], ...] = (
    Column("Account", lambda one: others(one.account)),
    Column("Credits left", _balance, is_figure=True),
    Column("Used an hour", _burn, is_figure=True),
    Column("Run out", _runs_out),
    Column("Open tasks", _queued, is_figure=True),
    Column("Slots used", _slots, is_figure=True),
    Column("Busiest second", _busiest, is_figure=True),
    Column("New credits", lambda one: at(one.balance.resets_at if one.balance else None, "unknown")),
)
