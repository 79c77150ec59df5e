"""The engines as rows of data: which fields and extras each takes, which of them are billed on top, and where
it is offered (C-E.1, C-K, C-K.10). May hold no rule: those are in `rules` and in `pricing`."""

from collections.abc import Mapping
from dataclasses import dataclass

PAGES_MAX = 10


@dataclass(frozen=True, slots=True)
class ExtraBilling:
    """Credits that are added at completion only: one for each item of a list in the answer (C-E.1)."""

    asked_by: str
    """The flag of `include` that asks for the list."""
    counted: str
    """The field of the answer that holds it."""
    items_max: int
    """More are not returned, at one credit each in every price list so far."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One engine's request: which fields it takes, what is billed on top, and where it is offered."""

    subject: str = "prompt"
    """Field that holds what is asked."""
    include: frozenset[str]
    blocked: frozenset[str]
    """Country codes in which the engine is not offered; they change with the provider."""
    state: bool = False
    flags: frozenset[str] = frozenset()
    devices: tuple[str, ...] = ()
    google: bool = False
    """Takes gl, hl and, instead of country, gl alone."""
    located: bool = False
    """Takes location or uule."""
    paged: bool = False
    by_url: bool = False
    """Takes a Google search address instead of a query."""
    paid_include: frozenset[str] = frozenset()
    """Flags of `include` of which any costs the add-on, once."""
    extra: ExtraBilling | None = None

    @property
    def fields(self) -> frozenset[str]:
        """Every field of the payload."""
        names = {self.subject, "country", "include", *self.flags}
        names |= {"state"} if self.state else set()
        names |= {"device"} if self.devices else set()
        names |= {"gl", "hl"} if self.google else set()
        names |= {"location", "uule"} if self.located else set()
        names |= {"pages"} if self.paged else set()
        names |= {"url"} if self.by_url else set()
        return frozenset(names)


_AI = frozenset({"html", "markdown", "rawResponse"})
_DEVICES = ("desktop", "mobile", "ios", "android")


def _codes(text: str) -> frozenset[str]:
    return frozenset(text.split())


ENGINES: Mapping[str, Engine] = {
    "CHATGPT": Engine(
        include=_AI | {"searchQueries", "ads", "shopping"},
        blocked=_codes("CN HK IR MO RU VE"),
        state=True,
        flags=frozenset({"legacy", "disableWebSearch"}),
        paid_include=frozenset({"rawResponse", "searchQueries", "ads", "shopping"}),
    ),
    "COPILOT": Engine(include=_AI, blocked=_codes("BY CN RU SY VE"), state=True),
    "GEMINI": Engine(include=_AI, blocked=_codes("BY CN RU"), state=True),
    "PERPLEXITY": Engine(include=_AI, blocked=_codes("CN"), state=True),
    "GROK": Engine(include=_AI, blocked=_codes("BY CN HK RU VE"), state=True),
    "AIMODE": Engine(
        include=frozenset({"html", "markdown", "expandProducts", "googleGoto"}),
        blocked=_codes("CN CU IR KP"),
        devices=("desktop", "mobile"),
        google=True,
        located=True,
        extra=ExtraBilling(asked_by="expandProducts", counted="productResults", items_max=6),
    ),
    "GOOGLE": Engine(
        subject="query",
        include=frozenset({"html", "aioverview", "paaAioverview", "googleGoto"}),
        blocked=frozenset(),
        devices=_DEVICES,
        google=True,
        located=True,
        paged=True,
        by_url=True,
    ),
    "GOOGLE_NEWS": Engine(
        subject="query",
        include=frozenset({"html"}),
        blocked=frozenset(),
        devices=_DEVICES,
        google=True,
        paged=True,
    ),
}

TASK_TYPES = tuple(ENGINES)
INCLUDE_NAMES = frozenset().union(*(engine.include for engine in ENGINES.values()))
EXTRA_BILLING = {task_type: engine.extra for task_type, engine in ENGINES.items() if engine.extra}
FIELDS = {task_type: engine.fields for task_type, engine in ENGINES.items()}
