"""AI Mode answers (C-K.6)."""

import random
from typing import Any

from app.emulator.answers import blocks
from app.emulator.answers.phrases import BRANDS, TOPICS
from app.emulator.answers.template import Draft
from app.emulator.billing.pricing import PRODUCT_CLUSTERS_MAX
from app.emulator.data.editions import Edition

_SNAKE = {
    "shoppingCards": "shopping_cards",
    "inlineProducts": "inline_products",
    "placeId": "place_id",
    "productLink": "product_link",
    "oldPrice": "old_price",
    "snippetLinks": "snippet_links",
    "priceLevel": "price_level",
}
"""Names of AI Mode fields before the change to camelCase (row B31)."""


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, dict):
        return {names.get(key, key): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value


def generate(rng: random.Random, edition: Edition) -> Draft:
    """One AI Mode draft; product clusters are cut to the number the task returns."""
    text = blocks.paragraphs(rng, rng.randint(900, 3500))
    listed = blocks.sources(rng, rng.randint(10, 22))
    if edition.goto:
        for source in listed:
            source["redirectLink"] = blocks.redirect_link(rng, source["url"])
    pills = blocks.pills(rng, listed, rng.randint(3, 8))
    members: dict[str, Any] = {
        "sources": listed,
        "citationPills": pills,
        "places": [_place(rng, index) for index in range(rng.randint(0, 2))],
        "shoppingCards": [_shopping_card(rng, position) for position in range(1, rng.randint(2, 4))],
        "ads": {"title": "Sponsored", "ads": [_ai_ad(rng, 1)]},
        "inlineProducts": [_inline_product(rng, position) for position in (1, 2)],
        "videos": [_video(rng) for _ in range(rng.randint(0, 2))],
        "map": [_map_entry(rng, index) for index in range(rng.randint(0, 2))],
        "productResults": [_product_result(rng) for _ in range(PRODUCT_CLUSTERS_MAX)],
    }
    if edition.snake_case_aimode:
        members = _renamed(members, _SNAKE)
    return Draft(
        text=text,
        markdown=blocks.markdown(rng, text),
        members=members,
        needs={"productResults": "expandProducts"},
        counted=frozenset({"productResults"}),
    )


def _place(rng: random.Random, index: int) -> dict[str, Any]:
    return {
        "title": f"{rng.choice(BRANDS)} Store",
        "index": index,
        "thumbnail": blocks.url(rng, ".jpg"),
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": rng.randint(4, 5000),
        "type": "Shop",
        "address": f"{rng.randint(1, 400)} Castle Street",
        "status": "Open",
        "placeId": f"/g/{rng.getrandbits(40):010x}",
        "phone": "+1 555 0100",
        "website": blocks.url(rng),
        "link": blocks.url(rng),
        "priceLevel": "$$",
    }


def _map_entry(rng: random.Random, index: int) -> dict[str, Any]:
    entry = _place(rng, index)
    del entry["priceLevel"]
    entry["gpsCoordinates"] = {
        "latitude": round(rng.uniform(-60, 60), 5),
        "longitude": round(rng.uniform(-120, 120), 5),
    }
    return entry


def _shopping_card(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "title": f"{rng.choice(BRANDS)} {rng.randint(100, 999)}",
        "price": blocks.price(rng),
        "store": rng.choice(BRANDS),
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": f"{rng.randint(1, 9)}.{rng.randint(1, 9)}k",
        "thumbnail": blocks.url(rng, ".jpg"),
        "productLink": blocks.url(rng),
        "oldPrice": blocks.price(rng),
        "snippet": blocks.fill(rng, "Praised for {topic}."),
        "snippetLinks": [{"text": "Read more", "link": blocks.url(rng)}],
        "position": position,
    }


def _inline_product(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "title": f"{rng.choice(BRANDS)} {rng.randint(100, 999)}",
        "position": position,
        "price": blocks.price(rng, with_raw=False),
        "store": rng.choice(BRANDS),
        "thumbnail": blocks.url(rng, ".jpg"),
        "productLink": blocks.url(rng),
    }


def _ai_ad(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "title": blocks.fill(rng, "{brand}: {topic}"),
        "url": blocks.url(rng),
        "position": position,
        "price": f"${rng.randint(9, 900)}",
        "store": rng.choice(BRANDS),
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": f"{rng.randint(1, 900)}",
    }


def _video(rng: random.Random) -> dict[str, Any]:
    return {
        "title": blocks.fill(rng, "{brand}: {topic} tested"),
        "link": blocks.url(rng),
        "platform": "YouTube",
        "channel": rng.choice(BRANDS),
        "duration": f"{rng.randint(1, 20):02d}:{rng.randint(0, 59):02d}",
        "thumbnail": blocks.url(rng, ".jpg"),
    }


def _product_result(rng: random.Random) -> dict[str, Any]:
    amount = rng.randint(9, 900) + 0.99
    return {
        "title": f"{rng.choice(BRANDS)} {rng.randint(100, 999)}",
        "stores": [
            {
                "name": rng.choice(BRANDS),
                "link": blocks.url(rng),
                "price": {"value": amount, "currency": "USD"},
                "shipping": "Free delivery",
                "condition": "New",
                "rating": round(rng.uniform(3, 5), 1),
                "reviews": rng.randint(3, 900),
            }
        ],
        "aboutTheProduct": {
            "description": blocks.fill(rng, "{brand} with {topic}."),
            "features": [rng.choice(TOPICS)],
        },
        "specifications": {"General": {"Colour": "Black", "Weight": f"{rng.randint(1, 9)} kg"}},
        "images": [
            {"mainUrl": blocks.url(rng, ".jpg"), "thumbnailUrl": blocks.url(rng, ".jpg"), "title": "Front"}
        ],
        "rating": round(rng.uniform(3, 5), 1),
        "reviews": rng.randint(3, 900),
        "variants": [],
        "userReviews": [],
        "relatedProducts": [],
    }
