"""/v1/relay/endpoints: where results are pushed to, how that goes, and posting again what was not taken."""

from typing import Any, Literal

from pydantic import BaseModel, Field

from app.api.fields import Id, Time
from app.api.idempotency import once
from app.api.pages import Page, PageParams, page_of, read_cursor
from app.api.problems import not_found
from app.api.route import Call, Params, Route
from app.domain.access import Scope
from app.relay_options import url_without_query
from app.store.read.relay import EndpointRow


class Endpoint(BaseModel):
    """A URL that results are posted to. Its secret is never shown."""

    id: Id
    account: str
    url: str = Field(description="Without its query, which may hold a token.")
    scheme: Literal["standard", "provider"] = Field(description="Standard Webhooks, or the provider's own.")
    state: Literal["active", "set_aside", "closed"]
    runs: list[str] = Field(description="Names of the newest runs whose results go there.")
    taken: int = Field(description="Messages that it took, so far.")
    waiting: int = Field(description="Messages that are still tried; 10,000 are so many or more.")
    given_up: int = Field(
        description="Messages that are not tried any more, until they are put back; counted as the others."
    )
    created_at: Time
    last_taken_at: Time | None
    failing_since: Time | None = Field(description="When it began to take nothing; null: it took the last.")
    error: str | None = Field(description="Of the last post that it did not take.")


class Retried(BaseModel):
    """What was put back."""

    id: Id
    messages: int = Field(description="Messages that are due at once.")


class EndpointParams(Params):
    """One endpoint."""

    endpoint_id: Id


def endpoint_model(row: EndpointRow) -> Endpoint:
    """An endpoint with its figures."""
    return Endpoint.model_validate(
        {
            "id": row.id,
            "account": row.account,
            "url": url_without_query(row.url),
            "scheme": row.scheme,
            "state": row.state,
            "runs": list(row.runs),
            "taken": row.taken,
            "waiting": row.waiting,
            "given_up": row.given_up,
            "created_at": row.created_at_ms,
            "last_taken_at": row.last_taken_at_ms,
            "failing_since": row.failing_since_ms,
            "error": row.last_error,
        }
    )


async def list_endpoints(call: Call[PageParams, None]) -> Page[Endpoint]:
    """Newest first."""
    asked = call.params
    place = read_cursor(asked.cursor, "endpoints", str)
    rows = await call.store.relay.endpoints(
        before=str(place[0]) if place else None, account=call.caller.account, limit=asked.limit + 1
    )
    return page_of(rows, asked.limit, "endpoints", key=lambda row: [row.id], model=endpoint_model)


async def get_endpoint(call: Call[EndpointParams, None]) -> Endpoint:
    """One of them."""
    return endpoint_model(await _visible(call))


async def retry_endpoint(call: Call[EndpointParams, None]) -> Retried:
    """Also of one that was set aside."""
    row = await _visible(call)
    call.subject = row.id
    put_back, now_ms = call.store.relay_endpoints.put_back, call.parts.clock()
    count = await once(call, lambda: put_back([row.id], now_ms))
    return Retried(id=row.id, messages=count)


async def _visible(call: Call[Any, Any]) -> EndpointRow:
    rows = await call.store.relay.endpoints(
        endpoint_id=call.params.endpoint_id, account=call.caller.account, limit=1
    )
    if not rows:
        raise not_found("endpoint")
    return rows[0]


ROUTES = (
    Route(
        "GET",
        "/v1/relay/endpoints",
        list_endpoints,
        "List where results are pushed to, and how that goes",
        {200: Page[Endpoint]},
        scope=Scope.READ,
        group="relay",
        params=PageParams,
    ),
    Route(
        "GET",
        "/v1/relay/endpoints/{endpoint_id}",
        get_endpoint,
        "Show how pushing to one endpoint goes",
        {200: Endpoint},
        scope=Scope.READ,
        group="relay",
        params=EndpointParams,
    ),
    Route(
        "POST",
        "/v1/relay/endpoints/{endpoint_id}/retry",
        retry_endpoint,
        "Post again what waits or was given up",
        {200: Retried},
        scope=Scope.OPERATE,
        group="relay",
        params=EndpointParams,
        action="relay.retry",
        description="Also to an endpoint that was set aside, which goes on from then.",
    ),
)
