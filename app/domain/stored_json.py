"""Reading stored answers. Pure: may not do I/O, read a clock or log."""

import json
from decimal import Decimal
from typing import Any

DIGITS_MAX = 600
"""Below 640, the least to which Python can be set to bound what it turns into an int."""


def read_json(text: str | bytes) -> Any:
    """An answer as Python has it. A whole number of more digits than an int may be read from is a Decimal,
    as exact. Raises ValueError for what is no JSON, RecursionError for nesting without end."""
    return json.loads(text, parse_int=_whole)


def _whole(digits: str) -> int | Decimal:
    return int(digits) if len(digits) <= DIGITS_MAX else Decimal(digits)
