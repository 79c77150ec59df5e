"""Google search addresses as requests: which are taken, and which values they bring along (C-K.7)."""

import re
from urllib.parse import unquote, unquote_plus, urlsplit

_HOST = re.compile(r"(?:www\.)?google(?:\.[a-z]{2,3})+")
_EXAMPLE = "use an address like https://www.google.com/search?q=best+crm&gl=us"


def problem_of_url(url: str) -> tuple[str, str] | None:
    """(problem, remedy) of an address that cannot be asked for; None when it can."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError:
        return "not an address", _EXAMPLE
    if parts.scheme not in ("http", "https") or not host:
        return "not an absolute http(s) address", _EXAMPLE
    if not _HOST.fullmatch(host):
        return "not a host of Google web search", _EXAMPLE
    if parts.path != "/search":
        return "its path is not /search", _EXAMPLE
    values = owned_values(url)
    if not values.get("q", "").strip():
        return "it has no q parameter", _EXAMPLE
    if "tbm" in values:
        return (
            "it sets tbm; only web search is taken",
            "remove tbm, or use task_type GOOGLE_NEWS with a query",
        )
    return None


def owned_values(url: str) -> dict[str, str]:
    """First value of each parameter of the query, never of the fragment; `uule` keeps its plus signs.
    Empty for something that is no address."""
    try:
        query = urlsplit(url).query
    except ValueError:
        return {}
    found: dict[str, str] = {}
    for pair in query.split("&"):
        name, _, value = pair.partition("=")
        if name:
            found.setdefault(name, unquote(value) if name == "uule" else unquote_plus(value))
    return found
