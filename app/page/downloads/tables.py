"""Tables that are downloaded: what a row has, and where all of them are read, some at a time."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from pydantic import BaseModel

from app.api.fields import Credits, Id, Time
from app.api.native import accounts, actions, books, bulk_changes, inbox, relay, runs, schedules
from app.api.native.accounts import Balance
from app.api.native.forecast_model import AccountForecast
from app.api.pages import LIMIT_MAX, Page
from app.api.route import Call
from app.domain.access import Scope
from app.domain.time_format import DAY_MS
from app.page.visit import Visit

Rows = Callable[[Visit], AsyncIterator[BaseModel]]
ENGINE_DAYS, REFUSED_DAYS = 7, 7
"""As the pages show."""


@dataclass(frozen=True, slots=True)
class Listing:
    """One table."""

    name: str
    model: type[BaseModel]
    rows: Rows
    scope: Scope = Scope.READ
    query: tuple[str, ...] = ()
    """What its address may say of which rows."""


class AccountLine(BaseModel):
    """An account, and what lies ahead of it."""

    balance: Balance
    forecast: AccountForecast


class BalanceChange(BaseModel):
    """A change of the balance that the last audit found."""

    account: str
    begins_at: str
    ends_at: str
    actual: Credits
    ours_lowest: Credits
    ours_highest: Credits
    foreign: Credits
    unexplained: Credits


class EngineDayLine(BaseModel):
    """One engine's answers of one day that took about equally long."""

    task_type: str
    day: Time
    latency_class: int
    answers: int
    completed: int
    usable: int
    charged: Credits
    charge_known: int


class RefusedLine(BaseModel):
    """Deliveries refused for one reason."""

    reason: str
    deliveries: int
    last_hour: Time


class TokenLine(BaseModel):
    """A token, but for what lets somebody in."""

    id: Id
    name: str
    prefix: str
    scope: str
    account: str | None
    state: str
    created_at: Time
    last_used_at: Time | None
    expires_at: Time | None
    revoked_at: Time | None


def _listed(handler: Callable[[Call[Any, Any]], Awaitable[Page[Any]]], **names: str) -> Rows:
    """By a list of the API, to its end; `names`: of its query -> of ours."""

    async def rows(visit: Visit) -> AsyncIterator[BaseModel]:
        asked = {name: visit.values.get(ours) for name, ours in names.items()}
        cursor: str | None = None
        while True:
            page = await visit.ask(handler, limit=LIMIT_MAX, cursor=cursor, **asked)
            for row in page.data:
                yield row
            if (cursor := page.next_cursor) is None:
                return

    return rows


async def _schedules(visit: Visit) -> AsyncIterator[BaseModel]:
    for row in (await visit.ask(schedules.list_schedules)).data:
        yield row


async def _accounts(visit: Visit) -> AsyncIterator[BaseModel]:
    for name in visit.accounts:
        balance = await visit.ask(accounts.get_balance, account=name)
        yield AccountLine(balance=balance, forecast=await visit.ask(accounts.get_forecast, account=name))


async def _ledger(visit: Visit) -> AsyncIterator[BaseModel]:
    """Of one account, as its page; of the only one all."""
    account = (await visit.ask(accounts.get_balance, account=visit.values.get("account"))).account
    whose = None if visit.caller.account is None and len(visit.accounts) == 1 else account
    read, after, is_last = visit.parts.store.books_pages.ledger_after, 0, False
    while not is_last:
        page = await visit.read(partial(read, after, LIMIT_MAX, whose))
        after, is_last = page.through, page.is_last
        for row in page.rows:
            yield books.entry_model(row)


async def _balance_changes(visit: Visit) -> AsyncIterator[BaseModel]:
    account = (await visit.ask(accounts.get_balance, account=visit.values.get("account"))).account
    sheet = await visit.read(lambda: visit.parts.store.account_sheets.sheet(account))
    for one in json.loads(sheet.body)["audit"]["intervals"] if sheet else ():
        same = {name: one[name] for name in BalanceChange.model_fields if name in one}
        yield BalanceChange(account=account, begins_at=one["from"], ends_at=one["to"], **same)


async def _engines(visit: Visit) -> AsyncIterator[BaseModel]:
    since_ms = visit.now_ms - visit.now_ms % DAY_MS - (ENGINE_DAYS - 1) * DAY_MS
    read, account = visit.parts.store.engine_days.engine_days, visit.caller.account
    for day in await visit.read(lambda: read(since_ms, account)):
        yield EngineDayLine(day=day.day_ms, **asdict(day))


async def _held_up(visit: Visit) -> AsyncIterator[BaseModel]:
    """Each once, though it may be tried, and so listed again, while they are read."""
    known = set[str]()
    async for row in _listed(inbox.list_held_up)(visit):
        if isinstance(row, inbox.InboxDelivery) and row.id not in known:
            known.add(row.id)
            yield row


async def _refused(visit: Visit) -> AsyncIterator[BaseModel]:
    read, since_ms = visit.parts.store.refusals.refused_since, visit.now_ms - REFUSED_DAYS * DAY_MS
    for row in await visit.read(lambda: read(since_ms)):
        yield RefusedLine(reason=row.reason, deliveries=row.count, last_hour=row.last_hour_ms)


async def _tokens(visit: Visit) -> AsyncIterator[BaseModel]:
    read, account = visit.parts.store.access.list_tokens, visit.caller.account
    before: str | None = None
    while rows := await visit.read(partial(read, LIMIT_MAX, before, account)):
        for row in rows:
            same = {name: getattr(row, name) for name in ("id", "name", "prefix", "scope", "account")}
            times = {
                name: getattr(row, f"{name}_ms") for name in TokenLine.model_fields if name[-3:] == "_at"
            }
            yield TokenLine(**same, **times, state=row.state(visit.now_ms))
        before = rows[-1].id


LISTINGS = (
    Listing("runs", runs.Run, _listed(runs.list_runs)),
    Listing("accounts", AccountLine, _accounts),
    Listing("ledger", books.LedgerEntry, _ledger, query=("account",)),
    Listing("balance-changes", BalanceChange, _balance_changes, query=("account",)),
    Listing("findings", books.Finding, _listed(books.list_findings, run_id="run"), query=("run",)),
    Listing("schedules", schedules.Schedule, _schedules),
    Listing("engines", EngineDayLine, _engines),
    Listing("set-aside", inbox.InboxDelivery, _listed(inbox.list_inbox)),
    Listing("held-up", inbox.InboxDelivery, _held_up),
    Listing("refused", RefusedLine, _refused),
    Listing("endpoints", relay.Endpoint, _listed(relay.list_endpoints)),
    Listing("actions", actions.Action, _listed(actions.list_actions)),
    Listing("bulk-changes", bulk_changes.BulkChange, _listed(bulk_changes.list_bulk_changes)),
    Listing("tokens", TokenLine, _tokens, Scope.OPERATE),
)
