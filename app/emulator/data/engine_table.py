"""What a request to each engine may hold: one row per engine (C-K)."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One row of C-K: the shape of a request to one engine."""

    path: str
    """Below /v1/monitor/."""
    model: str
    """Its name in /v1/countries?model=."""
    subject: str
    """The field that holds the question: "prompt" or "query"."""
    include: frozenset[str]
    flags: frozenset[str] = frozenset()
    """Other booleans."""
    sent_include: frozenset[str] = frozenset()
    """Beyond the contract, sent by a shipped client."""
    sent_texts: frozenset[str] = frozenset()
    """Likewise, strings."""
    devices: tuple[str, ...] = ()
    google_family: bool = False
    """Takes gl, hl."""
    located: bool = False
    """Takes location, uule."""
    state: bool = False
    paged: bool = False
    url: bool = False

    @property
    def taken_include(self) -> frozenset[str]:
        """Every key of `include` that is not refused."""
        return self.include | self.sent_include


_AI = frozenset({"html", "markdown", "rawResponse"})
_DEVICES = ("desktop", "mobile", "ios", "android")

ENGINES: Mapping[str, Engine] = {
    "CHATGPT": Engine(
        path="chatgpt",
        model="chatgpt",
        subject="prompt",
        include=_AI | {"searchQueries", "ads", "shopping"},
        flags=frozenset({"legacy", "disableWebSearch"}),
        state=True,
    ),
    "GEMINI": Engine(path="gemini", model="gemini", subject="prompt", include=_AI, state=True),
    "COPILOT": Engine(path="copilot", model="copilot", subject="prompt", include=_AI, state=True),
    "GROK": Engine(path="grok", model="grok", subject="prompt", include=_AI, state=True),
    "PERPLEXITY": Engine(path="perplexity", model="perplexity", subject="prompt", include=_AI, state=True),
    "AIMODE": Engine(
        path="aimode",
        model="aimode",
        subject="prompt",
        include=frozenset({"html", "markdown", "expandProducts", "googleGoto"}),
        devices=("desktop", "mobile"),
        google_family=True,
        located=True,
    ),
    "GOOGLE": Engine(
        path="google",
        model="google",
        subject="query",
        include=frozenset({"html", "aioverview", "paaAioverview", "googleGoto"}),
        # The vendor's n8n node requests the overview's markdown alongside the overview, and sends a city.
        sent_include=frozenset({"markdown"}),
        sent_texts=frozenset({"city"}),
        devices=_DEVICES,
        google_family=True,
        located=True,
        paged=True,
        url=True,
    ),
    "GOOGLE_NEWS": Engine(
        path="google/news",
        model="google",
        subject="query",
        include=frozenset({"html"}),
        devices=_DEVICES,
        google_family=True,
        paged=True,
    ),
}

TASK_TYPES = ("AIMODE", "GOOGLE", "GOOGLE_NEWS", "GEMINI", "CHATGPT", "COPILOT", "PERPLEXITY", "GROK")
"""In the order of the provider's reference (C-G.1), as messages and the OpenAPI document list them."""
