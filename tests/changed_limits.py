"""Limits as a test wants them."""

from typing import Any, TypeVar

from app.limits import Limits, NoticeLimits

AnyLimits = TypeVar("AnyLimits", Limits, NoticeLimits)


def changed(limits: AnyLimits, **changes: Any) -> AnyLimits:
    """The same with some others, out of bounds if need be; also those that are no settings."""
    kind = type(limits)
    fixed = {name: changes.pop(name) for name in list(changes) if name in kind.__class_vars__}
    assert changes.keys() <= kind.model_fields.keys(), f"no limit is called so: {sorted(changes)}"
    chosen = type(kind.__name__, (kind,), fixed) if fixed else kind
    return chosen.model_construct(**(limits.model_dump() | changes))
