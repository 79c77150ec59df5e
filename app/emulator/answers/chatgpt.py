"""ChatGPT answers (C-K.1)."""

import random
from typing import Any

from app.emulator.answers import blocks
from app.emulator.answers.phrases import BRANDS, TOPICS
from app.emulator.answers.template import Draft
from app.emulator.data.editions import Edition

_MONTHS = ("January", "March", "May", "June", "September", "November")


def generate(rng: random.Random, edition: Edition) -> Draft:
    """One draft; shopping data is part of every answer in editions where it was free (row B34)."""
    text = blocks.paragraphs(rng, rng.randint(900, 4000))
    listed = blocks.sources(rng, rng.randint(8, 25), "?utm_source=chatgpt.com")
    for source in listed:
        if rng.random() < 0.4:
            source["datePublished"] = f"{rng.choice(_MONTHS)} {rng.randint(1, 28)}, 2025"
        if rng.random() < 0.1:
            source["footnote"] = True
    pills = blocks.pills(rng, listed, rng.randint(4, 12), first_id=0)
    for pill in pills:
        pill["type"] = rng.choice(("searchResult", "groupedWebpage"))
    brands = rng.sample(BRANDS, 4)
    members: dict[str, Any] = {
        "sources": listed,
        "entities": [{"type": "product", "name": brand} for brand in brands],
        "map": [_place(rng, position) for position in range(1, rng.randint(1, 3))],
        "citationPills": pills,
        "searchQueries": [f"{brand} {rng.choice(TOPICS)} review" for brand in brands[:3]],
        "mapSearchQueries": [f"{brands[0]} near me"],
        "shoppingCards": [_card(rng) for _ in range(2)],
        "inlineProducts": [
            {"product": _product(rng, 1), "render_as": rng.choice(("inline", "hero", "block"))}
        ],
        "ads": [_ad(rng, index) for index in range(2)],
        "rawResponse": _stream(rng, text),
    }
    needs = {
        "searchQueries": "searchQueries",
        "mapSearchQueries": "searchQueries",
        "ads": "ads",
        "rawResponse": "rawResponse",
    }
    if not edition.shopping_always:
        needs |= {"shoppingCards": "shopping", "inlineProducts": "shopping"}
    return Draft(text=text, markdown=blocks.markdown(rng, text), members=members, needs=needs)


def _place(rng: random.Random, position: int) -> dict[str, Any]:
    return {
        "id": f"place-{rng.randint(10**6, 10**7)}",
        "provider": rng.choice(("yelp", "b1", "b3", "yelp-feed")),
        "name": f"{rng.choice(BRANDS)} Store",
        "position": position,
        "address": f"{rng.randint(1, 400)} Market Street",
        "latitude": round(rng.uniform(-60, 60), 5),
        "longitude": round(rng.uniform(-120, 120), 5),
        "categories": ["Electronics", "Retail"],
        "rating": round(rng.uniform(3, 5), 1),
        "reviewCount": rng.randint(5, 900),
        "description": blocks.fill(rng, "{brand} dealer known for {topic}."),
        "phone": "+1 555 0100",
        "websiteUrl": blocks.url(rng),
    }


def _offer(rng: random.Random, name: str, amount: str) -> dict[str, Any]:
    return {
        "merchant_name": rng.choice(BRANDS),
        "marketplace_seller": None,
        "seller_name": rng.choice(BRANDS),
        "brand": None,
        "product_name": name,
        "url": blocks.url(rng),
        "price": amount,
        "details": "In stock, free delivery",
        "available": True,
        "checkoutable": False,
        "price_details": {
            "base": amount,
            "total": amount,
            "shipping": "$0.00",
            "tax": None,
            "display_price": amount,
        },
        "tag": None,
    }


def _product(rng: random.Random, position: int) -> dict[str, Any]:
    amount = f"${rng.randint(9, 900)}.00"
    name = f"{rng.choice(BRANDS)} {rng.randint(100, 999)}"
    return {
        "title": name,
        "position": position,
        "url": blocks.url(rng, "?utm_source=chatgpt.com"),
        "description": blocks.fill(rng, "{brand} model with good {topic}."),
        "price": amount,
        "featured_tag": rng.choice(("Best overall", "Best value", "")),
        "merchant": rng.choice(BRANDS),
        "image_urls": [blocks.url(rng, ".jpg")],
        "rating": round(rng.uniform(3, 5), 1),
        "num_reviews": rng.randint(3, 4000),
        "id": str(rng.randint(10**12, 10**13)),
        "variants": [],
        "offers": [_offer(rng, name, amount)],
        "rating_grouped_citation": {"title": "Ratings", "url": blocks.url(rng), "supporting_websites": []},
    }


def _card(rng: random.Random) -> dict[str, Any]:
    return {"tags": [rng.choice(TOPICS)], "products": [_product(rng, position) for position in (1, 2)]}


def _ad(rng: random.Random, index: int) -> dict[str, Any]:
    brand = rng.choice(BRANDS)
    return {
        "brand": {"name": brand, "url": blocks.url(rng)},
        "cards": [
            {"title": f"{brand} sale", "body": blocks.fill(rng, "Save on {topic}."), "url": blocks.url(rng)}
        ],
        "visibility": "allowed" if index == 0 else "hidden",
        "adsResponseIndex": index,
        "rendered": index == 0,
    }


def _stream(rng: random.Random, text: list[str]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = [
        {"type": "resume_conversation_token", "token": f"{rng.getrandbits(64):016x}"},
        {"type": "message_start"},
    ]
    events.extend({"type": "message_delta", "delta": part} for part in text)
    events.append({"type": "message_stop"})
    return events
