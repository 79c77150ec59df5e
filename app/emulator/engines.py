"""What each engine's request body may hold, and the checks on it (C-K.0 to C-K.8)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from . import places
from .editions import Edition
from .google_url import problem_with_url, query_parameters
from .validation import (
    PROMPT_CHARACTERS_MAX,
    Leniency,
    Problem,
    kind_of,
    options_text,
    unknown_keys,
    wrong_type,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Engine:
    """One row of C-K: the shape of a request to one engine."""

    path: str  # below /v1/monitor/
    model: str  # its name in /v1/countries?model=
    subject: str  # "prompt" or "query"
    include: frozenset[str]
    flags: frozenset[str] = frozenset()  # other booleans
    devices: tuple[str, ...] = ()
    google_family: bool = False  # takes gl, hl
    located: bool = False  # takes location, uule
    state: bool = False
    paged: bool = False
    url: bool = False


_AI: Final = frozenset({"html", "markdown", "rawResponse"})
_DEVICES: Final = ("desktop", "mobile", "ios", "android")

ENGINES: Final[Mapping[str, Engine]] = {
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


def _known_fields(engine: Engine, edition: Edition) -> frozenset[str]:
    names = {engine.subject, "country", "include"} | engine.flags
    names |= {"device"} if engine.devices else set()
    names |= {"gl", "hl"} if engine.google_family else set()
    names |= {"location", "uule"} if engine.located else set()
    names |= {"pages"} if engine.paged else set()
    names |= {"url"} if engine.url else set()
    names |= {"state"} if engine.state and edition.state else set()
    return frozenset(names)


_known_cache: dict[tuple[str, str], frozenset[str]] = {}


def check_payload(
    task_type: str, body: Mapping[str, Any], edition: Edition, leniency: Leniency, prefix: str = ""
) -> list[Problem]:
    """Everything wrong with one engine body; `prefix` is `payload.` on async endpoints (C-J.4)."""
    engine = ENGINES[task_type]
    known = _known_cache.get((task_type, edition.name))
    if known is None:
        known = _known_cache[task_type, edition.name] = _known_fields(engine, edition)
    problems: list[Problem] = []
    if not leniency.unknown_fields:
        unknown_keys(body, known, prefix, problems)
    if engine.url and "url" in body:
        _check_url(body, prefix, problems)
    else:
        _check_subject(engine, body, prefix, problems)
    _check_place(engine, body, edition, prefix, problems)
    if len(body) > 2:
        _check_optional(engine, body, edition, prefix, problems)
        _check_include(engine, body, leniency, prefix, problems)
    return problems


def _check_subject(engine: Engine, body: Mapping[str, Any], prefix: str, problems: list[Problem]) -> None:
    name = engine.subject
    if engine.url and name not in body:
        problems.append({"field": "", "message": "Provide either query or url"})
        return
    value = body.get(name)
    title = name.capitalize()
    if not isinstance(value, str):
        message = wrong_type("string", body, name)
    elif not value:
        message = f"{title} cannot be empty"
    elif len(value) > PROMPT_CHARACTERS_MAX:
        message = f"{title} is too long (max 10,000 characters)"
    elif engine.url and not value.strip():
        # The raw length passes, the trimmed text is then missing (C-K.0).
        problems.append({"field": "", "message": "Provide either query or url"})
        return
    else:
        return
    problems.append({"field": f"{prefix}{name}", "message": message})


def _check_place(
    engine: Engine, body: Mapping[str, Any], edition: Edition, prefix: str, problems: list[Problem]
) -> None:
    if engine.google_family:
        code = _google_country(body, edition, prefix, problems)
        field = "gl" if "gl" in body else "country"
    else:
        if "country" not in body and edition.default_country is not None:
            return
        field = "country"
        code = body.get("country")
        if not isinstance(code, str):
            problems.append({"field": f"{prefix}country", "message": wrong_type("string", body, "country")})
            return
    if code is None:
        return
    if code not in places.COUNTRIES:
        problems.append(
            {"field": f"{prefix}{field}", "message": f"Country code {code} is not supported yet."}
        )
    elif code not in places.offered(engine.model):
        message = f"The {engine.model} model is not available in country {code}."
        problems.append({"field": f"{prefix}{field}", "message": message})


def _google_country(
    body: Mapping[str, Any], edition: Edition, prefix: str, problems: list[Problem]
) -> str | None:
    """The country of a Google-family request; None when there is none to check (C-K.0, C-K.7)."""
    for name in ("gl", "country"):
        if name in body and not isinstance(body[name], str):
            problems.append({"field": f"{prefix}{name}", "message": wrong_type("string", body, name)})
            return None
    gl, country, url = body.get("gl"), body.get("country"), body.get("url")
    from_url = query_parameters(url).get("gl") if isinstance(url, str) and _parses(url) else None
    if gl is not None and country is not None and gl.upper() != country:
        message = f'Both gl ("{gl}") and country ("{country}") were set to different values; provide only gl'
        problems.append({"field": f"{prefix}gl", "message": message})
        return None
    chosen = gl.upper() if gl is not None else country
    if from_url:
        if chosen is not None and from_url.upper() != chosen:
            message = f'gl in the url ("{from_url}") and the requested country ("{chosen}") differ'
            problems.append({"field": f"{prefix}gl", "message": message})
            return None
        if from_url.upper() not in places.COUNTRIES:
            message = f'The country derived from the url ("{from_url}") is not supported yet.'
            problems.append({"field": f"{prefix}gl", "message": message})
            return None
        return from_url.upper()
    if chosen is None and edition.default_country is None:
        missing = "Provide gl (or country, which is deprecated)"
        if url is not None:
            missing = "Provide gl, or include gl= in the url so it can be derived"
        problems.append({"field": f"{prefix}gl", "message": missing})
    return chosen


def _parses(url: str) -> bool:
    try:
        query_parameters(url)
    except ValueError:
        return False
    return True


def _check_url(body: Mapping[str, Any], prefix: str, problems: list[Problem]) -> None:
    url = body["url"]
    if not isinstance(url, str):
        problems.append({"field": f"{prefix}url", "message": wrong_type("string", body, "url")})
        return
    wrong = problem_with_url(url)
    if wrong is not None:
        problems.append({"field": f"{prefix}url", "message": wrong})
        return
    owned = query_parameters(url)
    for name, own in (("query", owned.get("q")), ("uule", owned.get("uule")), ("hl", owned.get("hl"))):
        if name not in body or body[name] == own or (name == "hl" and own is None):
            continue
        if (
            name == "hl"
            and isinstance(body["hl"], str)
            and own is not None
            and body["hl"].lower() == own.lower()
        ):
            continue
        message = f"Cannot set both url and {name}; the URL owns this value"
        problems.append({"field": f"{prefix}{name}", "message": message})
    if "location" in body:
        message = "Cannot set both url and location; the URL owns this value"
        problems.append({"field": f"{prefix}location", "message": message})
    if "pages" in body and body["pages"] != _pages_of(url):
        message = "Cannot set both url and pages; the URL owns this value"
        problems.append({"field": f"{prefix}pages", "message": message})


def _pages_of(url: str) -> int:
    from .google_url import pages_of_url

    return pages_of_url(url)


def _check_optional(
    engine: Engine, body: Mapping[str, Any], edition: Edition, prefix: str, problems: list[Problem]
) -> None:
    for name in engine.flags:
        if name in body and not isinstance(body[name], bool):
            problems.append({"field": f"{prefix}{name}", "message": wrong_type("boolean", body, name)})
    if engine.devices and "device" in body and body["device"] not in engine.devices:
        problems.append({"field": f"{prefix}device", "message": options_text(engine.devices)})
    texts = ("hl", "location", "uule") if engine.located else ("hl",) if engine.google_family else ()
    for name in texts:
        if name in body and not (isinstance(body[name], str) and body[name]):
            problems.append({"field": f"{prefix}{name}", "message": wrong_type("string", body, name)})
    if engine.located and "location" in body and "uule" in body:
        message = "Cannot set both location and uule; provide only one"
        problems.append({"field": "", "message": message})
    if engine.paged and "pages" in body:
        _check_pages(body, edition, prefix, problems)
    if engine.state and edition.state and "state" in body:
        _check_state(body, prefix, problems)


def _check_pages(body: Mapping[str, Any], edition: Edition, prefix: str, problems: list[Problem]) -> None:
    value = body["pages"]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        message = wrong_type("number", body, "pages")
    elif isinstance(value, float) and not value.is_integer():
        message = "Invalid input: expected int, received number"  # L37
    elif value < 1:
        message = "Too small: expected number to be >=1"
    elif value > edition.pages_max:
        message = f"Too big: expected number to be <={edition.pages_max}"
    else:
        return
    problems.append({"field": f"{prefix}pages", "message": message})


def _check_state(body: Mapping[str, Any], prefix: str, problems: list[Problem]) -> None:
    value = body["state"]
    if not isinstance(value, str):
        message = wrong_type("string", body, "state")
    elif body.get("country", "US") != "US":
        message = f"`state` is not supported for country {body.get('country')}."
    elif value not in places.STATES:
        message = f'Invalid state "{value}". See GET /v1/states for the supported codes.'
    else:
        return
    problems.append({"field": f"{prefix}state", "message": message})


def _check_include(
    engine: Engine, body: Mapping[str, Any], leniency: Leniency, prefix: str, problems: list[Problem]
) -> None:
    if "include" not in body:
        return
    include = body["include"]
    if not isinstance(include, dict):
        problems.append({"field": f"{prefix}include", "message": wrong_type("object", body, "include")})
        return
    prefix = f"{prefix}include."
    if not leniency.unknown_fields:
        unknown_keys(include, engine.include, prefix, problems)
    for name, value in include.items():
        if name not in engine.include or isinstance(value, bool):
            continue
        if name == "aioverview" and isinstance(value, dict):
            _check_overview(value, leniency, f"{prefix}aioverview.", problems)
        else:
            expected = "object" if name == "aioverview" else "boolean"
            message = f"Invalid input: expected {expected}, received {kind_of(value)}"
            problems.append({"field": f"{prefix}{name}", "message": message})


def _check_overview(
    value: Mapping[str, Any], leniency: Leniency, prefix: str, problems: list[Problem]
) -> None:
    if not leniency.unknown_fields:
        unknown_keys(value, frozenset({"markdown"}), prefix, problems)
    if "markdown" in value and not isinstance(value["markdown"], bool):
        problems.append({"field": f"{prefix}markdown", "message": wrong_type("boolean", value, "markdown")})
