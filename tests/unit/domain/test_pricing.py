"""Price vectors C-E.3 and the counting rules C-E.2."""

from decimal import Decimal

import pytest

from app.domain.pricing import estimate, explained_extra, price_list

DAY = "2026-10-01"
PAID_FLAGS = ("rawResponse", "searchQueries", "ads", "shopping")
GOOGLE = "https://www.google.com/search?q=crm"


def include(*names: str) -> dict[str, object]:
    return {"include": dict.fromkeys(names, True)}


CASES: list[tuple[int, str, dict[str, object], int]] = [
    (1, "CHATGPT", {}, 5),
    (2, "CHATGPT", include("markdown", "html"), 5),
    (3, "CHATGPT", include("shopping"), 7),
    (4, "CHATGPT", include(*PAID_FLAGS), 7),
    (5, "CHATGPT", include("shopping") | {"state": "CA"}, 9),
    (6, "COPILOT", {}, 5),
    (7, "COPILOT", {"state": "NY"}, 7),
    (8, "GEMINI", {}, 4),
    (9, "GEMINI", include("rawResponse") | {"state": "TX"}, 6),
    (10, "PERPLEXITY", {}, 4),
    (11, "PERPLEXITY", {"state": "TX"}, 6),
    (12, "AIMODE", {}, 4),
    (13, "AIMODE", include("expandProducts"), 4),
    (14, "AIMODE", include("expandProducts"), 4),
    (15, "AIMODE", include("expandProducts"), 4),
    (16, "GROK", {}, 4),
    (17, "GOOGLE", {}, 3),
    (18, "GOOGLE", {"pages": 3}, 7),
    (19, "GOOGLE", {"pages": 3, "include": {"aioverview": {"markdown": True}}}, 9),
    (20, "GOOGLE", {"pages": 10, "include": {"aioverview": {}, "paaAioverview": True}}, 23),
    (21, "GOOGLE", {"url": f"{GOOGLE}&num=30"}, 7),
    (22, "GOOGLE", {"url": f"{GOOGLE}&num=95"}, 21),
    (23, "GOOGLE", {"url": f"{GOOGLE}&num=250"}, 21),
    (24, "GOOGLE", {"url": f"{GOOGLE}&num=5"}, 3),
    (24, "GOOGLE", {"url": GOOGLE}, 3),
    (25, "GOOGLE_NEWS", {}, 3),
    (26, "GOOGLE_NEWS", {"pages": 2}, 5),
    (27, "GOOGLE_NEWS", {"pages": 10}, 21),
]


@pytest.mark.parametrize(("number", "task_type", "options", "credits"), CASES)
def test_the_cost_cases_of_the_contract(
    number: int, task_type: str, options: dict[str, object], credits: int
) -> None:
    assert estimate(task_type, {"prompt": "x", "country": "US"} | options, DAY) == credits


@pytest.mark.parametrize(("clusters", "charged"), [(0, 4), (3, 7), (6, 10), (9, 10)])
def test_each_product_cluster_returned_costs_one_more(clusters: int, charged: int) -> None:
    payload = {"prompt": "x", "country": "US", **include("expandProducts")}
    extra = explained_extra("AIMODE", payload, {"productResults": [{}] * clusters})
    assert estimate("AIMODE", payload, DAY) + extra == charged


@pytest.mark.parametrize(
    ("task_type", "payload", "response"),
    [
        ("AIMODE", {}, {"productResults": [{}]}),
        ("AIMODE", include("expandProducts"), None),
        ("AIMODE", include("expandProducts"), {}),
        ("AIMODE", include("expandProducts"), {"productResults": None}),
        ("AIMODE", {"include": {"expandProducts": False}}, {"productResults": [{}]}),
        ("AIMODE", {"include": ["expandProducts"]}, {"productResults": [{}]}),
        ("GOOGLE", include("expandProducts"), {"productResults": [{}]}),
    ],
)
def test_nothing_else_is_explained(
    task_type: str, payload: dict[str, object], response: dict[str, object] | None
) -> None:
    assert explained_extra(task_type, payload, response) == 0


@pytest.mark.parametrize(
    ("options", "credits"),
    [
        ({"include": {"aioverview": True}}, 5),
        ({"include": {"aioverview": False}}, 3),
        ({"include": {"paaAioverview": False}}, 3),
        ({"include": {"paaAioverview": True}}, 5),
        ({"url": f"{GOOGLE}#num=100"}, 3),
        ({"url": f"{GOOGLE}&num=-20"}, 3),
        ({"url": f"{GOOGLE}&num=ten"}, 3),
        ({"url": f"{GOOGLE}&num=0"}, 3),
        ({"url": f"{GOOGLE}&num=11"}, 5),
        ({"url": f"{GOOGLE}&num=99999999999999999999"}, 21),
        ({"pages": "3"}, 3),
        ({"pages": True}, 3),
    ],
)
def test_google_counts(options: dict[str, object], credits: int) -> None:
    assert estimate("GOOGLE", {"query": "x", "country": "US"} | options, DAY) == credits


def test_a_flag_that_is_false_costs_nothing() -> None:
    for flag in PAID_FLAGS:
        assert estimate("CHATGPT", {"include": {flag: False}}, DAY) == 5


def test_prices_are_those_of_their_day() -> None:
    assert estimate("PERPLEXITY", {}, "2026-08-24") == 3
    assert estimate("PERPLEXITY", {}, "2026-08-25") == 4
    assert price_list("2019-01-01").since == "2025-01-01"


def test_an_estimate_is_exact() -> None:
    assert isinstance(estimate("CHATGPT", {}, DAY), Decimal)
