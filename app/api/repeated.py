"""JSON bodies that say one thing twice: every parser keeps the last of equal names and drops the others
without a word, so what is bought would not be what somebody reads there. They are refused.
"""

from typing import Any

from pydantic_core import from_json

from app.api.problems import INVALID, FieldError, Problem
from app.prompts.rows import repeated_members

REMEDY = "it is given twice: keep one of them"


def refuse_repeated_members(body: bytes) -> None:
    """Raises Problem for a JSON text in which an object has two members of one name; ValueError for what is
    no JSON."""
    # A text has two quotes, and a member that was dropped took its name with it. This takes half of the
    # time that it takes to look at the names of each object.
    if b"\\" in body:
        quotes = body.replace(b"\\\\", b"").replace(b'\\"', b"").count(b'"')
    else:
        quotes = body.count(b'"')
    if quotes == 2 * _texts(from_json(body, cache_strings="keys")):
        return
    errors = [
        FieldError(field=name if name.isidentifier() else "(not a name)", code="given_twice", remedy=REMEDY)
        for name in (problem.field for problem in repeated_members(body.decode()))
    ]
    if errors:
        raise Problem(INVALID, f"{errors[0].field}: {REMEDY}", errors=errors)


def _texts(value: Any) -> int:
    """Names and texts in a value. JSON of more than 200 levels was refused before."""
    kind = type(value)
    if kind is str:
        return 1
    if kind is dict:
        return len(value) + sum(map(_texts, value.values()))
    return sum(map(_texts, value)) if kind is list else 0
