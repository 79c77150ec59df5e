"""What the overview reads: one look at the whole, runs a page at a time, and what lies ahead of each account,
which is kept for some seconds.
"""

import asyncio
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from app.api.native import accounts
from app.api.native.accounts import Balance
from app.api.native.forecast_model import AccountForecast
from app.api.native.runs import Run, run_model
from app.api.pages import read_cursor, write_cursor
from app.domain.verdicts import QUIET_VERDICTS
from app.page.kept import Kept
from app.page.live import NEWEST, RunNow, Seen
from app.page.visit import Visit
from app.store.read.progress import RunProgress
from app.store.write.account_sheets import AccountSheet

ACCOUNTS_MAX = 10
AHEAD_FOR_S = 15.0
"""What lies ahead is not looked at anew for so long: it reads the work of a day."""
CURSOR = "runs"
AHEAD = "page ahead"


@dataclass(frozen=True, slots=True)
class RunLine:
    """A run in the list."""

    run: Run
    judged: int
    to_explain: Mapping[str, int]
    """Of the judged attempts, by verdict."""


@dataclass(frozen=True, slots=True)
class Slots:
    """Tasks that the provider works on at once, as the last audit was told."""

    max: int
    used: int
    at_ms: int


@dataclass(frozen=True, slots=True)
class Ahead:
    """What an account has, and what lies ahead of it."""

    account: str
    limit_per_s: float
    balance: Balance | None
    forecast: AccountForecast | None
    """None: it is being made."""
    slots: Slots | None = None
    """None: no audit was told."""


def line_of(now: RunNow) -> RunLine:
    """A run as a look saw it."""
    return _line(now.model, now.progress)


def lines_of(seen: Seen, account: str | None) -> list[RunLine]:
    """The newest runs that a caller sees."""
    return [line_of(seen.runs[i]) for i in seen.of_all.newest.get(account, ()) if i in seen.runs]


async def older_lines(visit: Visit, cursor: str) -> tuple[list[RunLine], str | None]:
    """(runs behind a cursor, the cursor of the next page). Raises Problem."""
    place = read_cursor(cursor, CURSOR, str)
    store, before = visit.parts.store, str(place[0]) if place else None

    async def read() -> tuple[list[RunLine], str | None]:
        rows = await store.run_pages.runs_before(before, NEWEST + 1, visit.caller.account)
        shown = rows[:NEWEST]
        progress = await store.queries.progress_of_runs([row.run.id for row in shown])
        more = write_cursor(CURSOR, shown[-1].run.id) if len(rows) > NEWEST else None
        lines = [_line(run_model(row, progress[row.run.id]), progress[row.run.id]) for row in shown]
        return lines, more

    return await visit.read(read)


def _line(run: Run, progress: RunProgress) -> RunLine:
    to_explain = {name: n for name, n in progress.verdicts.items() if n and name not in QUIET_VERDICTS}
    return RunLine(run, sum(progress.verdicts.values()), to_explain)


async def ahead_of(visit: Visit) -> Sequence[Ahead]:
    """Of every account that the caller sees."""
    configured, names = visit.parts.settings.all_accounts(), visit.accounts[:ACCOUNTS_MAX]
    kept: dict[str, Kept[Ahead]] = visit.parts.shared.setdefault(AHEAD, {})

    async def of(name: str) -> Ahead:
        limit_per_s = configured[name].rate_per_s

        async def look() -> Ahead:
            balance = await visit.ask(accounts.get_balance, account=name)
            forecast = await visit.ask(accounts.get_forecast, account=name)
            sheet = await visit.read(lambda: visit.parts.store.account_sheets.sheet(name))
            return Ahead(name, limit_per_s, balance, forecast, _slots(sheet))

        found = await kept.setdefault(name, Kept(AHEAD_FOR_S)).get(look)
        return found or Ahead(name, limit_per_s, None, None)

    return await asyncio.gather(*map(of, names))


def _slots(sheet: AccountSheet | None) -> Slots | None:
    told = json.loads(sheet.body)["forecast"]["slots"] if sheet else None
    if sheet is None or not told or told["max"] is None or told["used"] is None:
        return None
    return Slots(told["max"], told["used"], sheet.at_ms)
