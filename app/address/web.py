"""Addresses of HTTP servers: the provider's, our own as the provider reaches it, a proxy's."""

from urllib.parse import unquote, urlsplit

from app.address.split import PORT_MAX, AddressError


def read_http_url(url: str, *, example: str, whole: bool = False) -> str:
    """The URL without a slash at its end, unless it is taken as a whole. Raises AddressError; the text never
    quotes it, because a token may stand in it."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressError(f"has a host or port that is none: write {example}") from None
    if parts.scheme not in ("http", "https") or not host:
        raise AddressError(f"is not an http address: write {example}")
    if port is not None and not 0 < port <= PORT_MAX:
        raise AddressError(f"has a port that is not from 1 to {PORT_MAX}: write {example}")
    if parts.username is not None or parts.password is not None:
        raise AddressError(f"has a user or password in it, which would be logged: write {example}")
    if not whole and ("?" in url or "#" in url):
        raise AddressError(f"has a ? or # in it, and we add a path: write {example}")
    if any(char.isspace() for char in url) or not host.isprintable():
        raise AddressError(f"has a blank in it: write {example}")
    return url if whole else url.rstrip("/")


def proxy_parts(url: str) -> tuple[str, str | None, str | None]:
    """(the proxy's URL without a user, user, password). Raises AddressError."""
    example = "http://HOST:PORT or http://USER:PASSWORD@HOST:PORT"
    scheme, mark, rest = url.partition("://")
    if mark and scheme.lower() != "http":
        raise AddressError(
            f"names a proxy that does not begin with http://, the only kind we speak to: write {example}, "
            "which carries https by CONNECT"
        )
    # curl and many others take a proxy without its scheme.
    userinfo, at, place = (rest if mark else url).rpartition("@")
    plain = read_http_url(f"http://{place}", example=example)
    if not at:
        return plain, None, None
    user, _, password = userinfo.partition(":")
    return plain, unquote(user), unquote(password)
