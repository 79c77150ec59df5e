"""Building blocks that several engines share (C-K.0): text, sources, citation pills, prices."""

import random
from typing import Any
from urllib.parse import quote

from app.emulator.answers.phrases import BRANDS, DESCRIPTIONS, SENTENCES, SITES, TOPICS


def fill(rng: random.Random, phrase: str) -> str:
    """A phrase with names and figures put in."""
    # One draw for all four: a template is a few hundred phrases, and 32 templates per engine are made while
    # tasks run.
    bits = rng.getrandbits(32)
    brand = bits % len(BRANDS)
    other = (brand + 1 + (bits >> 8) % (len(BRANDS) - 1)) % len(BRANDS)
    topic = TOPICS[(bits >> 16) % len(TOPICS)]
    return phrase.format(brand=BRANDS[brand], other=BRANDS[other], topic=topic, number=5 + (bits >> 24) % 91)


def paragraphs(rng: random.Random, characters: int) -> list[str]:
    """Running text of about so many characters."""
    result: list[str] = []
    size = 0
    while size < characters:
        paragraph = " ".join(fill(rng, rng.choice(SENTENCES)) for _ in range(rng.randint(3, 6)))
        result.append(paragraph)
        size += len(paragraph)
    return result


def markdown(rng: random.Random, parts: list[str]) -> str:
    """The same content with headings, emphasis and links (C-K.9)."""
    lines: list[str] = []
    for index, part in enumerate(parts):
        if index % 2 == 0:
            lines.append(f"## {rng.choice(TOPICS).capitalize()}")
        site, label = rng.choice(SITES)
        lines.append(f"{part} [{label}](https://{site}/{rng.randint(100, 999)})")
    return "\n\n".join(lines)


def url(rng: random.Random, tail: str = "") -> str:
    """An invented page."""
    bits = rng.getrandbits(32)
    site, _ = SITES[bits % len(SITES)]
    slug = f"{TOPICS[(bits >> 8) % len(TOPICS)]}-{TOPICS[(bits >> 12) % len(TOPICS)]}".replace(" ", "-")
    return f"https://www.{site}/{slug}/{bits >> 15}{tail}"


def sources(rng: random.Random, count: int, tail: str = "") -> list[dict[str, Any]]:
    """Dense positions from 1; some labels empty, most with a description (C-K.9)."""
    result: list[dict[str, Any]] = []
    for position in range(1, count + 1):
        label = "" if rng.random() < 0.06 else fill(rng, "{brand} vs. {other}: {topic} compared")
        source: dict[str, Any] = {"position": position, "url": url(rng, tail), "label": label}
        if rng.random() < 0.8:
            source["description"] = fill(rng, rng.choice(DESCRIPTIONS))
        result.append(source)
    return result


def pills(
    rng: random.Random,
    listed: list[dict[str, Any]],
    count: int,
    first_id: int = 1,
    always_position: bool = False,
) -> list[dict[str, Any]]:
    """One entry per (pill, source), positions pointing into `sources`, now and then none (C-K.0)."""
    result: list[dict[str, Any]] = []
    if not listed:
        return result
    for pill_id in range(first_id, first_id + count):
        for source in rng.sample(listed, min(len(listed), rng.randint(1, 4))):
            pill: dict[str, Any] = {
                "label": source["label"],
                "citationPillId": pill_id,
                "url": source["url"],
                "domain": source["url"].split("/")[2].removeprefix("www."),
            }
            if "description" in source and rng.random() < 0.5:
                pill["description"] = source["description"]
            if always_position or rng.random() < 0.95:
                pill["position"] = source["position"]
            result.append(pill)
    return result


def price(rng: random.Random, *, with_raw: bool = True) -> dict[str, Any]:
    """Value, currency and, mostly, the raw text (C-K.0)."""
    value = rng.randint(9, 900) + 0.99
    result: dict[str, Any] = {"value": value, "currency": "USD" if not with_raw else "$"}
    if with_raw:
        result["raw"] = f"${value:.2f}"
    return result


def redirect_link(rng: random.Random, target: str) -> str:
    """The Google redirect that goes with a resolved link (row B28)."""
    return f"https://www.google.com/goto?url={quote(target, safe='')}&ved={rng.randint(10**9, 10**10)}"
