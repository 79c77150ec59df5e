"""The list of actions, the newest first."""

from htpy import div, p

from app.api.native import actions
from app.page.actions.markup import action_table
from app.page.parts.download import all_of_it
from app.page.parts.table import pager
from app.page.visit import Drawn, PageRoute, Visit

SHOWN = 50


async def overview(visit: Visit) -> Drawn:
    """A page of it."""
    found = await visit.ask(actions.list_actions, limit=SHOWN, cursor=visit.values.get("cursor"))
    about = p["Every change through the API and this page, also those that were refused."]
    shown = pager("/actions", visit.values, found.next_cursor)
    files = all_of_it("actions") if found.data else None
    return Drawn("Actions", div[about, action_table(found.data), shown, files])


ROUTES = (PageRoute("GET", "/actions", overview, query=("cursor",), nav="Actions"),)
