"""What is going on: runs, the newest first."""

from htpy import Node, code, div, h2, section

from app.api.native import runs
from app.page.overview.markup import run_table
from app.page.parts.notice import empty
from app.page.parts.table import pager
from app.page.visit import Drawn, PageRoute, Visit

RUNS_SHOWN = 25
NO_RUNS = empty(
    "There are no runs yet.", ["A first one: ", code["tallyhook submit prompts.csv"], ", or by the API."]
)


async def overview(visit: Visit) -> Drawn:
    """Runs a page at a time."""
    found = await visit.ask(runs.list_runs, limit=RUNS_SHOWN, cursor=visit.values.get("cursor"))
    listed: Node = section(aria_labelledby="runs")[
        h2("#runs")["Runs"],
        run_table(found.data, NO_RUNS),
        pager("/", visit.values, found.next_cursor) if found.data else None,
    ]
    return Drawn("Overview", div[listed])


ROUTES = (PageRoute("GET", "/", overview, query=("cursor",), nav="Overview"),)
