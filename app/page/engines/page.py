"""Engines: how many answers were usable, how long they took, what a usable one cost, over seven days."""

from htpy import div, p

from app.domain.time_format import DAY_MS
from app.page.engines.figures import by_engine
from app.page.engines.markup import engine_table
from app.page.parts.download import all_of_it
from app.page.visit import Drawn, PageRoute, Visit

DAYS = 7


async def show_engines(visit: Visit) -> Drawn:
    """The last seven days (UTC), today among them."""
    today_ms = visit.now_ms - visit.now_ms % DAY_MS
    days_ms = [today_ms - n * DAY_MS for n in reversed(range(DAYS))]
    account = visit.caller.account
    found = await visit.read(lambda: visit.parts.store.engine_days.engine_days(days_ms[0], account))
    pauses = await visit.read(visit.parts.store.engine_pauses.list_pauses)
    paused = {one.task_type: one for one in pauses if one.paused_at_ms and visit.caller.sees(one.account)}
    least = visit.parts.settings.usable_chars_min
    return Drawn(
        "Engines",
        div[
            p(".lead")["Answers settled in the last seven days, today among them (UTC)."],
            engine_table(by_engine(found), days_ms, paused),
            p(".dim")[
                f"Usable is a completed answer with at least {least} characters. Counted some seconds "
                "after the answers are settled; charges that come later still are in the ledger only."
            ],
            all_of_it("engines") if found else None,
        ],
    )


ROUTES = (PageRoute("GET", "/engines", show_engines, nav="Engines"),)
