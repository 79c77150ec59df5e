"""An account: what it has, its cycle, whether books and balance agree, what lies ahead, and the ledger.

What takes long to add up comes from the sheet of the last audit, and says how old it is.
"""

import json
from collections.abc import Sequence
from decimal import Decimal
from typing import Any

from htpy import Node, div, h2, section

from app.api.native.accounts import get_balance
from app.api.native.books import entry_model
from app.api.pages import read_cursor, write_cursor
from app.domain.task import RunState
from app.page.account import markup
from app.page.account.expiring import Planned, slots_until
from app.page.parts.download import all_of_it
from app.page.parts.notice import empty
from app.page.parts.table import pager
from app.page.visit import Drawn, PageRoute, Visit
from app.store.read.run_pages import TimedRun
from app.store.write.schedules import ScheduleRow
from app.views.schedules import account_of, schedule_document

ENTRIES_SHOWN = 25
CURSOR = "ledger-back"
RUNS_MEASURED = 5
"""Finished runs of a schedule, the newest, by which the next are judged."""
NO_SHEET = empty(
    "Nothing is known of this account yet.",
    "A worker audits it soon after its first run; tallyhook audit does so at once.",
)


async def show_account(visit: Visit) -> Drawn:
    """The one that is asked for, the token's own, or the default one."""
    balance = await visit.ask(get_balance, account=visit.values.get("account"))
    account = balance.account
    sheet = await visit.read(lambda: visit.parts.store.account_sheets.sheet(account))
    seen: Node = NO_SHEET
    if sheet is not None:
        known = json.loads(sheet.body)
        planned = await _planned(visit, account, known["forecast"])
        seen = markup.sheet(known, planned, sheet.at_ms, visit.now_ms)
    names = visit.accounts
    return Drawn(
        f"Account {account}" if len(names) > 1 else "Account",
        div[markup.choice(names, account), seen, await _ledger(visit, account, is_only=len(names) == 1)],
    )


async def _ledger(visit: Visit, account: str, *, is_only: bool) -> Node:
    place = read_cursor(visit.values.get("cursor"), CURSOR, int)
    before = int(place[0]) if place else None
    whose = None if is_only and visit.caller.account is None else account
    books = visit.parts.store.books_pages
    page = await visit.read(lambda: books.ledger_before(before, ENTRIES_SHOWN, whose))
    cursor = None if page.is_last else write_cursor(CURSOR, page.through)
    rows = [entry_model(row) for row in page.rows]
    return section(aria_labelledby="ledger")[
        h2("#ledger")["Ledger"],
        markup.ledger_table(rows, is_behind=cursor is not None),
        pager("/account", visit.values, cursor) if rows or cursor or before else None,
        all_of_it("ledger", account=account) if rows else None,
    ]


async def _planned(visit: Visit, account: str, forecast: Any) -> list[Planned]:
    """What schedules of the account will cost until its cycle ends."""
    until_ms = markup.ms_of(forecast["resets_at"])
    if until_ms is None:
        return []
    store = visit.parts.store
    every = await visit.read(store.schedules.list_schedules)
    rows = [row for row in every if row.enabled and account_of(schedule_document(row)["options"]) == account]
    newest = await visit.read(
        lambda: store.run_pages.newest_of_schedules([row.id for row in rows], RUNS_MEASURED)
    )
    finished = {row.id: [run for run in newest[row.id] if run.run.finished_at_ms] for row in rows}
    ids = [run.run.id for runs in finished.values() for run in runs]
    progress = await visit.read(lambda: store.queries.progress_of_runs(ids))
    charged = {run_id: found.charged for run_id, found in progress.items()}
    return [_plan(row, finished[row.id], charged, until_ms) for row in rows]


def _plan(row: ScheduleRow, runs: Sequence[TimedRun], charged: dict[str, Decimal], until_ms: int) -> Planned:
    costs = [charged[one.run.id] for one in runs if one.run.state != RunState.CANCELLED]
    per_run = sum(costs, Decimal(0)) / len(costs) if costs else None
    slots = slots_until(row.next_at_ms, row.every_ms, until_ms)
    return Planned(row.name, slots, per_run if per_run is None else round(per_run, 6), len(costs))


ROUTES = (PageRoute("GET", "/account", show_account, query=("account", "cursor"), nav="Account"),)
