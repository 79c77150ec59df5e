"""C-K.1 to C-K.9: the shape, size and variety of answers, and that they depend on the seed alone."""

import json
import re
from typing import Any

import pytest

from app.emulator.answers import Answers
from app.emulator.checks.task_body import TASK_TYPES
from app.emulator.data.editions import EDITIONS
from app.emulator.data.engine_table import ENGINES

NEW, OLD = EDITIONS["2026"], EDITIONS["2025"]
LINK = "b27a21e1-7c39-4aa2-a347-23e828c426f9"


def answer(task_type: str, number: int = 1, edition: Any = NEW, seed: int = 0, **payload: Any) -> Any:
    subject = ENGINES[task_type].subject
    raw = Answers(seed).compose(
        task_type, edition, {subject: "Best shoes?", "country": "US"} | payload, number, LINK
    )
    return json.loads(raw)


def full(task_type: str, edition: Any = NEW, **payload: Any) -> Any:
    """The first answer that is not a refusal."""
    for number in range(1, 50):
        found = answer(task_type, number, edition, **payload)
        if found.get("sources", True):
            return found
    raise AssertionError("fifty refusals in a row")


@pytest.mark.parametrize(
    ("task_type", "keys"),
    [
        ("CHATGPT", ["model", "text", "sources", "entities", "map", "citationPills"]),
        ("GEMINI", ["text", "sources", "citationPills", "places", "shoppingCards"]),
        ("COPILOT", ["text", "sources", "citationPills", "shoppingCards", "map", "searchQueries"]),
        ("GROK", ["model", "text", "sources", "searchQueries"]),
        (
            "PERPLEXITY",
            [
                "text",
                "sources",
                "citationPills",
                "related_queries",
                "search_model_queries",
                "videos",
                "images",
                "hotels",
                "places",
                "shopping_cards",
            ],
        ),
        (
            "AIMODE",
            [
                "text",
                "sources",
                "citationPills",
                "places",
                "shoppingCards",
                "ads",
                "inlineProducts",
                "videos",
                "map",
            ],
        ),
        (
            "GOOGLE",
            [
                "organicResults",
                "peopleAlsoAsk",
                "relatedSearches",
                "ads",
                "shoppingCards",
                "localResults",
                "localResultsMoreLink",
                "peopleAreSaying",
                "knowledgeGraph",
            ],
        ),
        ("GOOGLE_NEWS", ["newsResults"]),
    ],
)
def test_k_keys_of_a_plain_answer(task_type: str, keys: list[str]) -> None:
    assert list(full(task_type)) == keys


@pytest.mark.parametrize(
    ("task_type", "flag", "keys"),
    [
        ("CHATGPT", "markdown", {"markdown"}),
        ("CHATGPT", "html", {"html"}),
        ("CHATGPT", "rawResponse", {"rawResponse"}),
        ("CHATGPT", "searchQueries", {"searchQueries", "mapSearchQueries"}),
        ("CHATGPT", "shopping", {"shoppingCards", "inlineProducts"}),
        ("CHATGPT", "ads", {"ads"}),
        ("GEMINI", "rawResponse", {"rawResponse"}),
        ("COPILOT", "markdown", {"markdown"}),
        ("PERPLEXITY", "rawResponse", {"rawResponse"}),
        ("AIMODE", "expandProducts", {"productResults"}),
        ("GOOGLE", "aioverview", {"aioverview"}),
        ("GOOGLE_NEWS", "html", {"html"}),
    ],
)
def test_k_keys_on_request(task_type: str, flag: str, keys: set[str]) -> None:
    assert set(full(task_type, include={flag: True})) - set(full(task_type)) == keys
    assert set(full(task_type, include={flag: False})) == set(full(task_type))


@pytest.mark.parametrize("task_type", ["CHATGPT", "GEMINI", "COPILOT", "PERPLEXITY", "AIMODE"])
def test_k0_sources_and_pills(task_type: str) -> None:
    for number in range(1, 40):
        found = answer(task_type, number)
        sources = found["sources"]
        assert [source["position"] for source in sources] == list(range(1, len(sources) + 1))
        pills = found.get("citationPills", [])
        positions = {source["position"]: source["url"] for source in sources}
        for pill in pills:
            assert pill["url"] == positions.get(pill.get("position", 0), pill["url"])
        if pills:
            assert min(pill["citationPillId"] for pill in pills) == (0 if task_type == "CHATGPT" else 1)
        if task_type == "GEMINI":
            assert all("position" in pill for pill in pills)


