"""What an agent may spend: said with each call that spends, and refused above it."""

from decimal import Decimal
from typing import Annotated

from pydantic import BeforeValidator, Field, WithJsonSchema

from app.api.fields import exact, no_float
from app.api.problems import INVALID, FieldError, Problem
from app.domain.credits import ACCOUNT_CREDITS_MAX

MaxCredits = Annotated[
    Decimal,
    BeforeValidator(no_float),
    Field(gt=0, le=ACCOUNT_CREDITS_MAX, decimal_places=6),
    WithJsonSchema({"type": ["integer", "string"], "examples": [500, "12.5"]}),
]
"""Credits."""


def refuse_above(max_credits: Decimal, estimate: Decimal) -> None:
    """Raises Problem where something may cost more than was allowed."""
    if estimate <= max_credits:
        return
    remedy = (
        f"the estimate is {exact(estimate)} credits, which is more than {exact(max_credits)}: ask for less, "
        "or let the person who pays allow more"
    )
    error = FieldError(field="max_credits", code="estimate_above", remedy=remedy)
    raise Problem(INVALID, f"max_credits: {remedy}", errors=[error])
