"""What pydantic found wrong with a value, as fields with their remedies, and never with what was given."""

from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from app.api.problems import FieldError
from app.domain.remarks import shown

Place = tuple[str | int, ...]

FAULTS_MAX = 1_000
"""In one value. More are only counted: to look at each would keep everybody else waiting."""

_REMEDIES = {
    "missing": "add it, it is needed",
    "string_type": "write a string",
    "int_type": "write a whole number",
    "int_parsing": "write a whole number",
    "int_from_float": "write a whole number",
    "bool_type": "write true or false",
    "bool_parsing": "write true or false",
    "list_type": "write a list",
    "dict_type": "write an object",
    "model_type": "write an object",
    "model_attributes_type": "write an object",
    "decimal_type": "write a decimal in a string",
    "decimal_parsing": "write a decimal in a string",
    "string_pattern_mismatch": "write it as /openapi.json says",
}
_BOUNDS = {
    "literal_error": "use {expected}",
    "enum": "use {expected}",
    "greater_than": "write more than {gt}",
    "greater_than_equal": "write {ge} or more",
    "less_than": "write less than {lt}",
    "less_than_equal": "write {le} or less",
    "string_too_long": "shorten it to {max_length:,} characters",
    "string_too_short": "lengthen it to {min_length:,} or more characters",
    "too_long": "give {max_length:,} at most",
    "too_short": "give {min_length:,} or more",
    "decimal_max_places": "write {decimal_places} decimals at most",
    "decimal_max_digits": "write {max_digits} digits at most",
    "decimal_whole_digits": "write {whole_digits} digits before the point at most",
}
"""With what is allowed, and not what was sent."""


def field_errors(error: ValidationError, given: Any) -> list[FieldError]:
    """`given`: the value that is wrong. Where it may be of several kinds, which pydantic tries one after the
    other, one fault is left."""
    if (count := error.error_count()) > FAULTS_MAX:
        remedy = f"it has {count:,} faults: write it as /openapi.json says"
        return [FieldError(code="too_many_faults", remedy=remedy)]
    of_place: dict[Place, list[Any]] = {}
    for fault in error.errors(include_input=False, include_url=False):
        of_place.setdefault(_place(fault, given), []).append(fault)
    return [
        _field_error(place, faults) for place, faults in of_place.items() if not _is_beside(place, of_place)
    ]


def _place(fault: Any, given: Any) -> Place:
    """Where it is in what was given: pydantic names also which kind of value it tried, and what is a key."""
    place: list[str | int] = []
    for part in fault["loc"]:
        is_there = part in given if isinstance(given, Mapping) else isinstance(part, int)
        if is_there:
            given = given[part]
        if is_there or (fault["type"] == "missing" and part == fault["loc"][-1]):
            place.append(part)
    return tuple(place)


def _is_beside(place: Place, of_place: Mapping[Place, list[Any]]) -> bool:
    """It only follows from what is wrong within it: another kind than what was given, or a list of which no
    element is left."""
    follows = all(fault["type"].endswith(("_type", "too_short")) for fault in of_place[place])
    return follows and any(other[: len(place)] == place and other != place for other in of_place)


def _field_error(place: Place, faults: Sequence[Any]) -> FieldError:
    field = ".".join(shown(str(part)) for part in place) or None
    code, remedy = _said(faults[0])
    if len(faults) > 1 and all(fault["type"] in _REMEDIES for fault in faults):
        kinds = [_REMEDIES[fault["type"]].removeprefix("write ") for fault in faults]
        remedy = f"write {' or '.join(dict.fromkeys(kinds))}"
    return FieldError(field=field, code=code, remedy=remedy)


def _said(fault: Any) -> tuple[str, str]:
    """(code, remedy)."""
    kind = fault["type"]
    if kind == "extra_forbidden":
        return "unknown_field", "leave it out; /openapi.json has the fields"
    if kind == "value_error":
        return "wrong_value", str(fault["ctx"]["error"])
    if kind in _BOUNDS:
        return kind, _BOUNDS[kind].format(**fault["ctx"])
    return kind, _REMEDIES.get(kind, "write it as /openapi.json says")
