"""The markup of tokens."""

from collections.abc import Mapping, Sequence

from htpy import Element, Node, a, button, code, div, h2, input, label, option, p, pre, section, select, span

from app.domain.access import TokenRow
from app.page.parts.badge import badge
from app.page.parts.form import form_of
from app.page.parts.notice import empty, notice
from app.page.parts.table import Column, table
from app.page.parts.times import at
from app.page.parts.words import others, sentence
from app.page.visit import Visit

SCOPES = {
    "read": "read: see everything",
    "submit": "submit: also make runs and tasks",
    "operate": "operate: also pause, cancel and retry, and make tokens",
}


def tokens_page(visit: Visit, rows: Sequence[TokenRow], why: str | None, given: Mapping[str, str]) -> Node:
    """A form for a new one, and the list."""
    none = empty("There is no token yet.")
    return [
        section(aria_labelledby="new")[
            h2("#new")["A new token"],
            notice(p[sentence(why)], tone="loud") if why else None,
            _form(visit, given),
        ],
        section(aria_labelledby="tokens")[
            h2("#tokens")["Tokens"], table("Tokens, newest first", _columns(visit), rows, empty=none)
        ],
    ]


def _form(visit: Visit, given: Mapping[str, str]) -> Element:
    accounts = [visit.caller.account] if visit.caller.account else ["", *visit.parts.settings.all_accounts()]
    return form_of(visit, "/tokens", class_="narrow")[
        div[
            label(for_="name")["Who will use it"],
            input("#name", name="name", value=given["name"], required=True, autocomplete="off"),
        ],
        div[
            label(for_="scope")["What it may do"],
            select("#scope", name="scope")[
                [option(value=s, selected=s == given["scope"])[about] for s, about in SCOPES.items()]
            ],
        ],
        div[
            label(for_="account")["Of which account"],
            select("#account", name="account")[
                [
                    option(value=one, selected=one == given["account"])[one or "all of them"]
                    for one in accounts
                ]
            ],
        ],
        div[
            label(for_="expires")["How long it lasts"],
            input(
                "#expires", name="expires", value=given["expires"], placeholder="for ever", autocomplete="off"
            ),
            p(".more")["Such as 90d or 12h; empty: until it is revoked."],
        ],
        button(".main", type="submit")["Make it"],
    ]


def made_page(row: TokenRow, text: str, secret: str) -> Node:
    """The token, which nobody can be shown again."""
    return [
        notice(p["This is shown once: only a hash of it is kept. Copy it now."], tone="warn"),
        h2["The token"],
        pre(tabindex="0")[text],
        p[others(row.name), f" may {row.scope}, ", _whose(row), *_until(row), "."],
        h2["Its secret"],
        p["Results that single tasks of it ask to be posted are signed with this:"],
        pre(tabindex="0")[secret],
        p["Clients send ", code["Authorization: Bearer TOKEN"], "."],
        p[a(href="/tokens")["All tokens"]],
    ]


def revoke_page(visit: Visit, row: TokenRow) -> Node:
    """Who uses it is refused."""
    own = row.id == visit.caller.token_id
    return [
        p(".lead")["Whoever uses it is refused from then on. It cannot be undone."],
        notice(p["You are signed in with this token: you will be signed out."], tone="warn") if own else None,
        p["It may ", row.scope, ", ", _whose(row), "; last used: ", _or_never(row.last_used_at_ms), "."],
        form_of(visit, f"/tokens/{row.id}/revoke")[
            div(".actions")[
                button(".loud", type="submit")["Revoke it"], a(".button", href="/tokens")["Keep it"]
            ]
        ],
    ]


def _columns(visit: Visit) -> tuple[Column[TokenRow], ...]:
    def revoke(row: TokenRow) -> Node:
        return a(href=f"/tokens/{row.id}/revoke")["Revoke…"] if row.revoked_at_ms is None else None

    return (
        Column("Name", lambda row: [others(row.name), span(".more")[code(".whole")[f"{row.prefix}…"]]]),
        Column("May", lambda row: row.scope),
        Column("Account", lambda row: others(row.account) if row.account else "all"),
        Column("State", lambda row: badge(row.state(visit.now_ms))),
        Column("Made", lambda row: at(row.created_at_ms)),
        Column("Last used", lambda row: _or_never(row.last_used_at_ms)),
        Column("Ends", lambda row: _or_never(row.expires_at_ms)),
        Column("Act", revoke),
    )


def _or_never(ms: int | None) -> Node:
    return "never" if ms is None else at(ms)


def _until(row: TokenRow) -> Sequence[Node]:
    return [", until ", "it is revoked" if row.expires_at_ms is None else at(row.expires_at_ms)]


def _whose(row: TokenRow) -> Node:
    return ["account ", others(row.account)] if row.account else "all accounts"
