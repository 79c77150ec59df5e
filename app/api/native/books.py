"""/v1/ledger and /v1/findings: the books, entry by entry."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from app.api.fields import Credits, Id, Time
from app.api.native.visible import visible_run
from app.api.pages import Page, PageParams, read_cursor, write_cursor
from app.api.route import Call, Route
from app.domain.access import Scope


class LedgerEntry(BaseModel):
    """Entries are never changed; a hold is closed by one post or void."""

    id: int
    at: Time
    run_id: Id
    task_id: Id
    attempt: int
    kind: Literal["hold", "post", "void"]
    credits: Credits
    delivery_id: Id | None = Field(description="The report that closed it.")
    reason: str | None = Field(description="Why a post is not its hold.")


class Finding(BaseModel):
    """What needs explaining, with its figures."""

    id: int
    at: Time
    verdict: str
    run_id: Id | None = Field(description="null: a report that fits no task of ours.")
    task_id: Id | None
    attempt: int | None
    expected: Credits | None
    actual: Credits | None
    detail: str
    delivery_id: Id | None


class BooksParams(PageParams):
    """All that the token sees, or one run."""

    run_id: Annotated[Id | None, Field(description="Of one run only.")] = None


def entry_model(row: dict[str, Any]) -> LedgerEntry:
    """An entry of the ledger."""
    return LedgerEntry(
        at=row["at_ms"], **{name: row[name] for name in LedgerEntry.model_fields if name in row}
    )


def finding_model(row: dict[str, Any]) -> Finding:
    """A finding."""
    same = {name: row[name] for name in Finding.model_fields if name in row}
    return Finding(at=row["at_ms"], **same)


async def list_ledger(call: Call[BooksParams, None]) -> Page[LedgerEntry]:
    """Oldest first; of one run in the order of its tasks."""
    if call.params.run_id is not None:
        return await _ledger_of_run(call, call.params.run_id)
    asked, caller = call.params, call.caller
    place = read_cursor(asked.cursor, "ledger", int)
    after = int(place[0]) if place else 0
    found = await call.reads.books_pages.ledger_after(after, asked.limit, caller.account)
    following = None if found.is_last else write_cursor("ledger", found.through)
    return Page(data=[entry_model(row) for row in found.rows], next_cursor=following)


async def _ledger_of_run(call: Call[BooksParams, None], run_id: str) -> Page[LedgerEntry]:
    await visible_run(call, run_id)
    keys = read_cursor(call.params.cursor, "run-ledger", int, int)
    place = (int(keys[0]), int(keys[1])) if keys else (0, 0)
    rows, following = await call.reads.books_pages.ledger_of_run(run_id, place, call.params.limit)
    cursor = None if following is None else write_cursor("run-ledger", *following)
    return Page(data=[entry_model(row) for row in rows], next_cursor=cursor)


async def list_findings(call: Call[BooksParams, None]) -> Page[Finding]:
    """Oldest first."""
    asked = call.params
    if asked.run_id is not None:
        await visible_run(call, asked.run_id)
    place = read_cursor(asked.cursor, "findings", int)
    after = int(place[0]) if place else 0
    found = await call.reads.books_pages.findings_after(after, asked.limit, call.caller.account, asked.run_id)
    following = None if found.is_last else write_cursor("findings", found.through)
    return Page(data=[finding_model(row) for row in found.rows], next_cursor=following)


ROUTES = (
    Route(
        "GET",
        "/v1/ledger",
        list_ledger,
        "List the ledger, oldest entry first; of one run in the order of its tasks",
        {200: Page[LedgerEntry]},
        scope=Scope.READ,
        group="books",
        params=BooksParams,
        problems=(404,),
        description="A page may have few entries, or none, and still a `next_cursor`.",
    ),
    Route(
        "GET",
        "/v1/findings",
        list_findings,
        "List what needs explaining, oldest first",
        {200: Page[Finding]},
        scope=Scope.READ,
        group="books",
        params=BooksParams,
        problems=(404,),
    ),
)
