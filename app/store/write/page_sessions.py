"""Sessions of the page, each on the token that it was begun with."""

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.access import TokenRow
from app.domain.page_session import PageSessionRow
from app.store.part import StorePart, reads, writes
from app.store.tables import page_sessions, tokens

_SESSION = [page_sessions.c[name] for name in PageSessionRow.__slots__]
_TOKEN = [tokens.c[name] for name in TokenRow.__slots__]


class PageSessionWrites(StorePart):
    """Part of the store."""

    @writes
    async def begin_session(
        self, connection: AsyncConnection, session: PageSessionRow, instead_of: str | None
    ) -> None:
        """Begin it; the one that its browser had ends, and so do all whose time is over."""
        c = page_sessions.c
        over = sa.or_(c.expires_at_ms <= session.created_at_ms, c.sha256 == instead_of)
        await connection.execute(sa.delete(page_sessions).where(over))
        row = {name: getattr(session, name) for name in PageSessionRow.__slots__}
        await self.db.insert(connection, page_sessions, [row])

    @writes
    async def end_session(self, connection: AsyncConnection, sha256: str) -> None:
        """There is none any more."""
        await connection.execute(sa.delete(page_sessions).where(page_sessions.c.sha256 == sha256))

    @reads
    async def find_session(
        self, connection: AsyncConnection, sha256: str
    ) -> tuple[PageSessionRow, TokenRow] | None:
        """A session with its token, each valid or not."""
        both = page_sessions.join(tokens, tokens.c.id == page_sessions.c.token_id)
        query = sa.select(*_SESSION, *_TOKEN).select_from(both).where(page_sessions.c.sha256 == sha256)
        row = (await connection.execute(query)).one_or_none()
        if row is None:
            return None
        count = len(_SESSION)
        return PageSessionRow(*row[:count]), TokenRow(*row[count:])
