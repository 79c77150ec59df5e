"""All pages, in the order of the navigation. A new one is added to its subject's ROUTES."""

from app.page import (
    account,
    actions,
    bulk,
    control,
    downloads,
    engines,
    findings,
    intake,
    overview,
    relay,
    run,
    schedules,
    submit,
    task,
    tokens,
)
from app.page.visit import PageRoute

PAGES: tuple[PageRoute, ...] = (
    *overview.ROUTES,
    *submit.ROUTES,
    *run.ROUTES,
    *task.ROUTES,
    *control.ROUTES,
    *bulk.ROUTES,
    *account.ROUTES,
    *findings.ROUTES,
    *schedules.ROUTES,
    *engines.ROUTES,
    *intake.ROUTES,
    *relay.ROUTES,
    *actions.ROUTES,
    *tokens.ROUTES,
    *downloads.ROUTES,
)
PLACES = tuple(route for route in PAGES if route.nav)
"""What the navigation shows."""
