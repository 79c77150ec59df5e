"""Google Search and Google News answers (C-K.7, C-K.8)."""

import random
from typing import Any

from app.emulator.answers import blocks
from app.emulator.answers.phrases import BRANDS, QUERY_MARK, QUESTIONS, TOPICS
from app.emulator.answers.template import Draft
from app.emulator.data.editions import Edition

OVERVIEW_MARKDOWN = "aioverview.markdown"
"""Stands for include.aioverview.markdown, which lies one level deeper than the other flags."""


def generate_search(rng: random.Random, edition: Edition) -> Draft:
    """One results page set: 8 to 10 organic results per page, boxes on the first (C-K.7)."""
    questions = [_question(rng, hydrated=False) for _ in range(4)]
    overview = _overview(rng)
    plain = {name: value for name, value in overview.items() if name != "markdown"}
    members: dict[str, Any] = {
        "organicResults": [_page(rng, page, edition) for page in range(1, edition.pages_max + 1)],
        "peopleAlsoAsk": questions,
        "relatedSearches": [
            {"query": (query := f"{QUERY_MARK} {rng.choice(TOPICS)}"), "link": f"/search?q={query}"}
            for _ in range(8)
        ],
        "ads": [_search_ad(rng, position) for position in range(1, rng.randint(2, 4))],
        "aioverview": plain,
        "shoppingCards": [_result_card(rng, position) for position in range(1, rng.randint(2, 6))],
        "localResults": [_local_result(rng, position) for position in range(1, 4)],
        "localResultsMoreLink": blocks.url(rng),
        "peopleAreSaying": [
            {
                "position": 1,
                "title": blocks.fill(rng, "{brand} or {other}?"),
                "link": blocks.url(rng),
                "date": "2d ago",
            }
        ],
        "knowledgeGraph": _knowledge_graph(rng),
    }
    return Draft(
        text=[],
        members=members,
        needs={"aioverview": "aioverview"},
        counted=frozenset({"organicResults"}),
        chosen={
            "peopleAlsoAsk": ("paaAioverview", [_question(rng, hydrated=True) for _ in range(4)]),
            "aioverview": (OVERVIEW_MARKDOWN, overview),
        },
    )


def _page(rng: random.Random, page: int, edition: Edition) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for offset in range(1, rng.randint(8, 10) + 1):
        link = blocks.url(rng)
        result: dict[str, Any] = {
            "position": (page - 1) * 10 + offset,
            "title": blocks.fill(rng, QUERY_MARK + ": {brand} and {other} compared"),
            "link": link,
            "displayedLink": link.removeprefix("https://").replace("/", " › "),
            "snippet": blocks.paragraphs(rng, 200)[0],
            "page": page,
        }
        if edition.goto:
            result["redirectLink"] = blocks.redirect_link(rng, link)
        if offset == 1:
            result["sitelinks"] = {"inline": [{"title": rng.choice(TOPICS), "link": blocks.url(rng)}]}
        results.append(result)
    return results


def _question(rng: random.Random, *, hydrated: bool) -> dict[str, Any]:
    question = blocks.fill(rng, rng.choice(QUESTIONS))
    if hydrated:
        listed = blocks.sources(rng, 3)
        text = "\n\n".join(blocks.paragraphs(rng, 200))
        return {"question": question, "type": "AIOVERVIEW", "markdown": text, "sources": listed}
    return {
        "question": question,
        "type": "LINK",
        "snippet": blocks.paragraphs(rng, 200)[0],
        "title": blocks.fill(rng, "{brand} and {topic}"),
        "link": blocks.url(rng),
    }


def _overview(rng: random.Random) -> dict[str, Any]:
    listed = blocks.sources(rng, rng.randint(4, 8))
    parts = blocks.paragraphs(rng, 900)
    return {
        "text": "\n\n".join(parts),
        "markdown": blocks.markdown(rng, parts),
        "sources": listed,
        "citationPills": blocks.pills(rng, listed, 3),
        "videos": [],
    }


def _search_ad(rng: random.Random, position: int) -> dict[str, Any]:
    link = blocks.url(rng)
    return {
        "position": position,
        "blockPosition": "top",
        "type": "RESULT",
        "title": blocks.fill(rng, "{brand}: {topic}"),
        "url": link,
        "page": 1,
        "displayedUrl": link,
        "domain": link.split("/")[2],
        "description": blocks.fill(rng, "{brand}. Save on {topic} today."),
    }


def _result_card(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "title": f"{rng.choice(BRANDS)} {rng.randint(100, 999)}",
        "position": position,
        "category": "Popular products",
        "price": blocks.price(rng),
        "store": rng.choice(BRANDS),
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": f"{rng.randint(1, 26)}K",
        "thumbnail": blocks.url(rng, ".jpg"),
    }


def _local_result(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "title": f"{rng.choice(BRANDS)} Store",
        "placeId": f"{rng.getrandbits(60)}",
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": f"{rng.randint(1, 26)}K",
        "price": "$$",
        "type": "Shop",
        "yearsInBusiness": f"{rng.randint(2, 40)}+ years in business",
        "address": f"{rng.randint(1, 400)} Bridge Street",
        "phone": "+1 555 0100",
        "hours": "Open, closes 6 PM",
        "description": blocks.fill(rng, "Known for {topic}."),
        "links": {"website": blocks.url(rng), "directions": blocks.url(rng)},
    }


def _knowledge_graph(rng: random.Random) -> dict[str, Any]:
    brand = rng.choice(BRANDS)
    return {
        "title": brand,
        "type": "Company",
        "kgmid": f"/m/{rng.getrandbits(30):08x}",
        "description": blocks.fill(rng, "{brand} is an invented company known for {topic}."),
        "website": blocks.url(rng),
        "source": {"name": "Encyclopedia", "link": blocks.url(rng)},
        "attributes": [{"key": "Founded", "value": str(rng.randint(1900, 2020))}],
    }


def generate_news(rng: random.Random, edition: Edition) -> Draft:
    """News pages of ten results (C-K.8)."""
    members: dict[str, Any] = {
        "newsResults": [_news_page(rng, page, edition) for page in range(1, edition.pages_max + 1)]
    }
    return Draft(text=[], members=members, counted=frozenset({"newsResults"}))


def _news_page(rng: random.Random, page: int, edition: Edition) -> list[dict[str, Any]]:
    results: list[dict[str, Any]] = []
    for offset in range(1, 11):
        link = blocks.url(rng)
        result: dict[str, Any] = {
            "position": (page - 1) * 10 + offset,
            "title": blocks.fill(rng, QUERY_MARK + ": what {brand} and {other} announced"),
            "link": link,
            "snippet": " ".join(blocks.paragraphs(rng, 500)),
            "source": rng.choice(BRANDS),
            "date": f"{rng.randint(1, 23)} hours ago",
            "page": page,
            "thumbnail": blocks.url(rng, ".jpg"),
        }
        if edition.goto:
            result["redirectLink"] = blocks.redirect_link(rng, link)
        results.append(result)
    return results
