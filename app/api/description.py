"""/openapi.json: the API, described by its own table."""

import functools

from pydantic import BaseModel, ConfigDict

from app.api.route import Answer, Call, Params, Route


class OpenApi(BaseModel):
    """An OpenAPI document."""

    model_config = ConfigDict(extra="allow")

    openapi: str


@functools.cache
def _document() -> OpenApi:
    # Late: it is made of all routes, of which this is one.
    from app.api.openapi import openapi_document
    from app.api.table import ROUTES

    return OpenApi.model_validate(openapi_document(ROUTES))


async def describe(_call: Call[Params, None]) -> Answer:
    """The whole document; the same for everybody."""
    return Answer(_document())


ROUTES = (
    Route(
        "GET",
        "/openapi.json",
        describe,
        "Describe this API",
        {200: OpenApi},
        scope=None,
        group="description",
        description="OpenAPI 3.1. Needs no token.",
    ),
)
