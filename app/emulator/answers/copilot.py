"""Copilot and Grok answers (C-K.3, C-K.4)."""

import random
from typing import Any

from app.emulator.answers import blocks
from app.emulator.answers.phrases import BRANDS, TOPICS
from app.emulator.answers.template import Draft
from app.emulator.data.editions import Edition


def generate(rng: random.Random, edition: Edition) -> Draft:
    """One Copilot draft; its search queries are always included."""
    text = blocks.paragraphs(rng, rng.randint(900, 3500))
    listed = blocks.sources(rng, rng.randint(10, 22))
    members: dict[str, Any] = {
        "sources": listed,
        "citationPills": blocks.pills(rng, listed, rng.randint(4, 12)),
        "shoppingCards": [
            {
                "type": "shoppingProducts",
                "layout": "Carousel",
                "products": [_product(rng, position) for position in range(1, rng.randint(2, 4))],
            }
        ],
        "map": [_place(rng, position) for position in range(1, rng.randint(1, 3))],
        "searchQueries": [f"{rng.choice(BRANDS)} {rng.choice(TOPICS)}" for _ in range(3)],
        "rawResponse": [{"event": "appendText", "text": part} for part in text],
    }
    return Draft(
        text=text, markdown=blocks.markdown(rng, text), members=members, needs={"rawResponse": "rawResponse"}
    )


def _product(rng: random.Random, position: int) -> dict[str, Any]:
    amount = rng.randint(9, 900) + 0.99
    return {
        "product": {"id": str(rng.randint(10**9, 10**10)), "groupId": str(rng.randint(10**6, 10**7))},
        "position": position,
        "offerId": f"{rng.getrandbits(48):012x}",
        "url": blocks.url(rng),
        "name": f"{rng.choice(BRANDS)} {rng.randint(100, 999)}",
        "description": blocks.fill(rng, "{brand} with focus on {topic}."),
        "images": [{"title": "Front", "url": blocks.url(rng, ".jpg")}],
        "specifications": [{"displayName": "Colour", "values": ["Black", "Silver"]}],
        "tags": [rng.choice(TOPICS)],
        "price": {"amount": amount, "currency": "USD", "currencySymbol": "$"},
        "discountPrice": None,
        "seller": rng.choice(BRANDS),
        "sellerLogoUrl": blocks.url(rng, ".png"),
        "brandName": rng.choice(BRANDS),
        "rating": {"value": round(rng.uniform(3, 5), 1), "count": rng.randint(2, 800), "maxRating": 5},
        "canTrackPrice": True,
    }


def _place(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "name": f"{rng.choice(BRANDS)} Store",
        "position": position,
        "placeId": f"ChIJ{rng.getrandbits(64):016x}",
        "location": {
            "address": f"{rng.randint(1, 400)} Harbour Road",
            "latitude": round(rng.uniform(-60, 60), 5),
            "longitude": round(rng.uniform(-120, 120), 5),
        },
        "phoneNumber": "+1 555 0100",
        "url": blocks.url(rng),
        "reviews": [
            {
                "count": rng.randint(3, 900),
                "rating": 4.2,
                "providerName": "Maps",
                "providerIconUrl": None,
                "url": "",
            }
        ],
        "photos": [
            {"url": blocks.url(rng, ".jpg"), "altText": None, "providerName": None, "providerUrl": ""}
        ],
        "openState": "Open",
        "category": "Shop",
        "price": None,
        "layerLabel": "A",
    }


def generate_grok(rng: random.Random, edition: Edition) -> Draft:
    """One Grok draft: richer sources, no citation pills."""
    text = blocks.paragraphs(rng, rng.randint(900, 4000))
    listed = blocks.sources(rng, rng.randint(10, 25))
    for source in listed:
        source |= {
            "preview": blocks.fill(rng, "{brand} and {topic} at a glance."),
            "searchEngineText": blocks.fill(rng, "{brand}, {other}: {topic}, tested."),
            "siteName": source["url"].split("/")[2],
            "metadataTitle": source["label"],
            "creator": "",
            "image": blocks.url(rng, ".jpg"),
            "favicon": blocks.url(rng, ".ico"),
        }
    members: dict[str, Any] = {
        "sources": listed,
        "searchQueries": [f"{rng.choice(BRANDS)} {rng.choice(TOPICS)}" for _ in range(3)],
        "rawResponse": [{"token": part} for part in text],
    }
    return Draft(
        text=text, markdown=blocks.markdown(rng, text), members=members, needs={"rawResponse": "rawResponse"}
    )
