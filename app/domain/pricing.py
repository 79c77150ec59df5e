"""What a task should cost: the provider's price list as dated data, and the counting rules (C-E.1, C-E.2).

An estimate is ours. The provider's own `creditsToCharge` replaces it at acceptance; a difference between
the two is the verdict `repriced`. Which of two figures is right is not decided here: see `reconciliation`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

from app.domain.engines.table import ENGINES, EXTRA_BILLING, PAGES_MAX


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

    def with_overrides(self, base: Mapping[str, int]) -> "PriceList":
        """The same list with an organization's own prices for some task types (C-E.5, C-F)."""
        return replace(self, base={**self.base, **base})


class Line(NamedTuple):
    """One part of a price."""

    what: str
    """The task type for its base price, otherwise what the surcharge is for."""
    credits: Decimal


_BASE = {
    "CHATGPT": 5,
    "COPILOT": 5,
    "GEMINI": 4,
    "PERPLEXITY": 4,
    "AIMODE": 4,
    "GROK": 4,
    "GOOGLE": 3,
    "GOOGLE_NEWS": 3,
}

PRICE_LISTS = (
    PriceList(since="2025-01-01", base={**_BASE, "PERPLEXITY": 3}),
    PriceList(since="2026-08-25", base=_BASE),
)
"""Oldest first. COPILOT was 3 at some earlier, undated time (C-B35); no list is kept without a date."""


def price_list(day: str, lists: Sequence[PriceList] = PRICE_LISTS) -> PriceList:
    """The list in force on an ISO day; the oldest one for days before it."""
    current = lists[0]
    for candidate in lists:
        if candidate.since <= day:
            current = candidate
    return current


def parts(task_type: str, payload: Mapping[str, object], prices: PriceList) -> list[Line]:
    """What `creditsToCharge` of an async task is made of at these prices (C-E.2); its base price first."""
    raw_include = payload.get("include")
    include: Mapping[str, object] = raw_include if isinstance(raw_include, Mapping) else {}
    found = [Line(task_type, Decimal(prices.base[task_type]))]
    engine = ENGINES[task_type]
    if any(include.get(flag) is True for flag in engine.paid_include):
        found.append(Line("addons", Decimal(prices.chatgpt_addon)))
    if payload.get("state") is not None:
        found.append(Line("state", Decimal(prices.state_addon)))
    if engine.paged and (more := _pages(payload) - 1):
        found.append(Line("pages", Decimal(prices.page_addon * more)))
    if "aioverview" in engine.include and _wants_overview(include):
        found.append(Line("overview", Decimal(prices.overview_addon)))
    return found


def estimate(task_type: str, payload: Mapping[str, object], day: str) -> Decimal:
    """Credits that `creditsToCharge` should be for an async task accepted on `day` (C-E.2, vectors C-E.3)."""
    return total(parts(task_type, payload, price_list(day)))


def total(lines: Sequence[Line]) -> Decimal:
    """The sum of a price's parts."""
    return sum((line.credits for line in lines), Decimal(0))


def sync_estimate(task_type: str, payload: Mapping[str, object], day: str) -> Decimal:
    """The same for a sync call: once the surcharge on top, whatever else it costs (C-E.2)."""
    return estimate(task_type, payload, day) + price_list(day).sync_surcharge


def explained_extra(
    task_type: str, payload: Mapping[str, object], response: Mapping[str, object] | None
) -> Decimal:
    """Credits that the contract adds at completion only, such as one for each AI Mode product cluster
    returned when `expandProducts` was asked for, at most six (C-E.1, C-E.5)."""
    include, extra = payload.get("include"), EXTRA_BILLING.get(task_type)
    if extra is None or not isinstance(include, Mapping) or include.get(extra.asked_by) is not True:
        return Decimal(0)
    items = response.get(extra.counted) if response is not None else None
    return Decimal(min(len(items), extra.items_max)) if isinstance(items, list) else Decimal(0)


def extra_max(task_type: str) -> int:
    """The most that `explained_extra` can be for a task of this type."""
    extra = EXTRA_BILLING.get(task_type)
    return 0 if extra is None else extra.items_max


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
