"""Prices as arithmetic (vectors C-E.3), and which of several dated lists explains a figure."""

import datetime as dt
from decimal import Decimal
from typing import Any

import pytest

from app.domain.pricing import PRICE_LISTS, PriceList, estimate, sync_estimate
from app.domain.reconciliation import PriceChange, Priced, arithmetic, find_price_change, repriced_detail
from tests.unit.domain.test_pricing import CASES

DAY = "2026-10-01"
OLD, NEW = PRICE_LISTS
CHANGE_DAY = NEW.since


def at_ms(day: str, hour: int = 12) -> int:
    time = dt.datetime.fromisoformat(day).replace(hour=hour, tzinfo=dt.UTC)
    return round(time.timestamp() * 1000)


@pytest.mark.parametrize(
    ("task_type", "payload", "how", "line"),
    [
        ("CHATGPT", {}, {}, "CHATGPT 5 = 5"),
        ("CHATGPT", {"state": "CA", "include": {"ads": True}}, {}, "CHATGPT 5 + addons 2 + state 2 = 9"),
        (
            "GOOGLE",
            {"pages": 3, "include": {"aioverview": {}}},
            {"sync": True},
            "GOOGLE 3 + pages 4 + overview 2 + sync 2 = 11",
        ),
        ("AIMODE", {"include": {"expandProducts": True}}, {"clusters": 3}, "AIMODE 4 + clusters 3 = 7"),
        (
            "AIMODE",
            {"include": {"expandProducts": True}},
            {"clusters": 6, "sync": True},
            "AIMODE 4 + clusters 6 + sync 2 = 12",
        ),
        ("AIMODE", {}, {"clusters": 9}, "AIMODE 4 + clusters 6 = 10"),
        ("PERPLEXITY", {"state": "TX"}, {}, "PERPLEXITY 4 + state 2 = 6"),
    ],
)
def test_a_price_as_one_line(task_type: str, payload: dict[str, Any], how: dict[str, Any], line: str) -> None:
    found = arithmetic(task_type, payload, DAY, **how)
    assert str(found) == line
    assert found.total == sum(part.credits for part in found.lines)
    assert isinstance(found.total, Decimal)


@pytest.mark.parametrize(("number", "task_type", "options", "credits"), CASES)
def test_the_arithmetic_is_the_estimate(
    number: int, task_type: str, options: dict[str, object], credits: int
) -> None:
    payload = {"prompt": "x", "country": "US"} | options
    assert arithmetic(task_type, payload, DAY).total == credits == estimate(task_type, payload, DAY)
    assert arithmetic(task_type, payload, DAY, sync=True).total == sync_estimate(task_type, payload, DAY)


def test_arithmetic_is_by_the_list_of_its_day() -> None:
    assert (arithmetic("PERPLEXITY", {}, "2026-08-24").total, arithmetic("PERPLEXITY", {}, DAY).total) == (
        3,
        4,
    )
    assert arithmetic("PERPLEXITY", {}, CHANGE_DAY).since == CHANGE_DAY


def test_an_organization_may_have_prices_of_its_own() -> None:
    ours = [prices.with_overrides({"CHATGPT": 4}) for prices in PRICE_LISTS]
    assert str(arithmetic("CHATGPT", {"state": "CA"}, DAY, lists=ours)) == "CHATGPT 4 + state 2 = 6"
    assert arithmetic("GEMINI", {}, DAY, lists=ours) == arithmetic("GEMINI", {}, DAY)


def change(
    promised: int,
    charged: int,
    made: int,
    reported: int,
    *,
    priced: Priced | None = None,
    lists: tuple[PriceList, ...] = PRICE_LISTS,
) -> PriceChange | None:
    return find_price_change(
        priced or Priced("PERPLEXITY", {}),
        promised=Decimal(promised),
        charged=Decimal(charged),
        made_ms=made,
        charged_ms=reported,
        lists=lists,
    )


BEFORE, ON, AFTER = at_ms("2026-08-20"), at_ms(CHANGE_DAY, 1), at_ms("2026-08-26")


@pytest.mark.parametrize(
    ("promised", "charged", "made", "reported", "explained"),
    [
        (3, 4, BEFORE, AFTER, True),
        (3, 4, BEFORE, ON, True),
        (3, 4, ON, AFTER, True),  # the list came into force at some hour of that day
        (3, 4, ON, ON, True),
        (3, 4, AFTER, AFTER, False),  # the old list was over
        (3, 4, BEFORE, at_ms("2026-08-24", 23), False),  # the new one had not begun
        (4, 3, BEFORE, AFTER, False),  # prices do not change backwards
        (3, 5, BEFORE, AFTER, False),
        (5, 4, BEFORE, AFTER, False),  # what was promised was no price
        (3, 3, BEFORE, AFTER, False),
    ],
)
def test_a_price_change_needs_both_lists_in_their_time(
    promised: int, charged: int, made: int, reported: int, explained: bool
) -> None:
    found = change(promised, charged, made, reported)
    assert (found is not None) is explained


def test_a_price_change_names_both_sums() -> None:
    found = change(3, 4, BEFORE, AFTER)
    assert str(found) == f"PERPLEXITY 3 = 3 before {CHANGE_DAY}, PERPLEXITY 4 = 4 since then"


def test_clusters_and_surcharge_are_part_of_a_changed_price() -> None:
    dearer = PriceList("2026-08-25", {**NEW.base, "AIMODE": 6})
    clusters = Priced("AIMODE", {"include": {"expandProducts": True}}, clusters=3)
    found = change(4, 9, BEFORE, AFTER, priced=clusters, lists=(OLD, dearer))
    assert found is not None
    assert str(found.charged) == "AIMODE 6 + clusters 3 = 9"
    assert change(4, 9, BEFORE, AFTER, priced=Priced("AIMODE", {}), lists=(OLD, dearer)) is None
    called = Priced("PERPLEXITY", {}, sync=True)
    assert change(5, 6, BEFORE, AFTER, priced=called) is not None
    assert change(3, 4, BEFORE, AFTER, priced=called) is None


def test_several_changes_may_lie_in_between() -> None:
    lists = (OLD, NEW, PriceList("2026-09-10", {**NEW.base, "PERPLEXITY": 6}))
    assert change(3, 6, BEFORE, at_ms("2026-09-10"), lists=lists) is not None
    assert change(3, 6, BEFORE, AFTER, lists=lists) is None
    assert change(3, 4, BEFORE, at_ms("2026-10-01"), lists=lists) is not None


def test_an_engine_that_a_list_does_not_know_is_not_explained() -> None:
    assert change(3, 4, BEFORE, AFTER, priced=Priced("NEWCOMER", {})) is None


@pytest.mark.parametrize(
    ("estimated", "to_charge", "detail"),
    [
        (3, 4, "creditsToCharge is the price since 2026-08-25: PERPLEXITY 4 = 4; estimated 3"),
        (4, 3, "creditsToCharge is the price since 2025-01-01: PERPLEXITY 3 = 3; estimated 4"),
        (4, 9, "creditsToCharge 9 is no price of any list; estimated 4"),
    ],
)
def test_a_repriced_task_names_its_list(estimated: int, to_charge: int, detail: str) -> None:
    found = repriced_detail("PERPLEXITY", {}, estimate=Decimal(estimated), to_charge=Decimal(to_charge))
    assert found == detail
    unknown = repriced_detail("NEWCOMER", {}, estimate=Decimal(estimated), to_charge=Decimal(to_charge))
    assert unknown.startswith(f"creditsToCharge {to_charge} is no price")
