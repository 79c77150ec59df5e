"""Gemini answers (C-K.2)."""

import random
from typing import Any

from app.emulator.answers import blocks
from app.emulator.answers.phrases import BRANDS
from app.emulator.answers.template import Draft
from app.emulator.data.editions import Edition


def generate(rng: random.Random, edition: Edition) -> Draft:
    """One draft; every pill has a position here, and older sources a confidence level."""
    text = blocks.paragraphs(rng, rng.randint(900, 4000))
    listed = blocks.sources(rng, rng.randint(10, 25))
    if edition.html != "cdn":
        for source in listed:
            source["confidence_level"] = rng.randint(50, 99)
    members: dict[str, Any] = {
        "sources": listed,
        "citationPills": blocks.pills(rng, listed, rng.randint(4, 12), always_position=True),
        "places": [_place(rng, index) for index in range(rng.randint(0, 3))],
        "shoppingCards": [_card(rng, position) for position in range(1, rng.randint(2, 5))],
        "rawResponse": [{"chunk": index, "text": part} for index, part in enumerate(text)],
    }
    return Draft(
        text=text, markdown=blocks.markdown(rng, text), members=members, needs={"rawResponse": "rawResponse"}
    )


def _place(rng: random.Random, index: int) -> dict[str, Any]:
    return {
        "index": index,
        "title": f"{rng.choice(BRANDS)} Store",
        "link": blocks.url(rng),
        "thumbnail": blocks.url(rng, ".jpg"),
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": rng.randint(4, 5000),
        "type": "Shop",
        "description": blocks.fill(rng, "Known for {topic}."),
        "price": f"${rng.randint(10, 900)}",
    }


def _card(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "position": position,
        "title": f"{rng.choice(BRANDS)} {rng.randint(100, 999)}",
        "productLink": blocks.url(rng),
        "productId": str(rng.randint(10**15, 10**16)),
        "price": blocks.price(rng),
        "store": rng.choice(BRANDS),
        "storeLink": blocks.url(rng),
        "storeCount": rng.randint(1, 12),
        "shipping": "Free delivery",
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": rng.randint(3, 9000),
        "brand": rng.choice(BRANDS),
        "description": blocks.fill(rng, "{brand} with focus on {topic}."),
        "thumbnail": blocks.url(rng, ".jpg"),
        "images": [blocks.url(rng, ".jpg")],
    }
