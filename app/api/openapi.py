"""The OpenAPI 3.1 document of a table of routes."""

from collections.abc import Iterable, Sequence
from importlib.metadata import version
from typing import Any, Literal

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from app.api.problems import KINDS, Dialect
from app.api.route import Route, Streamed, Uploads

Document = dict[str, Any]
Mode = Literal["validation", "serialization"]
_REF = "#/components/schemas/{model}"
_HEADERS = {
    "X-Request-Id": "As given, or a new one; the logs have it.",
    "RateLimit": "What is left for this token.",
    "RateLimit-Policy": "How many requests a token may send.",
}


_KEY_HEADER: Document = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "Your own, a new one for each request: sent again, the same request is answered as before "
    "and done once. Kept for a day or more.",
    "schema": {"type": "string", "pattern": "^[!-~]{1,255}$"},
}


def openapi_document(routes: Sequence[Route]) -> Document:
    """As a JSON value."""
    schemas, definitions = models_json_schema(sorted(_models(routes), key=str), ref_template=_REF)
    definitions = _with_bounds(definitions)
    paths: Document = {}
    for route in routes:
        paths.setdefault(route.path, {})[route.method.lower()] = _operation(route, schemas)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "Tallyhook",
            "version": version("tallyhook"),
            "description": "Large batches of prompts, each submitted once, each credit explained.",
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": definitions.get("$defs", {}),
            "securitySchemes": {
                "token": {"type": "http", "scheme": "bearer", "description": "Of `tallyhook token create`."}
            },
            "headers": {
                name: {"description": text, "schema": {"type": "string"}} for name, text in _HEADERS.items()
            },
        },
    }


def problem_statuses(route: Route) -> list[int]:
    """The statuses of problems that a route may answer with."""
    statuses = {500, 503, *route.problems}
    if not route.is_stream:
        statuses.add(504)
    if route.scope is not None:
        statuses |= {401, 403, 429}
    if route.path_fields:
        statuses.add(404)
    if route.takes_key:
        statuses |= {400, 409}
    # An unknown parameter is an error everywhere.
    statuses.add(422)
    if route.body is not None:
        statuses |= {400, 408, 413, 415}
    return sorted({route.dialect.statuses.get(status, status) for status in statuses})


def _models(routes: Iterable[Route]) -> set[tuple[type[BaseModel], Mode]]:
    found: set[tuple[type[BaseModel], Mode]] = set()
    for route in routes:
        found |= {(route.params, "validation"), (route.dialect.error_model, "serialization")}
        body = route.body.json if isinstance(route.body, Uploads) else route.body
        if body is not None:
            found.add((body, "validation"))
        for answer in route.answers.values():
            model = answer.line if isinstance(answer, Streamed) else answer
            if model is not None:
                found.add((model, "serialization"))
    return found


def _operation(route: Route, schemas: Any) -> Document:
    operation: Document = {
        "operationId": route.handler.__name__,
        "summary": route.summary,
        "tags": [route.group],
        "responses": _responses(route, schemas),
        "security": [] if route.scope is None else [{"token": []}],
    }
    if route.scope is not None:
        operation["x-scope"] = str(route.scope)
    if route.description:
        operation["description"] = route.description
    if parameters := _parameters(route):
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = _request_body(route, schemas)
    return operation


def _parameters(route: Route) -> list[Document]:
    schema = _with_bounds(route.params.model_json_schema(ref_template=_REF))
    required = schema.get("required", [])
    parameters = []
    for name, described in schema.get("properties", {}).items():
        place = "path" if name in route.path_fields else "query"
        parameter = {"name": name, "in": place, "required": name in required, "schema": _plain(described)}
        if description := described.get("description"):
            parameter["description"] = description
        parameters.append(parameter)
    return parameters + ([_KEY_HEADER] if route.takes_key else [])


_BOUNDS = {"ge": "minimum", "le": "maximum", "gt": "exclusiveMinimum", "lt": "exclusiveMaximum"}
"""As pydantic calls a bound of a type that is validated by a function of ours, and as JSON Schema does."""
_VALUES = ("const", "default", "enum", "examples")
"""What holds values, and no schemas."""


def _with_bounds(schema: Any) -> Any:
    """The same with every bound named as JSON Schema names it, also those of what may be null."""
    if isinstance(schema, list):
        return [_with_bounds(each) for each in schema]
    if not isinstance(schema, dict):
        return schema
    # A property may be called so too, and is a schema then.
    return {
        k if isinstance(v, dict) else _BOUNDS.get(k, k): v if k in _VALUES else _with_bounds(v)
        for k, v in schema.items()
    }


def _plain(schema: Document) -> Document:
    """Of a parameter, which is left out rather than null."""
    kinds = [kind for kind in schema.get("anyOf", []) if kind.get("type") != "null"]
    rest = {k: v for k, v in schema.items() if k not in ("title", "description", "anyOf")}
    if rest.get("default", "") is None:
        del rest["default"]
    return kinds[0] | rest if len(kinds) == 1 else rest | ({"anyOf": kinds} if kinds else {})


def _request_body(route: Route, schemas: Any) -> Document:
    body = route.body
    content: Document = {}
    if isinstance(body, Uploads):
        content = {kind: {"schema": body.form or {"type": "string"}} for kind in body.media_types}
        model = body.json
    else:
        model = body
    if model is not None:
        content["application/json"] = {"schema": schemas[(model, "validation")]}
        if "request" in route.examples:
            content["application/json"]["example"] = route.examples["request"]
    return {"required": not route.body_is_optional, "content": content}


def _responses(route: Route, schemas: Any) -> Document:
    responses = {
        str(status): {
            "description": answer.description if isinstance(answer, Streamed) else "As asked for.",
            "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in _HEADERS},
            "content": _content(route, answer, schemas),
        }
        for status, answer in route.answers.items()
    }
    if route.method == "GET" and not route.is_stream:
        responses["304"] = {"description": "Nothing has changed since the ETag of If-None-Match."}
    for status in problem_statuses(route):
        responses[str(status)] = _problem(status, route.dialect, schemas)
    return responses


def _content(route: Route, answer: type[BaseModel] | Streamed, schemas: Any) -> Document:
    if isinstance(answer, Streamed):
        return {answer.media_type: {"schema": {"type": "string"}}}
    content: Document = {"schema": schemas[(answer, "serialization")]}
    if "answer" in route.examples:
        content["example"] = route.examples["answer"]
    return {"application/json": content}


def _problem(status: int, dialect: Dialect, schemas: Any) -> Document:
    titles = [kind.title for kind in KINDS if kind.status == status]
    schema = schemas[(dialect.error_model, "serialization")]
    return {
        "description": " ".join(titles) or "A problem.",
        "content": {dialect.media_type: {"schema": schema}},
    }
