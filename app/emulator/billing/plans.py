"""The plan table, as dated data (C-F)."""

from importlib import resources
from typing import Literal

import msgspec


class Plan(msgspec.Struct, frozen=True):
    """One row of the price page; credits are per billing cycle."""

    name: str
    usd: int
    credits: int
    concurrency: int
    kind: Literal["free", "public", "self_serve", "contract"]


class _PlanFile(msgspec.Struct, frozen=True):
    as_of: str
    plans: list[Plan]


_FILE = msgspec.json.decode(
    resources.files("app.emulator").joinpath("data", "plans.json").read_bytes(), type=_PlanFile
)
PLANS = {plan.name: plan for plan in _FILE.plans}
