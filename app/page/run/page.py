"""The page of a run, and what is downloaded of it."""

import dataclasses
from collections.abc import Mapping

from htpy import Node

from app.api.problems import FORBIDDEN, NOT_FOUND, Problem
from app.domain.task_filter import TaskFilter, filter_text
from app.files.export import Format, rows_of, shape_of
from app.files.export_stream import MEDIA_TYPES, exported
from app.page.downloads.page import format_of
from app.page.filters import QUERY, Filter, read_filter
from app.page.live import Seen, Topic, live_of
from app.page.parts.table import address
from app.page.run.markup import LIVE, head, run_page
from app.page.run.reading import head_of, read_run, visible_run
from app.page.visit import Download, Drawn, Events, GoTo, PageRoute, Visit
from app.views.export_rows import ExportContent


async def run(visit: Visit) -> Drawn | GoTo:
    """A run and one page of its tasks; with `run:` the same of another one."""
    asked = read_filter(visit.values.get(QUERY, ""))
    if visit.hides_prompts and asked.wanted.text is not None:
        asked = Filter(asked.text, problem="text: looks into prompts, which are hidden on this page.")
    if asked.wanted.run is not None:
        return await _another(visit, asked.wanted, asked.wanted.run)
    view = await read_run(visit, visit.values["run_id"], asked)
    shown = run_page(visit, view)
    return Drawn(view.head.run.name, shown, status=422 if view.asked.problem else 200)


async def _another(visit: Visit, wanted: TaskFilter, name: str) -> GoTo:
    named = await visit.read(lambda: visit.parts.store.queries.find_runs(name))
    seen = [found for found in named if visit.caller.sees(found.account)]
    if not seen:
        raise Problem(
            NOT_FOUND, "no run of this name or id is visible to this token: the overview lists them"
        )
    rest = filter_text(dataclasses.replace(wanted, run=None))
    return GoTo(address(f"/runs/{seen[0].id}", {QUERY: rest}))


async def listen(visit: Visit) -> Events:
    """What moves of it."""
    run = (await visible_run(visit, visit.values["run_id"])).run

    def draw(seen: Seen) -> Mapping[str, Node]:
        now = seen.runs.get(run.id)
        return {} if now is None else {LIVE: head(head_of(now, seen.worker))}

    topic = Topic(visit.caller.account, run.id)
    return Events(live_of(visit.parts).events(topic, draw, visit.headers.get("Last-Event-ID", "")))


async def download(visit: Visit) -> Download:
    """All of a run, as it is made."""
    what = ExportContent(visit.values["what"])
    format_ = format_of(visit)
    if visit.hides_prompts and what is ExportContent.RESULTS:
        raise Problem(FORBIDDEN, "prompts and answers are hidden on this page: ask the API")
    run = (await visible_run(visit, visit.values["run_id"])).run
    store = visit.parts.store
    own = await store.exports.own_column_names(run.id) if format_ is not Format.JSONL else []
    chunks = exported(rows_of(store, what, run.id), shape_of(what, own), format_)
    return Download(f"{run.name}-{what}.{format_}", MEDIA_TYPES[format_], chunks)


ROUTES = (
    PageRoute("GET", "/live/runs/{run_id}", listen, is_listened=True),
    PageRoute("GET", "/runs/{run_id}", run, query=(QUERY, "cursor")),
    PageRoute("GET", "/runs/{run_id}/{what:results|ledger}.{format:csv|jsonl|parquet}", download),
)
