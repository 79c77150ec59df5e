"""What is known of each account, as its last audit found it: a document, written over by the next one."""

from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.store.part import StorePart, reads, writes
from app.store.tables import account_sheets


@dataclass(frozen=True, slots=True)
class AccountSheet:
    """A document (views/sheets.py), and when it was true."""

    account: str
    at_ms: int
    body: str


class AccountSheetWrites(StorePart):
    """Part of the store."""

    @writes
    async def keep_sheet(self, connection: AsyncConnection, sheet: AccountSheet) -> None:
        """In the place of the one before."""
        of_account = account_sheets.c.account == sheet.account
        values = {"at_ms": sheet.at_ms, "body": sheet.body}
        kept = await connection.execute(sa.update(account_sheets).where(of_account).values(values))
        if not kept.rowcount:
            row = {"account": sheet.account, **values}
            await self.db.insert(connection, account_sheets, [row], ignore=True)

    @reads
    async def sheet(self, connection: AsyncConnection, account: str) -> AccountSheet | None:
        """None: nobody has audited the account since the upgrade."""
        c = account_sheets.c
        query = sa.select(c.account, c.at_ms, c.body).where(c.account == account)
        row = (await connection.execute(query)).first()
        return None if row is None else AccountSheet(*row)
