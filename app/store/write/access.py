"""Tokens of the API, and the list of what was done with them."""

from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import ActionRow, TokenRow
from app.store.part import StorePart, reads, writes
from app.store.tables import IS_VALID_TOKEN, actions, tokens

RANGE = 5_000
"""Actions that one page looks through."""
_TOKEN = [tokens.c[name] for name in TokenRow.__slots__]
_ACTION = [actions.c[name] for name in ActionRow.__slots__]


class AccessWrites(StorePart):
    """Part of the store."""

    @writes
    async def create_token(self, connection: AsyncConnection, token: TokenRow, action: ActionRow) -> bool:
        """False: a valid token has this name. One that expired gives its name up, and is revoked by that."""
        now_ms = token.created_at_ms
        same = tokens.c.name == token.name, IS_VALID_TOKEN
        expired = sa.update(tokens).where(*same, tokens.c.expires_at_ms <= now_ms)
        await connection.execute(expired.values(revoked_at_ms=now_ms))
        row = {name: getattr(token, name) for name in TokenRow.__slots__}
        await self.db.insert(connection, tokens, [row], ignore=True)
        is_made = await connection.scalar(sa.select(tokens.c.id).where(tokens.c.id == token.id)) is not None
        if is_made:
            await insert_action(self, connection, action)
        return is_made

    @writes
    async def revoke_token(
        self, connection: AsyncConnection, token_id: str, now_ms: int, action: ActionRow
    ) -> bool:
        """False: somebody was faster."""
        which = sa.update(tokens).where(tokens.c.id == token_id, IS_VALID_TOKEN)
        is_revoked = (await connection.execute(which.values(revoked_at_ms=now_ms))).rowcount == 1
        if is_revoked:
            await insert_action(self, connection, action)
        return is_revoked

    @writes
    async def note_use(self, connection: AsyncConnection, token_id: str, now_ms: int) -> None:
        """The token is used."""
        last = tokens.c.last_used_at_ms
        is_later = sa.or_(last.is_(None), last < now_ms)
        await connection.execute(
            sa.update(tokens).where(tokens.c.id == token_id, is_later).values(last_used_at_ms=now_ms)
        )

    @reads
    async def find_token(self, connection: AsyncConnection, prefix: str) -> TokenRow | None:
        """By the part of it that is no secret, valid or not."""
        query = sa.select(*_TOKEN).where(tokens.c.prefix == prefix)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else TokenRow(*row)

    @reads
    async def find_valid_token(self, connection: AsyncConnection, name_or_prefix: str) -> TokenRow | None:
        """By its name, or the part that is no secret; one that has expired too. A name comes first."""
        c = tokens.c
        which = sa.or_(c.name == name_or_prefix, c.prefix == name_or_prefix)
        by_name_first = sa.case((c.name == name_or_prefix, 0), else_=1)
        query = sa.select(*_TOKEN).where(which, IS_VALID_TOKEN).order_by(by_name_first).limit(1)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else TokenRow(*row)

    @reads
    async def list_tokens(
        self,
        connection: AsyncConnection,
        limit: int,
        before_id: str | None = None,
        account: str | None = None,
    ) -> Sequence[TokenRow]:
        """Newest first, those that were revoked too; of one account, where one is given."""
        query = sa.select(*_TOKEN).order_by(tokens.c.id.desc()).limit(limit)
        query = query if before_id is None else query.where(tokens.c.id < before_id)
        query = query if account is None else query.where(tokens.c.account == account)
        return [TokenRow(*row) for row in await connection.execute(query)]

    @reads
    async def find_token_with_id(
        self, connection: AsyncConnection, token_id: str, account: str | None = None
    ) -> TokenRow | None:
        """None: there is none, or it is another account's."""
        query = sa.select(*_TOKEN).where(tokens.c.id == token_id)
        query = query if account is None else query.where(tokens.c.account == account)
        row = (await connection.execute(query)).one_or_none()
        return None if row is None else TokenRow(*row)

    @writes
    async def begin_action(self, connection: AsyncConnection, action: ActionRow) -> None:
        """Say what is about to be done, before it is."""
        await insert_action(self, connection, action)

    @writes
    async def end_action(
        self, connection: AsyncConnection, action_id: str, status: int, subject: str | None
    ) -> None:
        """Say how it ended."""
        done = {"status": status, "subject": sa.func.coalesce(subject, actions.c.subject)}
        await connection.execute(sa.update(actions).where(actions.c.id == action_id).values(done))

    @reads
    async def actions_before(
        self, connection: AsyncConnection, before_id: str | None, limit: int, account: str | None = None
    ) -> tuple[Sequence[ActionRow], str | None]:
        """The newest, or the newest that are older than `before_id`, and behind which id more may be; None:
        that is all. Of an account: what its tokens did, found by looking through RANGE actions at most."""
        if account is None:
            found = [ActionRow(*row) for row in await connection.execute(_newest(before_id).limit(limit + 1))]
            return found[:limit], found[limit - 1].id if len(found) > limit else None
        window = [ActionRow(*row) for row in await connection.execute(_newest(before_id).limit(RANGE + 1))]
        those = sa.select(tokens.c.id).where(tokens.c.account == account)
        theirs = set(await connection.scalars(those))
        shown = [row for row in window[:RANGE] if row.token_id in theirs]
        if len(shown) > limit:
            return shown[:limit], shown[limit - 1].id
        return shown, window[RANGE - 1].id if len(window) > RANGE else None


def _newest(before_id: str | None) -> sa.Select[Any]:
    query = sa.select(*_ACTION).order_by(actions.c.id.desc())
    return query if before_id is None else query.where(actions.c.id < before_id)


async def insert_action(part: StorePart, connection: AsyncConnection, action: ActionRow) -> None:
    """Within the transaction that does it, for what may not cost one more."""
    row = {name: getattr(action, name) for name in ActionRow.__slots__}
    await part.db.insert(connection, actions, [row], known="id")
