"""Bulk changes: the form and the list, what was tried out and is to be confirmed, how far one has come."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal, InvalidOperation

from htpy import Node

from app.api.native import bulk_changes
from app.api.native.bulk_changes import ConfirmBody, NewBulkChange, TaskFilterBody, bulk_change_model
from app.api.problems import CONFLICT, Problem, invalid
from app.domain.access import Scope
from app.domain.bulk_change import Verb, refuse_unfit
from app.domain.task_filter import FilterError, TaskFilter, parse_filter
from app.page.bulk.markup import PROGRESS, change_page, form_page, how_far
from app.page.filters import QUERY
from app.page.live import Seen, Topic, live_of
from app.page.visit import Drawn, Events, GoTo, PageRoute, Visit
from app.views.workers import workers_document

SHOWN = 20
VERBS = tuple(str(verb) for verb in Verb)


async def overview(visit: Visit) -> Drawn:
    """The form, and the newest of them."""
    return await _form(visit, visit.values.get("verb", "retry"), visit.values.get(QUERY, ""), None)


async def try_out(visit: Visit) -> Drawn | GoTo:
    """What a form asks for; what is wrong with it is said above it."""
    verb, text = visit.values.get("verb", ""), visit.values.get(QUERY, "")
    try:
        wanted = await _wanted(visit, verb, text)
    except FilterError as error:
        return await _form(visit, verb, text, error)
    given = TaskFilterBody(
        state=wanted.state,  # type: ignore[arg-type]
        engine=wanted.task_type,
        country=wanted.country,
        verdict=wanted.verdict,  # type: ignore[arg-type]
        run_id=wanted.run,
        custom_id=wanted.custom_id,
        text=wanted.text,
    )
    asked = NewBulkChange(
        verb=verb,  # type: ignore[arg-type]
        filter=given,
        even_if_held=visit.values.get("even_if_held") == "1",
    )
    made = await visit.tell(bulk_changes.propose_bulk_change, asked)
    return GoTo(f"/bulk/{made.headers['Location'].rpartition('/')[2]}")


async def show(visit: Visit) -> Drawn:
    """One of them, as it stands."""
    change = await visit.ask(bulk_changes.get_bulk_change, change_id=visit.values["change_id"])
    return change_page(visit, change, await visit.read(lambda: workers_document(visit.parts.store)))


async def listen(visit: Visit) -> Events:
    """What moves of it."""
    change = await visit.ask(bulk_changes.get_bulk_change, change_id=visit.values["change_id"])

    def draw(seen: Seen) -> Mapping[str, Node]:
        now = seen.changes.get(change.id)
        return {} if now is None else {PROGRESS: how_far(bulk_change_model(now), seen.worker)}

    topic = Topic(visit.caller.account, change_id=change.id)
    return Events(live_of(visit.parts).events(topic, draw, visit.headers.get("Last-Event-ID", "")))


async def confirm(visit: Visit) -> Drawn | GoTo:
    """Sent twice it is done once."""
    change_id = visit.values["change_id"]
    try:
        credits = Decimal(visit.values.get("credits", ""))
    except InvalidOperation:
        raise invalid("credits", "wrong_value", "use the page's own form") from None
    matched = visit.values.get("matched", "")
    if not (matched.isascii() and matched.isdecimal() and len(matched) < 19) or not credits.is_finite():
        raise invalid("matched", "wrong_value", "use the page's own form")
    body = ConfirmBody.model_construct(
        matched=int(matched), credits=credits, filter=visit.values.get("filter", "")
    )
    try:
        await visit.tell(bulk_changes.confirm_bulk_change, body, change_id=change_id)
    except Problem as problem:
        if problem.kind is not CONFLICT:
            raise
        change = await visit.ask(bulk_changes.get_bulk_change, change_id=change_id)
        worker = await visit.read(lambda: workers_document(visit.parts.store))
        return change_page(visit, change, worker, problem)
    return GoTo(f"/bulk/{change_id}")


async def stop(visit: Visit) -> GoTo:
    """One that has ended meanwhile is shown as it is."""
    change_id = visit.values["change_id"]
    try:
        await visit.ask(bulk_changes.stop_bulk_change, change_id=change_id)
    except Problem as problem:
        if problem.kind is not CONFLICT:
            raise
    return GoTo(f"/bulk/{change_id}")


async def _form(visit: Visit, verb: str, text: str, error: FilterError | None) -> Drawn:
    found = await visit.ask(bulk_changes.list_bulk_changes, limit=SHOWN, cursor=visit.values.get("cursor"))
    content = form_page(visit, verb, text, error, found.data, found.next_cursor)
    return Drawn("Bulk changes", content, status=422 if error else 200)


async def _wanted(visit: Visit, verb: str, text: str) -> TaskFilter:
    """With its run by id. Raises FilterError."""
    if verb not in VERBS:
        raise FilterError("", "what to do is not said", f"choose one of {', '.join(VERBS)}")
    wanted = parse_filter(text)
    refuse_unfit(Verb(verb), wanted)
    if visit.hides_prompts and wanted.text is not None:
        raise FilterError("text", "text: looks into prompts, which are hidden on this page", "leave it out")
    return wanted if wanted.run is None else replace(wanted, run=await _run_id(visit, wanted.run))


async def _run_id(visit: Visit, named: str) -> str:
    named_so = await visit.read(lambda: visit.parts.store.queries.find_runs(named))
    seen = [run for run in named_so if visit.caller.sees(run.account)]
    exact = [run for run in seen if run.id == named.lower()] or seen
    if not exact:
        raise FilterError("run", "run: names no run that you may see", "give its name or its id")
    if len(exact) > 1:
        raise FilterError("run", f"run: fits {len(exact)} runs", "give the id of one")
    return exact[0].id


ROUTES = (
    PageRoute("GET", "/bulk", overview, query=("verb", QUERY, "cursor"), nav="Bulk"),
    PageRoute("POST", "/bulk", try_out, Scope.OPERATE, ("verb", QUERY, "even_if_held")),
    PageRoute("GET", "/bulk/{change_id}", show),
    PageRoute("GET", "/live/bulk/{change_id}", listen, is_listened=True),
    PageRoute("POST", "/bulk/{change_id}/confirm", confirm, Scope.OPERATE, ("matched", "credits", "filter")),
    PageRoute("POST", "/bulk/{change_id}/stop", stop, Scope.OPERATE),
)
