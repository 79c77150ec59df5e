"""Endpoints of the relay: what each took, what waits, and posting again what was given up."""

from htpy import div, p

from app.api.native import relay
from app.domain.access import Scope
from app.page.parts.download import all_of_it
from app.page.parts.table import pager
from app.page.relay.markup import endpoint_table
from app.page.visit import Drawn, GoTo, PageRoute, Visit

ENDPOINTS_SHOWN = 25


async def show_endpoints(visit: Visit) -> Drawn:
    """The newest first, a page at a time."""
    found = await visit.ask(relay.list_endpoints, limit=ENDPOINTS_SHOWN, cursor=visit.values.get("cursor"))
    return Drawn(
        "Relay",
        div[
            p(".lead")["Settled results are posted to these addresses, each until it was taken."],
            endpoint_table(visit, found.data),
            pager("/relay", visit.values, found.next_cursor) if found.data else None,
            all_of_it("endpoints") if found.data else None,
        ],
    )


async def retry_endpoint(visit: Visit) -> GoTo:
    """Post again what waits or was given up."""
    await visit.ask(relay.retry_endpoint, endpoint_id=visit.values["endpoint_id"])
    return GoTo("/relay")


ROUTES = (
    PageRoute("GET", "/relay", show_endpoints, query=("cursor",), nav="Relay"),
    PageRoute("POST", "/relay/{endpoint_id}/retry", retry_endpoint, scope=Scope.OPERATE),
)
