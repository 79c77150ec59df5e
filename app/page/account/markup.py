"""The markup of an account. Documents are those of `tallyhook plan`, `audit` and `forecast --json`."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from htpy import Element, Node, a, details, h2, li, nav, p, section, span, summary, ul

from app.api.native.books import LedgerEntry
from app.charts.figures import amount, figure
from app.domain.text import counted
from app.page.account.expiring import Planned, expiring
from app.page.parts.badge import badge
from app.page.parts.bar import bar
from app.page.parts.download import all_of_it
from app.page.parts.facts import Fact, cards, facts
from app.page.parts.notice import empty, notice
from app.page.parts.table import Column, address, table
from app.page.parts.times import at
from app.page.parts.words import count, credits, id_of, nothing, others

Document = dict[str, Any]
KINDS = {"hold": "held", "post": "posted", "void": "voided"}
"""An entry of the ledger -> the word of its badge."""
STALE_MS = 600_000
"""Audits come once a minute, or at longest in some minutes where many accounts are."""
NO_ENTRIES = empty("The ledger has no entries yet.", "Accepted tasks are held; reports post or void them.")


def choice(names: Sequence[str], chosen: str) -> Node:
    """Links to the accounts, where there is more than one."""
    if len(names) < 2:
        return None
    return nav(".choice", aria_label="Accounts")[
        ul[
            [
                li[
                    a(
                        href=address("/account", {"account": name}),
                        aria_current="page" if name == chosen else None,
                    )[name]
                ]
                for name in names
            ]
        ]
    ]


def sheet(known: Document, planned: Sequence[Planned], at_ms: int, now_ms: int) -> Node:
    """Everything but the ledger."""
    plan, audit, forecast = known["plan"], known["audit"], known["forecast"]
    return [
        p(".dim")["As of ", at(at_ms), "."],
        notice(p["This is old: no worker has audited the account since."], tone="warn")
        if now_ms - at_ms > STALE_MS
        else None,
        _headline(plan, audit, forecast),
        [_warning(one) for one in forecast["warnings"]],
        _cycle(plan),
        _agreement(audit, forecast["account"]),
        _ahead(forecast),
        _expiry(forecast, planned),
        _spending(plan),
    ]


def ms_of(iso: str | None) -> int | None:
    """A time of a document."""
    return None if iso is None else round(datetime.fromisoformat(iso).timestamp() * 1000)


def _headline(plan: Document | None, audit: Document, forecast: Document) -> Element:
    balance, available = forecast["balance"], forecast["available"]
    told = at(ms_of(balance["at"])) if balance else None
    return cards(
        [
            Fact(
                "Balance",
                credits(amount(balance["remaining"]) if balance else None, "the provider told none yet"),
                ["told ", told] if told else None,
            ),
            Fact(
                "Available",
                credits(amount(available["likely"]) if available else None),
                "if all that is held is charged",
            ),
            Fact(
                "Held",
                credits(amount(plan["held"]["credits"]) if plan else None, NO_CYCLE),
                _tasks(plan, "held"),
            ),
            Fact(
                "Unknown",
                credits(amount(plan["unknown"]["credits"]) if plan else None, NO_CYCLE),
                _tasks(plan, "unknown"),
                "warn" if plan and plan["unknown"]["tasks"] else "",
            ),
            Fact("Runs out", _soonest(forecast["runs_out"]), _span(forecast["runs_out"])),
            Fact(
                "Drift",
                "none" if audit["explained"] else credits(amount(audit["unexplained"])),
                "every change has its entries" if audit["explained"] else "credits that nobody can explain",
                "good" if audit["explained"] else "loud",
            ),
        ]
    )


NO_CYCLE = "no billing cycle is known"


def _tasks(plan: Document | None, name: str) -> Node:
    return counted(plan[name]["tasks"], "task") if plan else None


def _soonest(span_of: Document) -> Node:
    if span_of["likely"] is not None:
        return at(ms_of(span_of["likely"]))
    return "not in sight"


def _span(span_of: Document) -> Node:
    if span_of["earliest"] is None:
        return None
    latest = ms_of(span_of["latest"])
    return ["from ", at(ms_of(span_of["earliest"])), " to ", at(latest) if latest else "never"]


def _warning(one: Document) -> Element:
    tone = "loud" if one["sure"] else "warn"
    return notice(p[others(one["message"])], tone=tone)


def _cycle(plan: Document | None) -> Element:
    title = h2("#cycle")["Cycle and plan"]
    if plan is None:
        return section(aria_labelledby="cycle")[
            title, empty("No billing cycle is known.", "A free account has none.")
        ]
    cycle = plan["cycle"]
    granted, used = amount(plan["allocation"]) or Decimal(0), amount(plan["used"]) or Decimal(0)
    foreign, held = amount(plan["foreign"]) or Decimal(0), amount(plan["held"]["credits"]) or Decimal(0)
    segments = [
        (2, used, "used by our tasks"),
        (1, foreign, "spent by others with the key"),
        (0, held, "held"),
    ]
    words = ", ".join(f"{name} {figure(value)}" for _, value, name in segments)
    return section(aria_labelledby="cycle")[
        title,
        bar(segments, max(granted, used + foreign + held), f"Of {figure(granted)} credits: {words}"),
        facts(
            [
                Fact("Cycle", [at(ms_of(cycle["starts_at"])), " to ", at(ms_of(cycle["ends_at"]))]),
                Fact("Left", counted(cycle["days_left"], "day")),
                Fact("Allocation", credits(granted)),
                Fact("Used", credits(used), "by our tasks"),
                Fact("Others", credits(foreign), "spent with the same key"),
                Fact("Remaining", credits(amount(plan["remaining"])), "by the books"),
                Fact("Overage", credits(amount(plan["overage"]))),
                Fact("Burn", credits(amount(plan["burn"]["credits_per_day"])), "credits a day, lately"),
            ]
        ),
    ]


def _agreement(audit: Document, account: str) -> Element:
    moved = audit["intervals"]
    return section(aria_labelledby="drift")[
        h2("#drift")["Books and balance"],
        p[
            badge("explained") if audit["explained"] else badge("unexplained", tone="wrong"),
            " books ",
            credits(amount(audit["books"]), NO_CYCLE),
            ", balance ",
            credits(amount(audit["balance"]), "the provider was not asked"),
            ".",
        ],
        table("Changes of the balance, oldest first", CHANGES, moved, empty=NO_CHANGE, is_title_seen=True),
        all_of_it("balance-changes", account=account) if moved else None,
    ]


NO_CHANGE = empty("The balance has not changed in this cycle.")


def _ours(row: Document) -> Node:
    low, high = amount(row["ours_lowest"]), amount(row["ours_highest"])
    return credits(low) if low == high else [credits(low), " to ", credits(high)]


def _unexplained(row: Document) -> Node:
    value = amount(row["unexplained"])
    return span(class_="loud" if value else None)[credits(value)]


CHANGES: tuple[Column[Document], ...] = (
    Column("From", lambda row: at(ms_of(row["from"]))),
    Column("To", lambda row: at(ms_of(row["to"]))),
    Column("Change", lambda row: credits(amount(row["actual"])), is_figure=True),
    Column("Ours", _ours, is_figure=True),
    Column("Others", lambda row: credits(amount(row["foreign"])), is_figure=True),
    Column("Unexplained", _unexplained, is_figure=True),
)


def _from_to(values: Document, unit: str) -> Node:
    low, likely, high = (amount(str(values[name])) for name in ("low", "likely", "high"))
    more = span(".more")["(", credits(low), " to ", credits(high), ")"] if low != high else None
    return [credits(likely), " ", unit, " ", more]


def _ahead(forecast: Document) -> Element:
    queued, pace = forecast["queued"], forecast["tasks_per_hour"]
    return section(aria_labelledby="ahead")[
        h2("#ahead")["What lies ahead"],
        facts(
            [
                Fact("Queued", counted(queued["tasks"], "task"), _from_to(queued["cost"], "credits")),
                Fact(
                    "Pace",
                    _from_to(pace, "tasks an hour"),
                    None if forecast["measured"] else "a guess by the slots: nothing finished lately",
                ),
                Fact("Next reset", at(ms_of(forecast["resets_at"]), "none is known")),
                Fact("Busiest second", count(forecast["busiest_second"]), "requests, in the minute before"),
            ]
        ),
        table("Runs that are not over", RUNS, forecast["runs"], empty=empty("No task is open.")),
    ]


RUNS: tuple[Column[Document], ...] = (
    Column("Run", lambda row: a(href=f"/runs/{row['run']['id']}")[others(row["run"]["name"])]),
    Column("Open", lambda row: count(row["open"]), is_figure=True),
    Column("Credits", lambda row: _from_to(row["cost"], ""), is_figure=True),
    Column("Ends", lambda row: others(row["why_not"]) if row["why_not"] else _ends(row["ends"])),
)


def _ends(span_of: Document) -> Node:
    more = _span(span_of)
    return [_soonest(span_of), span(".more")[more] if more else None]


def _expiry(forecast: Document, planned: Sequence[Planned]) -> Element | None:
    resets_ms, available = ms_of(forecast["resets_at"]), forecast["available"]
    if resets_ms is None or available is None:
        return None
    queued = amount(str(forecast["queued"]["cost"]["likely"])) or Decimal(0)
    left = expiring(amount(str(available["likely"])) or Decimal(0), queued, planned)
    return section(aria_labelledby="expiry")[
        h2("#expiry")["Credits about to expire"],
        p[
            credits(left, "what a schedule costs is not known before its first run has ended"),
            " credits end unused at ",
            at(resets_ms),
            ", after what is queued and the schedules until then.",
        ],
        table("Schedules until then", PLANNED, planned, empty=empty("No schedule runs until then.")),
    ]


def _per_run(row: Planned) -> Node:
    if row.per_run is None:
        return nothing("no run of it has ended yet")
    return [credits(row.per_run), span(".more")["by ", counted(row.runs_measured, "run")]]


PLANNED: tuple[Column[Planned], ...] = (
    Column("Schedule", lambda row: others(row.name)),
    Column("Runs until then", lambda row: count(row.slots), is_figure=True),
    Column("Credits a run", _per_run, is_figure=True),
    Column("Credits", lambda row: credits(row.credits, "no run of it has ended yet"), is_figure=True),
)


def _spending(plan: Document | None) -> Element | None:
    if plan is None:
        return None
    burn = plan["burn"]
    dearest, others_ = burn["by"][:SPENT_SHOWN], burn["by"][SPENT_SHOWN:]
    return section(aria_labelledby="spending")[
        h2("#spending")[f"Spent in the last {counted(burn['hours'], 'hour')}"],
        table("By engine and country", SPENT, dearest, empty=NOTHING_SPENT, is_compact=True),
        details[
            summary[counted(len(others_), "more engine and country", "more engines and countries")],
            table("Less dear ones", SPENT, others_, empty=None, is_compact=True),
        ]
        if others_
        else None,
    ]


SPENT_SHOWN = 15
"""Engines and countries, the dearest; the others are folded."""
NOTHING_SPENT = empty("Nothing was charged in that time.")
SPENT: tuple[Column[Document], ...] = (
    Column("Engine", lambda row: row["task_type"]),
    Column("Country", lambda row: row["country"] or nothing("the provider chose")),
    Column("Tasks", lambda row: count(row["tasks"]), is_figure=True),
    Column("Credits", lambda row: credits(amount(row["credits"])), is_figure=True),
    Column("A day", lambda row: credits(amount(row["credits_per_day"])), is_figure=True),
)


def ledger_table(rows: Sequence[LedgerEntry], *, is_behind: bool) -> Element:
    """Entries, newest first. `is_behind`: more follow, though none of them may stand here."""
    none = empty("None of the newest entries is this account's: look at the next page.")
    shown = none if is_behind else NO_ENTRIES
    return table("Entries, newest first", ENTRIES, rows, empty=shown, is_compact=True)


ENTRIES: tuple[Column[LedgerEntry], ...] = (
    Column("Time", lambda row: at(row.at)),
    Column("Entry", lambda row: [badge(KINDS[row.kind]), _reason(row)]),
    Column("Credits", lambda row: credits(row.credits), is_figure=True),
    Column("Task", lambda row: a(href=f"/tasks/{row.task_id}")[id_of(row.task_id)]),
    Column("Attempt", lambda row: count(row.attempt), is_figure=True),
)


def _reason(row: LedgerEntry) -> Node:
    return span(".more")[others(row.reason)] if row.reason else None