def test_k1_web_search_off() -> None:
    """Sources empty, pills and queries left out; also in answers that are no refusals."""
    for number in range(1, 10):
        found = answer("CHATGPT", number, disableWebSearch=True, include={"searchQueries": True})
        assert found["sources"] == []
        assert not {"citationPills", "searchQueries"} & set(found)


def test_k1_one_rendered_ad_at_most() -> None:
    ads = full("CHATGPT", include={"ads": True})["ads"]
    assert sum(ad["rendered"] for ad in ads) <= 1


def test_k6_product_clusters() -> None:
    counts = {
        len(answer("AIMODE", n, include={"expandProducts": True}).get("productResults", []))
        for n in range(99)
    }
    assert counts == set(range(7))


def test_k7_pages() -> None:
    for pages in (1, 3, 10):
        organic = answer("GOOGLE", 5, pages=pages)["organicResults"]
        assert {item["page"] for item in organic} == set(range(1, pages + 1))
        assert 8 * pages <= len(organic) <= 10 * pages
    assert len(answer("GOOGLE_NEWS", 5, pages=2)["newsResults"]) == 20


def test_k7_local_results_on_desktop_only() -> None:
    for device, shown in (("desktop", True), ("mobile", False), ("ios", False)):
        assert ("localResults" in answer("GOOGLE", device=device)) == shown


def test_k7_url_mode() -> None:
    url = "https://www.google.com/search?q=shoes&gl=us&num=30"
    raw = Answers(0).compose("GOOGLE", NEW, {"url": url}, 1, LINK)
    assert {item["page"] for item in json.loads(raw)["organicResults"]} == {1, 2, 3}


def test_k7_ai_overview() -> None:
    plain = answer("GOOGLE", include={"aioverview": {}})["aioverview"]
    assert "markdown" not in plain
    assert "markdown" in answer("GOOGLE", include={"aioverview": {"markdown": True}})["aioverview"]
    # Where Google shows none the request succeeds without the block.
    assert "aioverview" not in answer("GOOGLE", country="ET", include={"aioverview": {}})
    assert "aioverview" not in answer("GOOGLE", gl="et", include={"aioverview": {}})
    questions = answer("GOOGLE", include={"paaAioverview": True})["peopleAlsoAsk"]
    assert {question["type"] for question in questions} == {"AIOVERVIEW"}


def test_k9_sizes() -> None:
    """10 to 30 KB for most; refusals are short."""
    answers = Answers(0)
    sizes = []
    for task_type in TASK_TYPES:
        subject = ENGINES[task_type].subject
        for number in range(100):
            payload = {
                subject: "Best shoes?",
                "country": "US",
                "include": {"markdown": True} if subject == "prompt" else {},
            }
            sizes.append(len(answers.compose(task_type, NEW, payload, number, LINK)))
    sizes.sort()
    assert sizes[0] < 200
    assert 12_000 <= sizes[len(sizes) // 2] <= 20_000
    assert sizes[len(sizes) // 10] >= 4_000
    assert sizes[-1] <= 40_000


def test_k9_refusals() -> None:
    refused = [n for n in range(2000) if not answer("COPILOT", n)["sources"]]
    assert 0.01 <= len(refused) / 2000 <= 0.03
    assert set(answer("COPILOT", refused[0])) == {"text", "sources"}


@pytest.mark.parametrize("task_type", TASK_TYPES)
def test_answers_depend_on_seed_and_number_alone(task_type: str) -> None:
    one, two = Answers(7), Answers(7)
    payload = {ENGINES[task_type].subject: "Best shoes?", "country": "US"}
    numbers = range(1, 30)
    first = [one.compose(task_type, OLD, payload, n, LINK) for n in numbers]
    second = [two.compose(task_type, OLD, payload, n, LINK) for n in reversed(numbers)]
    assert first == second[::-1]
    assert len(set(first)) > 12  # news of one query come from 32 prepared pages
    assert first != [Answers(8).compose(task_type, OLD, payload, n, LINK) for n in numbers]


def test_answers_talk_about_the_prompt() -> None:
    assert answer("GOOGLE", query='a "b"')["organicResults"][0]["title"].startswith('a "b":')
    text = full("CHATGPT", prompt='Welches "CRM" \\ für uns?')["text"]
    assert 'Welches "CRM" \\ für uns?' in text


def test_html_links() -> None:
    assert (
        full("GEMINI", include={"html": True})["html"] == f"https://cdn.cloro.dev/results/{LINK}/page-1.html"
    )
    assert re.match(r"^https://storage\.cloro\.dev/", full("GEMINI", OLD, include={"html": True})["html"])
