"""Google search URLs as requests: which are accepted, and what they request (C-K.7)."""

import re
from urllib.parse import unquote, unquote_plus, urlsplit

_HOST = re.compile(r"^(?:www\.)?google(?:\.[a-z]{2,3})+$")
"""Optional www, then google, then labels of two or three letters; no news. or images. in front."""
RESULTS_PER_PAGE = 10
PAGES_MAX = 10


def query_parameters(url: str) -> dict[str, str]:
    """First value of each parameter of the query string, never of the fragment; `uule` keeps its plus
    signs."""
    found: dict[str, str] = {}
    for pair in urlsplit(url).query.split("&"):
        name, _, value = pair.partition("=")
        if name and name not in found:
            found[name] = unquote(value) if name == "uule" else unquote_plus(value)
    return found


def pages_of_url(url: str) -> int:
    """ceil(num/10) within 1 to 10; missing, non-numeric or below 1 is one page (C-E.2)."""
    number = query_parameters(url).get("num", "")
    if not (number.isascii() and number.isdigit()):
        return 1
    return max(1, min(PAGES_MAX, -(-int(number[:9]) // RESULTS_PER_PAGE)))


def problem_with_url(url: str) -> str | None:
    """The validator's message for an unusable URL, or None."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        _ = parts.port  # raises for a port that is none
    except ValueError:
        return "url must be a valid absolute http(s) URL"
    if parts.scheme not in ("http", "https") or not host:
        return "url must be a valid absolute http(s) URL"
    if not _HOST.match(host):
        return "url must be a Google web search host, e.g. www.google.com or google.co.uk"
    if parts.path != "/search":
        return "url path must be /search"
    parameters = query_parameters(url)
    if not parameters.get("q", "").strip():
        return "url must include a non-empty q parameter"
    if "tbm" in parameters:
        remedy = " Use POST /v1/monitor/google/news instead." if parameters["tbm"] == "nws" else ""
        return f"url must not set tbm; only web search results are supported.{remedy}"
    return None
