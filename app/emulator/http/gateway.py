"""What answers in the provider's place: a proxy, a firewall, a captive portal. None of it is the provider's
word, whatever its status says (C-J.2)."""

from typing import NamedTuple

from aiohttp import web


class Page(NamedTuple):
    """One answer that never came from the provider."""

    status: int
    body: bytes = b""
    content_type: str = "text/html"
    location: str | None = None


def _html(title: str) -> bytes:
    return f"<html><head><title>{title}</title></head><body><h1>{title}</h1></body></html>".encode()


BAD_GATEWAY = Page(502, _html("502 Bad Gateway"))
PAGES = (
    BAD_GATEWAY,
    Page(404, _html("404 Not Found")),
    Page(405, _html("405 Not Allowed")),
    Page(400, _html("400 Request Header Or Cookie Too Large")),
    Page(413, _html("413 Request Entity Too Large")),
    Page(431),
    Page(401, _html("401 Authorization Required")),
    Page(403, _html("Attention Required! Access denied")),
    Page(403, b'{"message":"Forbidden"}', "application/json"),
    Page(404, b'{"message":"no Route matched with those values"}', "application/json"),
    Page(429, _html("429 Too Many Requests")),
    Page(302, location="/login"),
    Page(200, _html("Accept the terms of this network")),
    Page(504, _html("504 Gateway Time-out")),
)
"""As nginx, Cloudflare, AWS API Gateway, Kong and captive portals send them."""


def respond(page: Page) -> web.Response:
    """The answer, without any header of the provider's."""
    headers = {} if page.location is None else {"Location": page.location}
    return web.Response(status=page.status, body=page.body, content_type=page.content_type, headers=headers)
