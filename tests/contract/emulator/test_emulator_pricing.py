"""C-E.1 to C-E.3: what things cost. One test case per row of the worked table, all three ways a price
shows."""

import pytest

from app.emulator.billing.pricing import PRICE_LISTS, clusters_price, estimate, pages

FLAGS = ("rawResponse", "searchQueries", "ads", "shopping")
GOOGLE = "https://www.google.com/search?q=shoes"

# number, task type, payload, clusters, creditsToCharge, sync charge, creditsCharged of the async task
E3 = [
    (1, "CHATGPT", {}, 0, 5, 7, 5),
    (2, "CHATGPT", {"include": {"markdown": True, "html": True}}, 0, 5, 7, 5),
    (3, "CHATGPT", {"include": {"shopping": True}}, 0, 7, 9, 7),
    (4, "CHATGPT", {"include": dict.fromkeys(FLAGS, True)}, 0, 7, 9, 7),
    (5, "CHATGPT", {"include": {"shopping": True}, "state": "CA"}, 0, 9, 11, 9),
    (6, "COPILOT", {}, 0, 5, 7, 5),
    (7, "COPILOT", {"state": "NY"}, 0, 7, 9, 7),
    (8, "GEMINI", {}, 0, 4, 6, 4),
    (9, "GEMINI", {"include": {"rawResponse": True}, "state": "TX"}, 0, 6, 8, 6),
    (10, "PERPLEXITY", {}, 0, 4, 6, 4),
    (11, "PERPLEXITY", {"state": "TX"}, 0, 6, 8, 6),
    (12, "AIMODE", {}, 0, 4, 6, 4),
    (13, "AIMODE", {"include": {"expandProducts": True}}, 0, 4, 6, 4),
    (14, "AIMODE", {"include": {"expandProducts": True}}, 3, 4, 9, 7),
    (15, "AIMODE", {"include": {"expandProducts": True}}, 6, 4, 12, 10),
    (16, "GROK", {}, 0, 4, 6, 4),
    (17, "GOOGLE", {}, 0, 3, 5, 3),
    (18, "GOOGLE", {"pages": 3}, 0, 7, 9, 7),
    (19, "GOOGLE", {"pages": 3, "include": {"aioverview": {}}}, 0, 9, 11, 9),
    (20, "GOOGLE", {"pages": 10, "include": {"aioverview": {}, "paaAioverview": True}}, 0, 23, 25, 23),
    (21, "GOOGLE", {"url": f"{GOOGLE}&num=30"}, 0, 7, 9, 7),
    (22, "GOOGLE", {"url": f"{GOOGLE}&num=95"}, 0, 21, 23, 21),
    (23, "GOOGLE", {"url": f"{GOOGLE}&num=250"}, 0, 21, 23, 21),
    (24, "GOOGLE", {"url": f"{GOOGLE}&num=5"}, 0, 3, 5, 3),
    (24, "GOOGLE", {"url": GOOGLE}, 0, 3, 5, 3),
    (25, "GOOGLE_NEWS", {}, 0, 3, 5, 3),
    (26, "GOOGLE_NEWS", {"pages": 2}, 0, 5, 7, 5),
    (27, "GOOGLE_NEWS", {"pages": 10}, 0, 21, 23, 21),
]


@pytest.mark.parametrize(
    ("row", "task_type", "payload", "clusters", "to_charge", "sync", "charged"),
    E3,
    ids=[f"row{r[0]}" for r in E3],
)
def test_e3(
    row: int,
    task_type: str,
    payload: dict[str, object],
    clusters: int,
    to_charge: int,
    sync: int,
    charged: int,
) -> None:
    prices = PRICE_LISTS["2026"]
    credits = estimate(prices, task_type, payload)
    returned = clusters_price(prices, clusters)
    assert (credits, credits + returned + prices.sync_surcharge, credits + returned) == (
        to_charge,
        sync,
        charged,
    )


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        (f"{GOOGLE}&num=10", 1),
        (f"{GOOGLE}&num=11", 2),
        (f"{GOOGLE}&num=0", 1),
        (f"{GOOGLE}&num=-20", 1),
        (f"{GOOGLE}&num=abc", 1),
        (f"{GOOGLE}#num=50", 1),
        (f"{GOOGLE}&num=2.5", 1),
        (f"{GOOGLE}&num=99999999999999999999", 10),
    ],
)
def test_e2_google_url_mode(url: str, expected: int) -> None:
    """Pages come from the query string's num, never from the fragment, within 1 to 10."""
    assert pages({"url": url}) == expected


def test_e2_chatgpt_add_on_is_flat() -> None:
    prices = PRICE_LISTS["2026"]
    for flag in FLAGS:
        assert estimate(prices, "CHATGPT", {"include": {flag: True}}) == 7
        assert estimate(prices, "CHATGPT", {"include": {flag: False}}) == 5


def test_e2_ai_overview_counts_by_key() -> None:
    """Present counts, even empty; a literal false does not (L36); both boxes together stay one add-on."""
    prices = PRICE_LISTS["2026"]
    assert estimate(prices, "GOOGLE", {"include": {"aioverview": {}}}) == 5
    assert estimate(prices, "GOOGLE", {"include": {"aioverview": True}}) == 5
    assert estimate(prices, "GOOGLE", {"include": {"aioverview": False}}) == 3
    assert estimate(prices, "GOOGLE", {"include": {"paaAioverview": True}}) == 5
    assert estimate(prices, "GOOGLE", {"include": {"paaAioverview": False}}) == 3
    assert estimate(prices, "GOOGLE", {"include": {"aioverview": {}, "paaAioverview": True}}) == 5


def test_e2_state() -> None:
    assert estimate(PRICE_LISTS["2026"], "PERPLEXITY", {"state": "TX"}) == 6


def test_e2_clusters_are_capped_at_six() -> None:
    assert clusters_price(PRICE_LISTS["2026"], 9) == 6


def test_e2_free_flags() -> None:
    """markdown and html are free everywhere, rawResponse everywhere but on ChatGPT."""
    prices = PRICE_LISTS["2026"]
    for task_type, base in prices.base.items():
        include = {"markdown": True, "html": True}
        if task_type != "CHATGPT":
            include["rawResponse"] = True
        assert estimate(prices, task_type, {"include": include}) == base
