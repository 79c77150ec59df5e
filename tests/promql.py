"""The metrics that an expression of PromQL asks for."""

from typing import Any

import promql_parser

PARTS = ("lhs", "rhs", "expr", "args", "vector_selector", "param")


def metrics_in(expression: str) -> set[str]:
    """Names in all selectors. Raises ValueError for what does not parse."""
    found: set[str] = set()
    left: list[Any] = [promql_parser.parse(expression)]
    while left:
        node = left.pop()
        if isinstance(node, promql_parser.VectorSelector) and node.name:
            found.add(node.name)
        for part in PARTS:
            below = getattr(node, part, None)
            left += below if isinstance(below, list) else [below] if below is not None else []
    return found
