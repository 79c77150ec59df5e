"""Perplexity answers (C-K.5); the mixed casing is the provider's."""

import random
from typing import Any

from app.emulator.answers import blocks
from app.emulator.answers.phrases import BRANDS, TOPICS
from app.emulator.answers.template import Draft
from app.emulator.data.editions import Edition


def generate(rng: random.Random, edition: Edition) -> Draft:
    """One draft; the fan-out queries are objects in older editions (row B32)."""
    text = blocks.paragraphs(rng, rng.randint(900, 3500))
    listed = blocks.sources(rng, rng.randint(8, 20))
    queries: list[Any] = [f"{rng.choice(BRANDS)} {rng.choice(TOPICS)}" for _ in range(3)]
    if edition.query_objects:
        queries = [{"query": query, "engine": "web", "limit": 10} for query in queries]
    members: dict[str, Any] = {
        "sources": listed,
        "citationPills": blocks.pills(rng, listed, rng.randint(3, 10)),
        "related_queries": [f"{rng.choice(BRANDS)} {rng.choice(TOPICS)} comparison" for _ in range(4)],
        "search_model_queries": queries,
        "videos": [_media(rng, "video") for _ in range(rng.randint(0, 3))],
        "images": [_media(rng, "image") for _ in range(rng.randint(1, 6))],
        "hotels": [_hotel(rng) for _ in range(rng.randint(0, 2))],
        "places": [_place(rng) for _ in range(rng.randint(0, 2))],
        "shopping_cards": [{"tags": [rng.choice(TOPICS)], "products": [_product(rng, 1), _product(rng, 2)]}],
        "rawResponse": [{"block": index, "answer": part} for index, part in enumerate(text)],
    }
    return Draft(
        text=text, markdown=blocks.markdown(rng, text), members=members, needs={"rawResponse": "rawResponse"}
    )


def _media(rng: random.Random, medium: str) -> dict[str, Any]:
    return {
        "title": blocks.fill(rng, "{brand} and {topic}"),
        "url": blocks.url(rng),
        "thumbnail": blocks.url(rng, ".jpg"),
        "medium": medium,
        "source": "web",
        "image_width": 1280,
        "image_height": 720,
        "thumbnail_width": 320,
        "thumbnail_height": 180,
    }


def _place(rng: random.Random) -> dict[str, Any]:
    return {
        "name": f"{rng.choice(BRANDS)} Store",
        "url": blocks.url(rng),
        "rating": round(rng.uniform(3, 5), 1),
        "address": [f"{rng.randint(1, 400)} Mill Lane", "Springfield"],
        "lat": round(rng.uniform(-60, 60), 5),
        "lng": round(rng.uniform(-120, 120), 5),
        "categories": ["Shop"],
        "map_url": blocks.url(rng),
        "images": [blocks.url(rng, ".jpg")],
    }


def _hotel(rng: random.Random) -> dict[str, Any]:
    return {
        "name": f"Hotel {rng.choice(BRANDS)}",
        "url": blocks.url(rng),
        "rating": round(rng.uniform(3, 5), 1),
        "num_reviews": rng.randint(5, 4000),
        "address": [f"{rng.randint(1, 400)} Station Road", "Springfield"],
        "phone": "+1 555 0100",
        "description": blocks.fill(rng, "A house known for {topic}."),
        "image_url": blocks.url(rng, ".jpg"),
        "images": [blocks.url(rng, ".jpg")],
        "lat": round(rng.uniform(-60, 60), 5),
        "lng": round(rng.uniform(-120, 120), 5),
        "price_level": "$$",
        "categories": ["Hotel"],
    }


def _product(rng: random.Random, position: int) -> dict[str, Any]:
    amount = f"${rng.randint(9, 900)}.00"
    name = f"{rng.choice(BRANDS)} {rng.randint(100, 999)}"
    return {
        "title": name,
        "id": str(rng.randint(10**9, 10**10)),
        "url": blocks.url(rng),
        "price": amount,
        "merchant": rng.choice(BRANDS),
        "available": True,
        "imageUrls": [blocks.url(rng, ".jpg")],
        "numReviews": rng.randint(2, 4000),
        "offers": [
            {
                "url": blocks.url(rng),
                "price": amount,
                "merchant_name": rng.choice(BRANDS),
                "product_name": name,
                "available": True,
                "price_details": {"display_price": amount},
                "original_price": None,
            }
        ],
        "position": position,
        "rating": round(rng.uniform(3, 5), 1),
        "original_price": None,
        "description": blocks.fill(rng, "{brand} with focus on {topic}."),
        "variants": [],
    }
