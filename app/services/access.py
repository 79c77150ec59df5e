"""Tokens made and revoked, each with its row in the list of actions."""

import os
from typing import TYPE_CHECKING

from app.domain.access import NAME_BYTES, SECRET_BYTES, ActionRow, TokenRow, hash_of, make_token, prefix_of
from app.domain.task import new_id

if TYPE_CHECKING:
    from app.store import Store

COMMAND_LINE = "command line"
"""Who acts where no token does."""
COMMAND_LINE_ID = "00000000-0000-0000-0000-000000000000"
"""In the place of a token's id there."""


async def create_token(
    store: "Store",
    name: str,
    scope: str,
    account: str | None,
    *,
    now_ms: int,
    lasts_ms: int | None = None,
    webhook_url: str | None = None,
) -> tuple[TokenRow, str] | None:
    """Its row and the token itself, which is kept nowhere; None: a valid token has the name. `webhook_url`:
    where results of all that it brings are posted to, checked before."""
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
    is_made = await store.access.create_token(row, action_by_command("token.create", row.id, now_ms))
    return (row, text) if is_made else None


async def revoke_token(store: "Store", name_or_prefix: str, *, now_ms: int) -> TokenRow | None:
    """The token as it was; None: none that is not revoked is called so. A whole token, and the beginning of
    one as lists show it, name it too."""
    wanted = prefix_of(name_or_prefix) or name_or_prefix.removesuffix("…")
    row = await store.access.find_valid_token(wanted)
    if row is None:
        return None
    action = action_by_command("token.revoke", row.id, now_ms)
    return row if await store.access.revoke_token(row.id, now_ms, action) else None


def action_by_command(action: str, subject: str, now_ms: int) -> ActionRow:
    """What the command line does, for the transaction that does it."""
    return ActionRow(new_id(now_ms), now_ms, COMMAND_LINE, None, action, subject, None, None)
