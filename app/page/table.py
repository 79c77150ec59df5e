"""All pages, in the order of the navigation. A new one is added to its subject's ROUTES."""

from app.page import actions, bulk, control, overview, run, task, tokens
from app.page.visit import PageRoute

PAGES: tuple[PageRoute, ...] = (
    *overview.ROUTES,
    *run.ROUTES,
    *task.ROUTES,
    *control.ROUTES,
    *bulk.ROUTES,
    *actions.ROUTES,
    *tokens.ROUTES,
)
PLACES = tuple(route for route in PAGES if route.nav)
"""What the navigation shows."""
