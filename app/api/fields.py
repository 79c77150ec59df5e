"""Types that fields of the API share: exact credits, times, whole numbers in a query."""

import re
from decimal import Decimal
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

from app.domain.credits import ACCOUNT_CREDITS_MAX
from app.domain.time_format import iso_utc


def exact(amount: Decimal) -> str:
    """A decimal without exponent or trailing zeros."""
    text = format(amount, "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


_EXACT = r"^-?[0-9]+(\.[0-9]+)?$"

Credits = Annotated[
    Decimal,
    PlainSerializer(exact, return_type=str),
    WithJsonSchema({"type": "string", "pattern": _EXACT, "examples": ["12.5"]}, mode="serialization"),
]
"""Exact, in a string: many readers of JSON make a float of a number."""


_DECIMAL = re.compile(r"-?[0-9]{1,10}(\.[0-9]+)?")


def no_float(value: Any) -> Any:
    """Before credits that are given: a float is not exact, and Python reads more as a decimal than digits."""
    is_inexact = isinstance(value, bool) or (isinstance(value, float) and not value.is_integer())
    if is_inexact or (isinstance(value, str) and _DECIMAL.fullmatch(value) is None):
        raise ValueError('write a whole number, or a decimal in a string such as "12.5"')
    return value


GivenCredits = Annotated[
    Decimal,
    BeforeValidator(no_float),
    Field(strict=False, ge=0, le=ACCOUNT_CREDITS_MAX, decimal_places=6),
    WithJsonSchema(
        {
            "type": ["integer", "string"],
            "minimum": 0,
            "maximum": ACCOUNT_CREDITS_MAX,
            "pattern": r"^[0-9]{1,9}(\.[0-9]{1,6})?$",
            "examples": [500, "12.5"],
        }
    ),
]
"""Credits in a body."""

Time = Annotated[
    int,
    PlainSerializer(iso_utc, return_type=str),
    WithJsonSchema(
        {"type": "string", "format": "date-time", "examples": ["2026-11-27T16:30:00.000Z"]},
        mode="serialization",
    ),
]
"""UTC milliseconds; RFC 3339 with milliseconds on the wire."""

TimeText = Annotated[
    str, Field(json_schema_extra={"format": "date-time", "examples": ["2026-11-27T16:30:00.000Z"]})
]
"""RFC 3339 already."""

WholeOrExact = Annotated[int | str, WithJsonSchema({"type": ["integer", "string"], "pattern": _EXACT})]
"""Credits of a document that is given as it is: never a float."""

_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}")


def _whole(value: Any) -> Any:
    # Python reads more as a number than the schema says, such as 1_000.
    if isinstance(value, bool) or (isinstance(value, str) and _WHOLE.fullmatch(value) is None):
        raise ValueError("is no whole number: write digits only")
    # JSON knows one kind of number.
    return int(value) if isinstance(value, float) and value.is_integer() else value


Whole = Annotated[int, BeforeValidator(_whole)]
"""In a query digits and nothing else; in JSON a whole number."""

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")


def is_id(text: str) -> bool:
    """Whether a text is a UUID in its usual form."""
    return _UUID.fullmatch(text) is not None


def _uuid(value: Any) -> Any:
    if isinstance(value, str) and not is_id(value):
        raise ValueError("is no id: write it as it was given, 36 characters")
    return value.lower() if isinstance(value, str) else value


Id = Annotated[str, BeforeValidator(_uuid), Field(json_schema_extra={"format": "uuid"})]
"""A UUID as it was given."""
