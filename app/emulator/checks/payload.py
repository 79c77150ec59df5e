"""Checks on one engine's request body (C-K.0 to C-K.8); where it comes from is checked in `origin`."""

from collections.abc import Mapping
from typing import Any

from app.emulator.checks.origin import check_place, check_url
from app.emulator.checks.validation import (
    PROMPT_CHARACTERS_MAX,
    Leniency,
    Problem,
    is_outside_us,
    kind_of,
    options_text,
    unknown_keys,
    wrong_type,
)
from app.emulator.data import places
from app.emulator.data.editions import Edition
from app.emulator.data.engine_table import ENGINES, Engine


def _known_fields(engine: Engine, edition: Edition) -> frozenset[str]:
    names = {engine.subject, "country", "include"} | engine.flags | engine.sent_texts
    names |= {"device"} if engine.devices else set()
    names |= {"gl", "hl"} if engine.google_family else set()
    names |= {"location", "uule"} if engine.located else set()
    names |= {"pages"} if engine.paged else set()
    names |= {"url"} if engine.url else set()
    names |= {"state"} if engine.state and edition.state else set()
    return frozenset(names)


_known_cache: dict[tuple[str, str, bool], frozenset[str]] = {}


def check_payload(
    task_type: str, body: Mapping[str, Any], edition: Edition, leniency: Leniency, prefix: str = ""
) -> list[Problem]:
    """Everything wrong with one engine body; `prefix` is `payload.` on async endpoints (C-J.4)."""
    engine = ENGINES[task_type]
    known = _known_cache.get((task_type, edition.name, edition.state))
    if known is None:
        known = _known_cache[task_type, edition.name, edition.state] = _known_fields(engine, edition)
    problems: list[Problem] = []
    if not leniency.unknown_fields:
        unknown_keys(body, known, prefix, problems)
    if engine.url and "url" in body:
        check_url(body, prefix, problems)
    else:
        _check_subject(engine, body, prefix, problems)
    check_place(engine, body, edition, leniency, prefix, problems)
    if len(body) > 2:
        _check_optional(engine, body, edition, leniency, prefix, problems)
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


def _check_optional(
    engine: Engine,
    body: Mapping[str, Any],
    edition: Edition,
    leniency: Leniency,
    prefix: str,
    problems: list[Problem],
) -> None:
    for name in engine.flags:
        if name in body and not isinstance(body[name], bool):
            problems.append({"field": f"{prefix}{name}", "message": wrong_type("boolean", body, name)})
    if engine.devices and "device" in body and body["device"] not in engine.devices:
        problems.append({"field": f"{prefix}device", "message": options_text(engine.devices)})
    texts = ("hl", "location", "uule") if engine.located else ("hl",) if engine.google_family else ()
    for name in (*texts, *engine.sent_texts):
        if name in body and not (isinstance(body[name], str) and body[name]):
            problems.append({"field": f"{prefix}{name}", "message": wrong_type("string", body, name)})
    if engine.located and "location" in body and "uule" in body:
        message = "Cannot set both location and uule; provide only one"
        problems.append({"field": "", "message": message})
    if engine.paged and "pages" in body:
        _check_pages(body, edition, prefix, problems)
    is_ignored = leniency.state_outside_us and is_outside_us(body)
    if engine.state and edition.state and "state" in body and not is_ignored:
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
    elif is_outside_us(body):
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
        unknown_keys(include, engine.taken_include, prefix, problems)
    for name, value in include.items():
        if name not in engine.taken_include or isinstance(value, bool):
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
