"""What protects a page from other pages: headers of every answer, and whether a request comes from a page of
ours."""

from aiohttp import web

HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
    # With no-referrer a browser says of its own forms that they come from "null".
    "Referrer-Policy": "same-origin",
    "Server": "tallyhook",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}
"""Of every page and fragment. Nothing of a page is kept anywhere: others may use the browser after."""


def is_from_us(request: web.Request) -> bool:
    """Whether a form was sent by a page of this origin, as its browser says. A program that says neither is
    believed: it has no browser's cookie but by its own doing."""
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = request.headers.get("Origin")
    if origin is None:
        return True
    # Without the scheme: a proxy with TLS speaks HTTP to us.
    return origin.partition("://")[2].lower() == request.headers.get("Host", "").lower()


def is_by_tls(request: web.Request) -> bool:
    """Whether the browser reaches us by TLS, through a proxy or not: only it knows."""
    return request.secure or request.headers.get("Origin", "").startswith("https://")


def own_path(text: str) -> str:
    """An address on this page to go on with, as a stranger's link may name it; the first page where it is
    none: a browser reads // and /\\ as another host."""
    is_own = text.startswith("/") and not text.startswith(("//", "/\\"))
    is_plain = text.isascii() and text.isprintable() and "\\" not in text
    return text if is_own and is_plain else "/"
