"""Schedules: when each runs, in words, how its last runs went, and letting it rest or go on."""

from collections.abc import Mapping, Sequence

from htpy import div, p

from app.api.native import schedules
from app.page.parts.download import all_of_it
from app.page.schedules.markup import LastRun, schedule_table
from app.page.visit import Drawn, PageRoute, Visit
from app.store.read.progress import RunProgress
from app.store.read.run_pages import TimedRun
from app.views.runs import state_of

RUNS_SHOWN = 20
"""Newest runs of a schedule."""
SCHEDULES_SHOWN = 200


async def show_schedules(visit: Visit) -> Drawn:
    """All of them, by name: there are as many as somebody has typed."""
    found = (await visit.ask(schedules.list_schedules)).data
    shown, ids = found[:SCHEDULES_SHOWN], [row.id for row in found[:SCHEDULES_SHOWN]]
    newest = await visit.read(lambda: visit.parts.store.run_pages.newest_of_schedules(ids, RUNS_SHOWN))
    seen = {key: [row for row in rows if visit.caller.sees(row.run.account)] for key, rows in newest.items()}
    run_ids = [row.run.id for rows in seen.values() for row in rows]
    progress = await visit.read(lambda: visit.parts.store.queries.progress_of_runs(run_ids))
    last = {key: _last_runs(rows, progress) for key, rows in seen.items()}
    return Drawn(
        "Schedules",
        div[
            p(".lead")["Prompt files that run every so often, each time as a run of its own."],
            schedule_table(shown, last, RUNS_SHOWN),
            p(".dim")[f"{len(found) - len(shown):,} more: tallyhook schedule list"]
            if len(found) > len(shown)
            else None,
            all_of_it("schedules") if shown else None,
        ],
    )


def _last_runs(rows: Sequence[TimedRun], progress: Mapping[str, RunProgress]) -> list[LastRun]:
    return [LastRun(row.run, state_of(row.run, progress[row.run.id]), progress[row.run.id]) for row in rows]


ROUTES = (PageRoute("GET", "/schedules", show_schedules, nav="Schedules"),)
