"""A body that is read as it comes, in bounded memory: unpacked, hashed, and given to a reader of files, which
knows nothing of waiting.
"""

import asyncio
import hashlib
import io
import zlib
from collections.abc import AsyncIterator, Iterator
from itertools import islice
from typing import Any, TypeVar

from sqlalchemy.util import await_only, greenlet_spawn

from app.api.problems import MALFORMED, TOO_LARGE, UNSUPPORTED_MEDIA_TYPE, Problem
from app.api.route import Upload

T = TypeVar("T")

PIECE_LINES = 100
"""Records that are read without a turn for other requests: some 2 ms."""
UNPACKED_PIECE_BYTES = 64 << 10
UNPACKED_BYTES_MAX = 4 << 30
"""As of a packed file: 1 KB of gzip may hold 1 MB, so that somebody's joke must end somewhere."""
_GZIP_WBITS = 31


def content_of(upload: Upload) -> AsyncIterator[bytes]:
    """The body without its Content-Encoding. Raises Problem, also while it is read."""
    coding = upload.headers.get("Content-Encoding", "identity").strip().lower()
    if coding in ("", "identity"):
        return upload.chunks
    if coding in ("gzip", "x-gzip"):
        return _unpacked(upload.chunks)
    raise Problem(
        UNSUPPORTED_MEDIA_TYPE,
        "send it as it is, or set Content-Encoding to gzip",
        headers={"Accept-Encoding": "gzip, identity"},
    )


async def _unpacked(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """Of gzip, several members one after the other included."""
    unpacker, count = zlib.decompressobj(_GZIP_WBITS), 0
    async for chunk in chunks:
        rest = chunk
        while rest:
            if unpacker.eof:
                # Blocks of a tape, or of a cipher, are filled up with zeros.
                if not (rest := rest.lstrip(b"\0")):
                    break
                unpacker = zlib.decompressobj(_GZIP_WBITS)
            try:
                piece = unpacker.decompress(rest, UNPACKED_PIECE_BYTES)
            except zlib.error:
                raise Problem(MALFORMED, "its gzip data is damaged: pack and send it again") from None
            rest = unpacker.unconsumed_tail or unpacker.unused_data
            count += len(piece)
            if count > UNPACKED_BYTES_MAX:
                raise Problem(TOO_LARGE, f"it unpacks to more than {UNPACKED_BYTES_MAX >> 30} GB: split it")
            yield piece
    if not unpacker.eof:
        raise Problem(MALFORMED, "its gzip data breaks off before its end: send it again")


async def digest_of(upload: Upload) -> str:
    """The SHA-256 of a body that is only read."""
    digest = hashlib.sha256()
    async for chunk in content_of(upload):
        digest.update(chunk)
    return digest.hexdigest()


class BodyFile(io.RawIOBase):
    """A body as a file. To be read within `in_pieces` only, which waits where a read has to."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        super().__init__()
        self._chunks = chunks
        self._digest = hashlib.sha256()
        self._left = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        if not self._left:
            self._left = memoryview(await_only(self._next()))
        part = self._left[: len(buffer)]
        buffer[: len(part)] = part
        self._left = self._left[len(part) :]
        return len(part)

    async def _next(self) -> bytes:
        await asyncio.sleep(0)  # a turn for others, also where all of it is there already
        async for chunk in self._chunks:
            if chunk:
                self._digest.update(chunk)
                return chunk
        return b""

    async def drain(self) -> None:
        """Read what is left of it."""
        while await self._next():
            pass

    def sha256(self) -> str:
        """Of what was read so far."""
        return self._digest.hexdigest()


class InPieces(AsyncIterator[list[T]]):
    """What a reader of a BodyFile gives, some at a time."""

    def __init__(self, lines: Iterator[T]) -> None:
        self._lines = lines

    async def __anext__(self) -> list[T]:
        piece = await greenlet_spawn(self._take)
        if not piece:
            raise StopAsyncIteration
        await asyncio.sleep(0)
        return piece

    def _take(self) -> list[T]:
        return list(islice(self._lines, PIECE_LINES))
