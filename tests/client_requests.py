"""What shipped clients of the vendor's send that cannot be run here, as their sources send it."""

from typing import Any

# What the vendor's n8n node sends for each of its operations, as read in its versions of January to
# September 2026 (cloro-dev/n8n-nodes-cloro, nodes/Cloro/Cloro.node.ts): the node needs n8n to run.
N8N_BODIES: list[tuple[str, dict[str, Any]]] = [
    (
        "google",
        {
            "query": "shoes",
            "country": "US",
            "city": "New York",
            "device": "desktop",
            "pages": 1,
            "include": {"html": True, "aioverview": True, "markdown": True},
        },
    ),
    (
        "google",
        {
            "query": "shoes",
            "country": "DE",
            "location": "Berlin,Germany",
            "device": "mobile",
            "pages": 2,
            "include": {"markdown": True},
        },
    ),
    (
        "google/news",
        {"query": "shoes", "country": "US", "device": "desktop", "pages": 1, "include": {"html": True}},
    ),
    (
        "chatgpt",
        {
            "prompt": "shoes",
            "country": "US",
            "include": {"html": True, "markdown": True, "rawResponse": True, "searchQueries": True},
        },
    ),
    *[
        (engine, {"prompt": "shoes", "country": "US", "include": {"html": True, "markdown": True}})
        for engine in ("perplexity", "copilot", "gemini", "aimode", "grok")
    ],
]

# What the tools of the vendor's MCP server send, after its own schemas have filled in their defaults
# (cloro-dev/mcp-server, src/tools and src/schemas, October 2026).
MCP_BODIES: list[tuple[str, dict[str, Any]]] = [
    (
        "chatgpt",
        {
            "prompt": "shoes",
            "country": "US",
            "legacy": True,
            "include": {
                "markdown": True,
                "rawResponse": True,
                "searchQueries": True,
                "html": True,
                "ads": True,
                "shopping": True,
            },
        },
    ),
    *[
        (
            engine,
            {
                "prompt": "shoes",
                "country": "US",
                "include": {"markdown": True, "html": True, "rawResponse": True},
            },
        )
        for engine in ("gemini", "copilot", "perplexity", "grok")
    ],
    (
        "aimode",
        {
            "prompt": "shoes",
            "gl": "us",
            "hl": "pt-br",
            "uule": "w+CAIQICI",
            "device": "mobile",
            "include": {"markdown": True, "html": True, "expandProducts": True},
        },
    ),
    (
        "google",
        {
            "query": "shoes",
            "gl": "de",
            "country": "DE",
            "hl": "en",
            "location": "Berlin,Germany",
            "device": "ios",
            "pages": 2,
            "include": {"html": True, "aioverview": True, "paaAioverview": True},
        },
    ),
    (
        "google",
        {
            "url": "https://www.google.com/search?q=shoes&gl=us",
            "device": "desktop",
            "include": {"aioverview": {"markdown": True}},
        },
    ),
    (
        "google/news",
        {
            "query": "shoes",
            "gl": "US",
            "hl": "de",
            "device": "android",
            "pages": 1,
            "include": {"html": True},
        },
    ),
]

# What the vendor's sample apps queue (cloro-dev/geo-tracker, lib/engines.ts; cloro-dev/monitor,
# lib/cloro.ts).
APP_PAYLOADS: list[tuple[str, dict[str, Any]]] = [
    *[
        (engine, {"prompt": "shoes", "country": "US"})
        for engine in ("CHATGPT", "GEMINI", "COPILOT", "PERPLEXITY", "GROK", "AIMODE")
    ],
    *[(engine, {"query": "shoes", "country": "US"}) for engine in ("GOOGLE", "GOOGLE_NEWS")],
    (
        "GOOGLE",
        {"query": "shoes", "country": "US", "include": {"html": True, "aioverview": {"markdown": True}}},
    ),
    (
        "CHATGPT",
        {
            "prompt": "shoes",
            "country": "US",
            "include": {"searchQueries": True, "html": True, "markdown": True},
        },
    ),
    *[
        (engine, {"prompt": "shoes", "country": "US", "include": {"html": True, "markdown": True}})
        for engine in ("GEMINI", "COPILOT", "PERPLEXITY", "AIMODE")
    ],
]

# The tools of the vendor's OpenClaw plugin (cloro-dev/openclaw-plugin, index.ts): its country is `us`
# by default.
PLUGIN_BODIES: list[tuple[str, dict[str, Any]]] = [
    *[
        (engine, {"prompt": "shoes", "country": "us"})
        for engine in ("chatgpt", "perplexity", "gemini", "copilot")
    ],
    ("aimode", {"prompt": "shoes", "country": "us", "location": "Austin,Texas,United States"}),
    (
        "google",
        {
            "query": "shoes",
            "country": "us",
            "location": "Austin,Texas,United States",
            "device": "mobile",
            "pages": 2,
            "include": {"aioverview": {"markdown": True}},
        },
    ),
    ("google/news", {"query": "shoes", "country": "us", "pages": 2}),
]
