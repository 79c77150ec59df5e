"""Plans and price lists as dated data (C-F), and what a request costs (C-E.1 to C-E.3). Nothing here knows
balances."""

from collections.abc import Mapping
from importlib import resources
from typing import Any, Literal

import msgspec

from app.emulator.checks.validation import is_outside_us
from app.emulator.data.google_url import pages_of_url

PRODUCT_CLUSTERS_MAX = 6


class PriceList(msgspec.Struct, frozen=True):
    """One edition's prices, in credits."""

    as_of: str
    base: dict[str, int]
    sync_surcharge: int
    state: int
    extra_page: int
    chatgpt_flags: frozenset[str]
    chatgpt_flags_flat: int
    ai_overview: int
    ai_overview_each: bool
    """Whether the AI Overview and the hydrated "People also ask" box are billed one by one (C-B row B38)."""
    product_cluster: int


class _PriceFile(msgspec.Struct, frozen=True):
    lists: dict[str, PriceList]


PRICE_LISTS = msgspec.json.decode(
    resources.files("app.emulator").joinpath("data", "prices.json").read_bytes(), type=_PriceFile
).lists


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


_PLAN_FILE = msgspec.json.decode(
    resources.files("app.emulator").joinpath("data", "plans.json").read_bytes(), type=_PlanFile
)
PLANS = {plan.name: plan for plan in _PLAN_FILE.plans}


def estimate(prices: PriceList, task_type: str, payload: Mapping[str, Any]) -> int:
    """`creditsToCharge`: base plus add-ons known at submission (C-E.2). The payload has been validated."""
    credits = prices.base[task_type]
    # Elsewhere it was refused, or ignored.
    if payload.get("state") is not None and not is_outside_us(payload):
        credits += prices.state
    if task_type in ("GOOGLE", "GOOGLE_NEWS"):
        credits += prices.extra_page * (pages(payload) - 1)
    include = payload.get("include")
    if include:
        credits += _add_ons(prices, task_type, include)
    return credits


def clusters_price(prices: PriceList, clusters: int) -> int:
    """What AI Mode's returned product clusters add; never part of the estimate (C-E.2)."""
    return prices.product_cluster * min(clusters, PRODUCT_CLUSTERS_MAX)


def pages(payload: Mapping[str, Any]) -> int:
    """Result pages requested, by field or by the `num` of a Google URL (C-E.2)."""
    url = payload.get("url")
    if url is not None:
        return pages_of_url(url)
    return int(payload.get("pages") or 1)


def _add_ons(prices: PriceList, task_type: str, include: Mapping[str, Any]) -> int:
    if task_type == "CHATGPT":
        paid = any(include.get(flag) is True for flag in prices.chatgpt_flags)
        return prices.chatgpt_flags_flat if paid else 0
    if task_type == "GOOGLE":
        # Present counts, even as {}; a literal false does not (C-L row L36).
        overview = include.get("aioverview", False) is not False
        boxes = int(overview) + int(include.get("paaAioverview") is True)
        return prices.ai_overview * (boxes if prices.ai_overview_each else min(boxes, 1))
    return 0
