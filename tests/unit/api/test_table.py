"""What the table of routes makes: a valid OpenAPI document, the reference page, and no two of anything."""

import collections
import inspect

from app.api.openapi import openapi_document
from app.api.reference import PAGE, reference, with_reference
from app.api.table import ROUTES
from app.domain.access import Scope


def test_the_document_is_valid() -> None:
    from openapi_spec_validator import (
        OpenAPIV31SpecValidator,  # or each process of a test run takes two seconds
    )

    OpenAPIV31SpecValidator(openapi_document(ROUTES)).validate()


def test_every_operation_has_an_id_and_a_model_a_name_of_its_own() -> None:
    ids = collections.Counter(route.handler.__name__ for route in ROUTES)
    assert [name for name, count in ids.items() if count > 1] == []
    # Of two models of one name pydantic writes out where each comes from.
    assert [name for name in openapi_document(ROUTES)["components"]["schemas"] if "app__api" in name] == []


def test_every_write_is_known_by_a_name_and_needs_more_than_reading() -> None:
    for route in ROUTES:
        if route.method not in ("GET", "HEAD"):
            assert route.scope in (Scope.SUBMIT, Scope.OPERATE), route.path
        if route.scope is None:
            assert route.path == "/openapi.json"
        assert inspect.iscoroutinefunction(route.handler)
        assert all(f"{{{name}}}" in route.path for name in route.path_fields)
        assert route.path.count("{") == len(route.path_fields), f"{route.path} names what its model does not"


def test_the_reference_page_is_as_the_table_has_it() -> None:
    page = PAGE.read_text()
    assert with_reference(page, reference(ROUTES)) == page, "run: make reference"
