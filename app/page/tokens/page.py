"""Tokens: the list, a new one, which is shown once, and the end of one."""

from app.api.native.asker import asker_of
from app.api.pages import read_cursor, write_cursor
from app.api.problems import not_found
from app.domain.access import Scope, TokenRow, webhook_secret
from app.domain.time_format import DurationError, parse_duration
from app.errors import UserError
from app.page.parts.download import all_of_it
from app.page.parts.table import pager
from app.page.tokens.markup import made_page, revoke_page, tokens_page
from app.page.visit import Drawn, GoTo, PageRoute, Visit
from app.run_options import refuse_unusable_name
from app.services import access

SHOWN = 50
FIELDS = ("name", "scope", "account", "expires")


class NotMade(Exception):  # noqa: N818 - the form is to be filled in once more; nothing has failed
    """Why there is no token; for people."""


async def overview(visit: Visit) -> Drawn:
    """All that this token may see."""
    return await _listed(visit, None)


async def create(visit: Visit) -> Drawn:
    """Sent twice it is made once: the name is taken then."""
    try:
        row, text = await _made(visit)
    except NotMade as why:
        return await _listed(visit, str(why))
    return Drawn(f"Token {row.name}", made_page(row, text, webhook_secret(row.sha256)))


async def ask_revoke(visit: Visit) -> Drawn:
    """Who uses it is shut out."""
    row = await _visible(visit)
    return Drawn(f"Revoke {row.name}?", revoke_page(visit, row))


async def revoke(visit: Visit) -> GoTo:
    """One that is revoked already stays so."""
    row, asker = await _visible(visit), asker_of(visit.caller, visit.request_id)
    await visit.read(lambda: access.revoke(visit.parts.store, row, now_ms=visit.now_ms, asker=asker))
    return GoTo("/tokens")


async def _listed(visit: Visit, why: str | None) -> Drawn:
    place = read_cursor(visit.values.get("cursor"), "tokens", str)
    before = str(place[0]) if place else None
    listing, account = visit.parts.store.access.list_tokens, visit.caller.account
    rows = await visit.read(lambda: listing(SHOWN + 1, before, account))
    more = write_cursor("tokens", rows[SHOWN - 1].id) if len(rows) > SHOWN else None
    shown = tokens_page(visit, rows[:SHOWN], why, {name: visit.values.get(name, "") for name in FIELDS})
    content = [shown, pager("/tokens", {}, more), all_of_it("tokens")]
    return Drawn("Tokens", content, status=422 if why else 200)


async def _made(visit: Visit) -> tuple[TokenRow, str]:
    name, scope, account, expires = (visit.values.get(field, "").strip() for field in FIELDS)
    settings, asker = visit.parts.settings, asker_of(visit.caller, visit.request_id)
    try:
        refuse_unusable_name("the name", name)
        lasts_ms = parse_duration(expires) if expires else None
    except UserError as error:
        raise NotMade(f"{error.message}; {error.remedy}" if error.remedy else error.message) from None
    except DurationError as error:
        raise NotMade(f"how long it lasts: {error}") from None
    if scope not in list(Scope):
        raise NotMade("what it may do is not said")
    if account and (account not in settings.all_accounts() or not visit.caller.sees(account)):
        raise NotMade("there is no such account")
    made = await visit.read(
        lambda: access.create_token(
            visit.parts.store,
            name,
            scope,
            account or None,
            now_ms=visit.now_ms,
            lasts_ms=lasts_ms,
            asker=asker,
        )
    )
    if made is None:
        raise NotMade("a valid token has this name: choose another one, or revoke that")
    return made


async def _visible(visit: Visit) -> TokenRow:
    token_id, access_ = visit.values["token_id"], visit.parts.store.access
    row = await visit.read(lambda: access_.find_token_with_id(token_id, visit.caller.account))
    if row is None:
        raise not_found("token")
    return row


ROUTES = (
    PageRoute("GET", "/tokens", overview, Scope.OPERATE, ("cursor",), nav="Tokens"),
    PageRoute("POST", "/tokens", create, Scope.OPERATE, FIELDS),
    PageRoute("GET", "/tokens/{token_id}/revoke", ask_revoke, Scope.OPERATE),
    PageRoute("POST", "/tokens/{token_id}/revoke", revoke, Scope.OPERATE),
)
