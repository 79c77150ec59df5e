"""What a task should cost: the provider's price list as dated data, and the counting rules (C-E.1, C-E.2).

An estimate is ours. The provider's own `creditsToCharge` replaces it at acceptance; a difference between
the two is the verdict `repriced`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from urllib.parse import parse_qs, urlsplit


@dataclass(frozen=True, slots=True)
class PriceList:
    """Credits in force from a day on."""

    since: str
    """ISO date, UTC, inclusive."""
    base: Mapping[str, int]
    """Credits for one task of each type, async."""
    chatgpt_addon: int = 2
    state_addon: int = 2
    page_addon: int = 2
    overview_addon: int = 2
    sync_surcharge: int = 2


_BASE = {
    "CHATGPT": 5, "COPILOT": 5, "GEMINI": 4, "PERPLEXITY": 4, "AIMODE": 4, "GROK": 4, "GOOGLE": 3,
    "GOOGLE_NEWS": 3,
}  # fmt: skip

PRICE_LISTS = (
    PriceList(since="2025-01-01", base={**_BASE, "PERPLEXITY": 3}),
    PriceList(since="2026-08-25", base=_BASE),
)
"""Oldest first. COPILOT was 3 at some earlier, undated time (C-B35); no list is kept without a date."""

CHATGPT_PAID_FLAGS = frozenset({"rawResponse", "searchQueries", "ads", "shopping"})
PAGES_MAX = 10


def price_list(day: str) -> PriceList:
    """The list in force on an ISO day; the oldest one for days before it."""
    current = PRICE_LISTS[0]
    for candidate in PRICE_LISTS:
        if candidate.since <= day:
            current = candidate
    return current


def estimate(task_type: str, payload: Mapping[str, object], day: str) -> Decimal:
    """Credits that `creditsToCharge` should be for an async task accepted on `day` (C-E.2, vectors C-E.3)."""
    prices = price_list(day)
    raw_include = payload.get("include")
    include: Mapping[str, object] = raw_include if isinstance(raw_include, Mapping) else {}
    credits = prices.base[task_type]
    if payload.get("state") is not None:
        credits += prices.state_addon
    if task_type == "CHATGPT" and any(include.get(flag) is True for flag in CHATGPT_PAID_FLAGS):
        credits += prices.chatgpt_addon
    if task_type in ("GOOGLE", "GOOGLE_NEWS"):
        credits += prices.page_addon * (_pages(payload) - 1)
    if task_type == "GOOGLE" and _wants_overview(include):
        credits += prices.overview_addon
    return Decimal(credits)


def sync_estimate(task_type: str, payload: Mapping[str, object], day: str) -> Decimal:
    """The same for a sync call: once the surcharge on top, whatever else it costs (C-E.2)."""
    return estimate(task_type, payload, day) + price_list(day).sync_surcharge


def explained_extra(
    task_type: str, payload: Mapping[str, object], response: Mapping[str, object] | None
) -> Decimal:
    """Credits that the contract adds at completion only: one for each AI Mode product cluster returned,
    when `expandProducts` was asked for, at most six (C-E.1, C-E.5)."""
    include = payload.get("include")
    if task_type != "AIMODE" or not isinstance(include, Mapping) or include.get("expandProducts") is not True:
        return Decimal(0)
    clusters = response.get("productResults") if response is not None else None
    return Decimal(min(len(clusters), 6)) if isinstance(clusters, list) else Decimal(0)


def _wants_overview(include: Mapping[str, object]) -> bool:
    # The key counts, even as {}; a plain false does not (C-L36).
    overview = include.get("aioverview")
    return isinstance(overview, Mapping) or overview is True or include.get("paaAioverview") is True


def _pages(payload: Mapping[str, object]) -> int:
    url = payload.get("url")
    if isinstance(url, str):
        values = parse_qs(urlsplit(url).query).get("num", [])
        if not values or not (values[0].isascii() and values[0].isdigit()):
            return 1
        return min(max(-(-int(values[0][:9]) // 10), 1), PAGES_MAX)
    pages = payload.get("pages", 1)
    return pages if isinstance(pages, int) and not isinstance(pages, bool) else 1
