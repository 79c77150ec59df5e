"""What is going on: now, runs, accounts, health."""

import asyncio
from collections.abc import Mapping

from htpy import Node, a, code, div, h2, p, section

from app.api.pages import write_cursor
from app.page.live import NEWEST, Seen, Topic, listener, live_of
from app.page.overview.markup import (
    FINDINGS,
    HEALTH,
    NOW,
    RUNS,
    account_section,
    health_table,
    moving,
    newest_findings,
    now_cards,
    run_table,
    warnings,
)
from app.page.overview.reading import CURSOR, ahead_of, lines_of, older_lines
from app.page.parts.download import all_of_it
from app.page.parts.notice import empty
from app.page.parts.table import pager
from app.page.visit import Drawn, Events, PageRoute, Visit

NO_RUNS = empty(
    "There are no runs yet.",
    [a(href="/submit")["Submit a file"], ", or ", code["tallyhook submit prompts.csv"], ", or use the API."],
)


async def overview(visit: Visit) -> Drawn:
    """All of it; behind a cursor older runs alone."""
    if cursor := visit.values.get("cursor"):
        lines, more = await older_lines(visit, cursor)
        return Drawn("Older runs", [run_table(lines, NO_RUNS), pager("/", visit.values, more)])
    account = visit.caller.account
    live = live_of(visit.parts)
    seen, ahead = await asyncio.gather(
        visit.read(lambda: live.look_once(Topic(account, None))), ahead_of(visit)
    )
    lines = lines_of(seen, account)
    more = write_cursor(CURSOR, lines[-1].run.id) if len(lines) == NEWEST else None
    return Drawn(
        "Overview",
        [
            listener("/live"),
            warnings(ahead),
            div(id=NOW)[now_cards(seen, account, _limits(visit))],
            section(aria_labelledby="runs")[
                h2("#runs")["Runs"],
                div(id=RUNS)[run_table(lines, NO_RUNS)],
                pager("/", visit.values, more) if lines else None,
                all_of_it("runs") if lines else None,
            ],
            section(aria_labelledby="findings")[
                h2("#findings")["Newest findings"],
                div(id=FINDINGS)[newest_findings(seen, account)],
                p[a(href="/findings")["All findings"]],
            ],
            account_section(ahead),
            section(aria_labelledby="health")[h2("#health")["Health"], div(id=HEALTH)[health_table(seen)]],
        ],
    )


async def listen(visit: Visit) -> Events:
    """What moves of it."""
    account, limits = visit.caller.account, _limits(visit)

    def draw(seen: Seen) -> Mapping[str, Node]:
        return moving(seen, account, limits, NO_RUNS)

    last = visit.headers.get("Last-Event-ID", "")
    return Events(live_of(visit.parts).events(Topic(account, None), draw, last))


def _limits(visit: Visit) -> dict[str, float]:
    return {name: one.rate_per_s for name, one in visit.parts.settings.all_accounts().items()}


ROUTES = (
    PageRoute("GET", "/", overview, query=("cursor",), nav="Overview"),
    PageRoute("GET", "/live", listen, is_listened=True),
)
