"""All routes of the API, in the order of the reference. A new one is added to its subject's ROUTES."""

from app.api import description
from app.api.dialects.batch import routes as batch
from app.api.dialects.provider import routes as provider
from app.api.native import (
    accounts,
    actions,
    books,
    bulk_changes,
    control,
    events,
    evidence,
    inbox,
    relay,
    results,
    runs,
    schedules,
    submitting,
    task_control,
    tasks,
)
from app.api.route import Route

ROUTES: tuple[Route, ...] = (
    *description.ROUTES,
    *runs.ROUTES,
    *submitting.ROUTES,
    *control.ROUTES,
    *results.ROUTES,
    *events.ROUTES,
    *tasks.ROUTES,
    *task_control.ROUTES,
    *bulk_changes.ROUTES,
    *actions.ROUTES,
    *books.ROUTES,
    *evidence.ROUTES,
    *accounts.ROUTES,
    *schedules.ROUTES,
    *relay.ROUTES,
    *inbox.ROUTES,
    *provider.ROUTES,
    *batch.ROUTES,
)
