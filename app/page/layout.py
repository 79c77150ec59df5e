"""The shell around every page: head, navigation, who is signed in. Everything drawn is escaped by htpy."""

from collections.abc import Sequence

from htpy import (
    Element,
    Node,
    a,
    bdi,
    body,
    button,
    div,
    footer,
    h1,
    head,
    header,
    html,
    li,
    link,
    main,
    meta,
    nav,
    p,
    script,
    span,
    title,
    ul,
)

from app.charts.svg import CONTROLS
from app.page.assets import address_of
from app.page.parts.form import form_of
from app.page.visit import Drawn, PageRoute, Visit

HTMX_CONFIG = '{"includeIndicatorCSS":false,"extensions":"sse"}'
STYLES = ("theme.css", "style.css")
SCRIPTS = ("vendor/htmx-4.0.1.min.js", "vendor/hx-sse-4.0.1.min.js", "page.js")


def render(drawn: Drawn, visit: Visit | None, places: Sequence[PageRoute]) -> bytes:
    """The whole document. `visit`: None where nobody is signed in."""
    document = html(lang="en")[_head(drawn.title), _body(drawn, visit, places)]
    return markup(document)


def markup(node: Element) -> bytes:
    """A document or a fragment as it is sent; what no document may have is shown to be replaced."""
    return str(node).translate(CONTROLS).encode("utf-8", "replace")


def _head(name: str) -> Element:
    return head[
        meta(charset="utf-8"),
        meta(name="viewport", content="width=device-width, initial-scale=1"),
        meta(name="color-scheme", content="light dark"),
        meta(name="htmx-config", content=HTMX_CONFIG),
        title[f"{name} · Tallyhook"],
        link(rel="icon", href="data:,"),
        [link(rel="stylesheet", href=address_of(file)) for file in STYLES],
        [script(src=address_of(file), defer=True) for file in SCRIPTS],
    ]


def _body(drawn: Drawn, visit: Visit | None, places: Sequence[PageRoute]) -> Element:
    return body[
        a(".skip", href="#content")["Skip to the content"],
        _header(visit, places),
        main("#content", tabindex="-1")[h1[drawn.title], drawn.content],
        footer[p["Times are UTC", span(".as-chosen"), ". ", _whose(visit)]] if visit else None,
    ]


def _header(visit: Visit | None, places: Sequence[PageRoute]) -> Element:
    brand = a(".brand", href="/")["Tallyhook"]
    if visit is None:
        return header(".top")[brand]
    return header(".top")[brand, _navigation(visit, places), _signed_in(visit)]


def _navigation(visit: Visit, places: Sequence[PageRoute]) -> Element:
    here = visit.path.partition("?")[0]
    return nav(aria_label="Pages")[
        ul[
            [
                li[a(href=place.path, aria_current=_current(place.path, here))[place.nav]]
                for place in places
                if visit.may(place.scope)
            ]
        ]
    ]


def _current(place: str, here: str) -> str | None:
    """ "page" where one is, "true" where one is behind it."""
    if place == here:
        return "page"
    behind = (place + "/",) if place != "/" else ("/runs/", "/tasks/")
    return "true" if here.startswith(behind) else None


def _signed_in(visit: Visit) -> Node:
    whose = visit.caller.account or "all accounts"
    return div(".who")[
        button(".time-choice", type="button", hidden=True)["UTC"],
        span(title=f"Signed in with the token {visit.caller.name}, which sees {whose}")[
            span(".name", dir="auto")[visit.caller.name], " ", span(".dim")[f"may {visit.caller.scope}"]
        ],
        form_of(visit, "/sign-out")[button(".plain", type="submit")["Sign out"]],
    ]


def _whose(visit: Visit) -> Node:
    """By which token: a phone has no place for it above."""
    whose = visit.caller.account or "all accounts"
    token = bdi[visit.caller.name]
    said = f", which may {visit.caller.scope} and sees {whose}."
    return span(".on-phone")["Signed in with the token ", token, said]
