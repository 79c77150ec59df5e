"""What a price is made of, and which of several dated price lists explains a figure (C-E.1 to C-E.5).

Pure functions over a task, its answer and price lists with dates. May not do I/O, read a clock or log.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from itertools import pairwise

from app.domain.credits import to_json_number
from app.domain.pricing import PRICE_LISTS, Line, PriceList, extra_max, parts, price_list, total
from app.domain.time_format import iso_day


@dataclass(frozen=True, slots=True)
class Priced:
    """What a price depends on: the question, and how it was asked and answered."""

    task_type: str
    payload: Mapping[str, object]
    sync: bool = False
    clusters: int = 0


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
        shown = " + ".join(f"{line.what} {to_json_number(line.credits)}" for line in self.lines)
        return f"{shown} = {to_json_number(self.total)}"


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
    return _at(Priced(task_type, payload, sync, clusters), price_list(day, lists))


@dataclass(frozen=True, slots=True)
class PriceChange:
    """A price that was promised and one that was charged, each by a list that was in force in its time."""

    promised: Arithmetic
    charged: Arithmetic

    def __str__(self) -> str:
        """`PERPLEXITY 3 = 3 before 2026-08-25, PERPLEXITY 4 = 4 since then`."""
        return f"{self.promised} before {self.charged.since}, {self.charged} since then"


def find_price_change(
    priced: Priced,
    *,
    promised: Decimal,
    charged: Decimal,
    made_ms: int,
    charged_ms: int,
    lists: Sequence[PriceList] = PRICE_LISTS,
) -> PriceChange | None:
    """The two lists by which `charged` is right although `promised` was another figure (C-E.5); None if there
    are none. The clusters of `priced` belong to what was charged and were never promised.

    `made_ms`, `charged_ms`: UTC milliseconds between which the provider may have changed its prices. A list
    comes into force at some hour of its day, so on that day the one before may still be.
    """
    first, last = iso_day(made_ms), iso_day(charged_ms)
    question = Priced(priced.task_type, priced.payload, priced.sync)
    for before, after in _changes(lists, first, last):
        if priced.task_type not in before.base or priced.task_type not in after.base:
            continue
        if _at(question, before).total == promised and _at(priced, after).total == charged:
            return PriceChange(_at(question, before), _at(priced, after))
    return None


def repriced_detail(
    task_type: str,
    payload: Mapping[str, object],
    *,
    estimate: Decimal,
    to_charge: Decimal,
    lists: Sequence[PriceList] = PRICE_LISTS,
) -> str:
    """Why `creditsToCharge` is not our estimate, as one line: by which list it is right, if by any."""
    estimated = f"estimated {to_json_number(estimate)}"
    if task_type in lists[0].base:
        for prices in reversed(lists):
            found = _at(Priced(task_type, payload), prices)
            if found.total == to_charge:
                return f"creditsToCharge is the price since {prices.since}: {found}; {estimated}"
    return f"creditsToCharge {to_json_number(to_charge)} is no price of any list; {estimated}"


def _changes(lists: Sequence[PriceList], first: str, last: str) -> Iterator[tuple[PriceList, PriceList]]:
    """Every two lists, older and newer, that were in force between two days in this order."""
    ends = [after.since for _, after in pairwise(lists)]
    for i, before in enumerate(lists):
        for after in lists[i + 1 :]:
            if first <= ends[i] and after.since <= last:
                yield before, after


def _at(priced: Priced, prices: PriceList) -> Arithmetic:
    lines = parts(priced.task_type, priced.payload, prices)
    if priced.clusters:
        lines.append(Line("clusters", Decimal(min(priced.clusters, extra_max(priced.task_type)))))
    if priced.sync:
        lines.append(Line("sync", Decimal(prices.sync_surcharge)))
    return Arithmetic(tuple(lines), total(lines), prices.since)
