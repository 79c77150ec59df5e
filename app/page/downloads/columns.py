"""Models of the API as flat rows: a field a column, and of what a field is made its own. Pure."""

import json
from collections.abc import Iterator
from decimal import Decimal
from functools import cache
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel, PlainSerializer, TypeAdapter

from app.api.fields import exact
from app.domain.text import storable
from app.domain.time_format import iso_utc
from app.files.export import Shape
from app.views.export_rows import ColumnKind

Path = tuple[str, ...]
_JSON: TypeAdapter[Any] = TypeAdapter(Any)
_KIND_OF = {exact: ColumnKind.CREDITS, iso_utc: ColumnKind.TIME}
"""By what writes a field's value as JSON."""
MILLIONTH = Decimal("0.000001")


@cache
def shape_of_model(model: type[BaseModel]) -> Shape:
    """Columns are named as the fields are, `counts_total` where they stand in others."""
    fields = list(_fields(model, ()))

    def values_of(row: BaseModel) -> list[Any]:
        return [_value(row, path, kind) for path, kind in fields]

    return Shape({"_".join(path): kind for path, kind in fields}, values_of, _line)


def _line(row: BaseModel) -> bytes:
    return row.model_dump_json().encode() + b"\n"


def _fields(model: type[BaseModel], above: Path) -> Iterator[tuple[Path, ColumnKind]]:
    for name, field in model.model_fields.items():
        path, parts = (*above, name), list(_parts(field.annotation))
        inner = [part for part in parts if isinstance(part, type) and issubclass(part, BaseModel)]
        if inner and list not in parts:
            yield from _fields(inner[0], path)
        else:
            yield path, _kind([*parts, *field.metadata])


def _parts(annotation: Any) -> Iterator[Any]:
    """All that stands in an annotation, whatever it is nested in."""
    if get_origin(annotation) is Literal:
        yield str
        return
    yield get_origin(annotation) or annotation
    for part in get_args(annotation):
        yield from _parts(part)


def _kind(parts: list[Any]) -> ColumnKind:
    for part in parts:
        if isinstance(part, PlainSerializer) and part.func in _KIND_OF:
            return _KIND_OF[part.func]
    known = [part for part in parts if part in (int, str, list)]
    if known == [list, str]:
        return ColumnKind.TEXTS
    return ColumnKind.WHOLE if known == [int] else ColumnKind.TEXT


def _value(row: Any, path: Path, kind: ColumnKind) -> Any:
    for name in path:
        row = None if row is None else getattr(row, name)
    if row is None:
        return None
    if kind is ColumnKind.CREDITS:
        return Decimal(row).quantize(MILLIONTH)
    if kind is ColumnKind.TEXTS:
        return [storable(one) for one in row]
    return storable(_text(row)) if kind is ColumnKind.TEXT else row


def _text(value: Any) -> str:
    """What is no text stands there as JSON."""
    if isinstance(value, str):
        return value
    return json.dumps(_JSON.dump_python(value, mode="json"), ensure_ascii=False)
