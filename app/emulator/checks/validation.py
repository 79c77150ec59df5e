"""What all request checks share: the validator's words for wrong types, options and unknown keys (C-K.0)."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

Problem = dict[str, str]

PROMPT_CHARACTERS_MAX = 10_000


@dataclass(frozen=True, slots=True)
class Leniency:
    """Named switches of C-L that soften validation."""

    unknown_fields: bool = False
    """L2: strip unknown keys instead of refusing them."""
    state_outside_us: bool = False
    """Ignore `state` there, uncharged, instead of refusing it."""
    country_case: bool = False
    """Take `country` in either case, as `gl` is."""


def is_outside_us(payload: Mapping[str, Any]) -> bool:
    """Whether a request is for another country than the only one whose states are known (C-K.0)."""
    country = payload.get("country", "US")
    return not isinstance(country, str) or country.upper() != "US"


def kind_of(value: object) -> str:
    """The type word of the validator's messages."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "boolean"
    if isinstance(value, (int, float)):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


def wrong_type(expected: str, body: Mapping[str, Any], name: str) -> str:
    """The message for a value of another type; a missing key counts as undefined."""
    received = kind_of(body[name]) if name in body else "undefined"
    return f"Invalid input: expected {expected}, received {received}"


def options_text(values: tuple[str, ...]) -> str:
    """The message for a value outside an enumeration."""
    return "Invalid option: expected one of " + "|".join(f'"{value}"' for value in values)


def unknown_keys(body: Mapping[str, Any], known: frozenset[str], prefix: str, into: list[Problem]) -> None:
    """Every key that the schema does not know (C-K.0, L2)."""
    if body.keys() <= known:
        return
    into.extend(
        {"field": f"{prefix}{name}", "message": f'Unrecognized key: "{name}"'}
        for name in body
        if name not in known
    )


def absolute_http_url(url: str) -> bool:
    """http is taken as well as https, since nothing published demands https (C-L row L21)."""
    try:
        parts = urlsplit(url)
        return parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        return False
