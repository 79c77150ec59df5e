"""Tokens made and revoked, each with its row in the list of actions."""

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from app.domain.access import NAME_BYTES, SECRET_BYTES, ActionRow, TokenRow, hash_of, make_token, prefix_of
from app.domain.task import new_id

if TYPE_CHECKING:
    from app.store import Store

DONE = 200
COMMAND_LINE = "command line"
"""Who acts where no token does."""
COMMAND_LINE_ID = "00000000-0000-0000-0000-000000000000"
"""In the place of a token's id there."""


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a change."""

    name: str
    token_id: str | None = None
    """None: the command line."""
    account: str | None = None
    """Sees and changes this one's only; None: all of them."""
    request_id: str | None = None

    def action(self, action: str, subject: str, now_ms: int) -> ActionRow:
        """What it does, for the transaction that does it."""
        status = None if self.token_id is None else DONE
        return ActionRow(
            new_id(now_ms), now_ms, self.name, self.token_id, action, subject, self.request_id, status
        )


BY_COMMAND = Asker(COMMAND_LINE)


async def create_token(
    store: "Store",
    name: str,
    scope: str,
    account: str | None,
    *,
    now_ms: int,
    lasts_ms: int | None = None,
    webhook_url: str | None = None,
    asker: Asker = BY_COMMAND,
) -> tuple[TokenRow, str] | None:
    """Its row and the token itself, which is kept nowhere; None: a valid token has the name. Who has one
    account makes tokens of that one only. `webhook_url`: where results of all that it brings are posted to,
    checked before."""
    if asker.account is not None:
        account = asker.account
    text = make_token(os.urandom(NAME_BYTES), os.urandom(SECRET_BYTES))
    row = TokenRow(
        new_id(now_ms),
        name,
        prefix_of(text) or "",
        hash_of(text),
        scope,
        account,
        created_at_ms=now_ms,
        expires_at_ms=None if lasts_ms is None else now_ms + lasts_ms,
        revoked_at_ms=None,
        last_used_at_ms=None,
        webhook_url=webhook_url,
    )
    is_made = await store.access.create_token(row, asker.action("token.create", row.id, now_ms))
    return (row, text) if is_made else None


async def revoke_token(store: "Store", name_or_prefix: str, *, now_ms: int) -> TokenRow | None:
    """The token as it was; None: none that is not revoked is called so. A whole token, and the beginning of
    one as lists show it, name it too."""
    wanted = prefix_of(name_or_prefix) or name_or_prefix.removesuffix("…")
    row = await store.access.find_valid_token(wanted)
    if row is None:
        return None
    return await revoke(store, row, now_ms=now_ms)


async def revoke(store: "Store", row: TokenRow, *, now_ms: int, asker: Asker = BY_COMMAND) -> TokenRow | None:
    """The token as it was; None: somebody was faster."""
    action = asker.action("token.revoke", row.id, now_ms)
    return row if await store.access.revoke_token(row.id, now_ms, action) else None
