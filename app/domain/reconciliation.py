"""What a price is made of, and which of several dated price lists explains a figure (C-E.1 to C-E.5).

Pure functions over a task, its answer and price lists with dates. May not do I/O, read a clock or log.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal

from app.domain.credits import plain
from app.domain.pricing import CLUSTERS_MAX, PRICE_LISTS, Line, PriceList, parts, price_list, total


@dataclass(frozen=True, slots=True)
class Arithmetic:
    """A price and how it comes about, as data and, by `str`, as one plain line."""

    lines: tuple[Line, ...]
    """The base price, named by its task type, then each surcharge."""
    total: Decimal
    since: str
    """ISO day from which the price list behind it is in force."""

    def __str__(self) -> str:
        """`CHATGPT 5 + addons 2 + state 2 = 9`."""
        shown = " + ".join(f"{line.what} {plain(line.credits)}" for line in self.lines)
        return f"{shown} = {plain(self.total)}"


def arithmetic(
    task_type: str,
    payload: Mapping[str, object],
    day: str,
    *,
    sync: bool = False,
    clusters: int = 0,
    lists: Sequence[PriceList] = PRICE_LISTS,
) -> Arithmetic:
    """What a task costs at the prices of an ISO day, UTC (C-E.1, C-E.2; vectors C-E.3).

    `sync`: a call to `/v1/monitor`, which costs its surcharge once. `clusters`: product clusters that AI Mode
    returned; leave it 0 for `creditsToCharge`, which never counts them. `lists`: oldest first; an
    organization's own prices are lists made by `PriceList.with_overrides`.
    """
    return _arithmetic(task_type, payload, price_list(day, lists), sync=sync, clusters=clusters)


def _arithmetic(
    task_type: str, payload: Mapping[str, object], prices: PriceList, *, sync: bool, clusters: int
) -> Arithmetic:
    lines = parts(task_type, payload, prices)
    if clusters:
        lines.append(Line("clusters", Decimal(min(clusters, CLUSTERS_MAX))))
    if sync:
        lines.append(Line("sync", Decimal(prices.sync_surcharge)))
    return Arithmetic(tuple(lines), total(lines), prices.since)
