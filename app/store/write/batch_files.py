"""Files of the batch dialect: their bytes are kept in packed pieces, written as they come and read one after
another, so that memory stays flat however long they are.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.domain.text import storable
from app.store.part import StorePart, reads, writes
from app.store.tables import batch_file_pieces, batch_files
from app.zstd import zstd

PIECE_BYTES = 1 << 18
"""Of the file, at most, in one piece. It is packed in 1 to 3 ms, between requests: a thread for it would keep
some megabytes more, each that ever did it."""
FILENAME_CHARS_MAX = 200
UNFINISHED_KEPT_MS = 86_400_000
"""An upload that its process did not live to end or to discard."""
_F, _P = batch_files.c, batch_file_pieces.c


@dataclass(frozen=True, slots=True)
class BatchFile:
    """A file that was uploaded to its end."""

    id: str
    account: str
    created_at_ms: int
    expires_at_ms: int
    filename: str
    body_bytes: int
    sha256: str


class BatchFileWrites(StorePart):
    """Part of the store."""

    @writes
    async def begin_file(
        self, connection: AsyncConnection, file_id: str, *, account: str, filename: str, now_ms: int
    ) -> None:
        """Before its first piece. Nobody sees it before it is ended."""
        row = {
            "id": file_id,
            "account": account,
            "created_at_ms": now_ms,
            "expires_at_ms": now_ms + UNFINISHED_KEPT_MS,
            "filename": storable(filename, FILENAME_CHARS_MAX),
            "body_bytes": 0,
        }
        await self.db.insert(connection, batch_files, [row], known="id")

    async def add_piece(self, file_id: str, number: int, piece: bytes) -> None:
        """At most PIECE_BYTES, numbered from 1."""
        await self._add(file_id, number, zstd.compress(piece))

    @writes
    async def _add(self, connection: AsyncConnection, file_id: str, number: int, body: bytes) -> None:
        row = {"file_id": file_id, "number": number, "body": body}
        await self.db.insert(connection, batch_file_pieces, [row], ignore=True)

    @writes
    async def end_file(
        self, connection: AsyncConnection, file_id: str, *, body_bytes: int, sha256: str, expires_at_ms: int
    ) -> None:
        """All its pieces are there."""
        values = {"body_bytes": body_bytes, "sha256": sha256, "expires_at_ms": expires_at_ms}
        await connection.execute(sa.update(batch_files).where(_F.id == file_id).values(values))

    @writes(long=True)
    async def delete_file(self, connection: AsyncConnection, file_id: str) -> None:
        """With its pieces."""
        await connection.execute(sa.delete(batch_file_pieces).where(_P.file_id == file_id))
        await connection.execute(sa.delete(batch_files).where(_F.id == file_id))

    @reads
    async def expired_files(self, connection: AsyncConnection, now_ms: int, limit: int) -> list[str]:
        """Ids of files that are to be deleted, the oldest first."""
        query = sa.select(_F.id).where(_F.expires_at_ms <= now_ms).order_by(_F.expires_at_ms).limit(limit)
        return list((await connection.scalars(query)).all())

    @reads
    async def file(self, connection: AsyncConnection, file_id: str) -> BatchFile | None:
        """One; None: there is none, or it was not uploaded to its end."""
        row = (await connection.execute(_query().where(_F.id == file_id))).first()
        return None if row is None else BatchFile(*row)

    @reads
    async def files(
        self, connection: AsyncConnection, account: str | None, after: str | None, limit: int, *, newest: bool
    ) -> list[BatchFile]:
        """In the order of upload, behind one of them; of one account, or of all."""
        query = _query().order_by(_F.id.desc() if newest else _F.id).limit(limit)
        if account is not None:
            query = query.where(_F.account == account)
        if after is not None:
            query = query.where(_F.id < after if newest else _F.id > after)
        return [BatchFile(*row) for row in await connection.execute(query)]

    async def pieces(self, file_id: str) -> AsyncIterator[bytes]:
        """The bytes of a file; nothing of one that is not there."""
        number = 1
        while (piece := await self._piece(file_id, number)) is not None:
            yield zstd.decompress(piece)
            number += 1

    @reads
    async def _piece(self, connection: AsyncConnection, file_id: str, number: int) -> bytes | None:
        query = sa.select(_P.body).where(_P.file_id == file_id, _P.number == number)
        body = await connection.scalar(query)
        return None if body is None else bytes(body)


def _query() -> sa.Select[Any]:
    return sa.select(*(_F[name] for name in BatchFile.__slots__)).where(_F.sha256.is_not(None))
