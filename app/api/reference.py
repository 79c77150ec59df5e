"""The reference part of docs/api.md, made of the table of routes: `python -m app.api.reference` writes it."""

import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from app.api.openapi import openapi_document, problem_statuses
from app.api.problems import KINDS
from app.api.route import Route
from app.api.table import ROUTES

PAGE = Path(__file__).parents[2] / "docs" / "api.md"
BEGIN, END = "<!-- reference: made by `make reference` -->", "<!-- end of the reference -->"


def reference(routes: Sequence[Route]) -> str:
    """Markdown: routes by group, then models, then problems."""
    document = openapi_document(routes)
    lines = []
    in_order = sorted(routes, key=lambda route: _place(routes, route))
    for group, members in itertools.groupby(in_order, lambda route: route.group):
        lines += [f"### {group.capitalize()}", ""]
        for route in members:
            lines += _route(route, document["paths"][route.path][route.method.lower()])
    lines += ["### Models", "", *_models(document["components"]["schemas"])]
    lines += ["### Problems", "", "| code | status | means |", "|---|---|---|"]
    lines += [f"| `{kind.code}` | {kind.status} | {kind.title} |" for kind in KINDS]
    return "\n".join([*lines, ""])


def _place(routes: Sequence[Route], route: Route) -> int:
    return next(i for i, other in enumerate(routes) if other.group == route.group)


def _route(route: Route, operation: dict[str, Any]) -> Iterator[str]:
    yield f"#### `{route.method} {route.path}`"
    yield ""
    scope = f"Scope `{route.scope}`." if route.scope else "No token."
    again = "" if route.is_idempotent else " Not idempotent."
    yield f"{route.summary}. {scope}{again} {route.description}".strip()
    yield ""
    if parameters := operation.get("parameters"):
        yield "| parameter | in | type | means |"
        yield "|---|---|---|---|"
        for parameter in parameters:
            schema, text = parameter["schema"], parameter.get("description", "")
            default = f" Default: {schema['default']}." if "default" in schema else ""
            yield f"| `{parameter['name']}` | {parameter['in']} | {_type(schema)} | {text}{default} |"
        yield ""
    if body := operation.get("requestBody"):
        kinds = [f"`{kind}` {_type(content['schema'])}" for kind, content in body["content"].items()]
        yield f"Body: {'; '.join(kinds)}."
        yield ""
    for status in route.answers:
        contents = operation["responses"][str(status)]["content"].items()
        kinds = [f"`{kind}` {_type(content['schema'])}" for kind, content in contents]
        yield f"{status}: {'; '.join(kinds)}. Problems: {', '.join(map(str, problem_statuses(route)))}."
        yield ""


def _models(schemas: dict[str, Any]) -> Iterator[str]:
    for name, schema in sorted(schemas.items()):
        if not schema.get("properties") or name.endswith("Params"):
            continue
        yield f"#### {_title(name)}"
        yield ""
        if description := schema.get("description"):
            yield " ".join(description.split())
            yield ""
        yield "| field | type | means |"
        yield "|---|---|---|"
        for field, described in schema["properties"].items():
            text = " ".join(described.get("description", "").split())
            yield f"| `{field}` | {_type(described)} | {text} |"
        yield ""


def _title(name: str) -> str:
    return name.replace("_", " ").strip()


def _type(schema: dict[str, Any]) -> str:
    if "$ref" in schema:
        return _title(schema["$ref"].rpartition("/")[2])
    if "anyOf" in schema:
        return " or ".join(_type(each) for each in schema["anyOf"])
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_type(schema.get('items', {}))}"
    kind = str(schema.get("type", "any"))
    return f"{kind} ({schema['format']})" if "format" in schema else kind


def with_reference(page: str, made: str) -> str:
    """A page with the part between the marks replaced."""
    before, _, rest = page.partition(BEGIN)
    return f"{before}{BEGIN}\n\n{made}\n{END}{rest.partition(END)[2]}"


def main() -> None:
    """Write the page; with --check only say whether it is as it should be."""
    page = PAGE.read_text()
    made = with_reference(page, reference(ROUTES))
    if "--check" in sys.argv:
        raise SystemExit(int(made != page))
    PAGE.write_text(made)


if __name__ == "__main__":
    main()
