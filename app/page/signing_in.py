"""The page that asks for a token."""

from htpy import Node, button, code, div, form, input, label, p

from app.page.visit import Drawn

HOW = "tallyhook token create NAME --scope read"


def sign_in_page(path: str, *, is_refused: bool = False) -> Drawn:
    """Asks for a token, and goes on at `path`. The token is in no address and is not shown again."""
    refused: Node = None
    if is_refused:
        refused = p("#refused.notice.loud", role="alert")[
            "This token is unknown, expired or revoked. Copy all of it, from thk_ to its end."
        ]
    fields = form(".narrow", method="post", action="/sign-in")[
        label(for_="token")["API token"],
        input(
            "#token",
            type="password",
            name="token",
            required=True,
            autocomplete="current-password",
            spellcheck="false",
            autofocus=True,
            aria_describedby="refused" if is_refused else None,
            aria_invalid="true" if is_refused else None,
        ),
        input(type="hidden", name="next", value=path),
        button(".main", type="submit")["Sign in"],
    ]
    how = div(".dim")[
        p["A token that may read sees everything; submit and operate may act too."],
        p["tallyhook up prints one. Another is made by ", code[HOW], "."],
    ]
    return Drawn("Sign in", [refused, fields, how], status=403 if is_refused else 200)
