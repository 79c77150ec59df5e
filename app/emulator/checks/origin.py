"""Where a request wants its answer from: country, gl, or a Google URL that owns them (C-K.0, C-K.7)."""

from collections.abc import Mapping
from typing import Any

from app.emulator.checks.validation import Leniency, Problem, wrong_type
from app.emulator.data import places
from app.emulator.data.editions import Edition
from app.emulator.data.engine_table import Engine
from app.emulator.data.google_url import pages_of_url, problem_with_url, query_parameters


def check_place(
    engine: Engine,
    body: Mapping[str, Any],
    edition: Edition,
    leniency: Leniency,
    prefix: str,
    problems: list[Problem],
) -> None:
    if leniency.country_case and isinstance(body.get("country"), str):
        body = {**body, "country": body["country"].upper()}
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


def check_url(body: Mapping[str, Any], prefix: str, problems: list[Problem]) -> None:
    url = body["url"]
    if not isinstance(url, str):
        problems.append({"field": f"{prefix}url", "message": wrong_type("string", body, "url")})
        return
    wrong = problem_with_url(url)
    if wrong is not None:
        problems.append({"field": f"{prefix}url", "message": wrong})
        return
    owned = query_parameters(url)
    for name in ("query", "uule", "hl"):
        if name in body and not _agrees(name, body[name], owned.get("q" if name == "query" else name)):
            message = f"Cannot set both url and {name}; the URL owns this value"
            problems.append({"field": f"{prefix}{name}", "message": message})
    if "location" in body:
        message = "Cannot set both url and location; the URL owns this value"
        problems.append({"field": f"{prefix}location", "message": message})
    if "pages" in body and body["pages"] != pages_of_url(url):
        message = "Cannot set both url and pages; the URL owns this value"
        problems.append({"field": f"{prefix}pages", "message": message})


def _agrees(name: str, value: object, own: str | None) -> bool:
    """Values equal to what the URL yields are tolerated; `hl` only has to agree with one that is there."""
    if name != "hl":
        return value == own
    return own is None or (isinstance(value, str) and value.lower() == own.lower())
