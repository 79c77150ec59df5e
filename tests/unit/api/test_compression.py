"""Which coding is chosen, and that each piece can be read as soon as it has come."""

import zlib
from collections.abc import AsyncIterator, Callable

import pytest

from app.api.compression import BESIDE_BYTES, GZIP_WBITS, coding_for, compressed
from app.zstd import zstd


@pytest.mark.parametrize(
    ("accepted", "coding"),
    [
        ("", None),
        ("identity", None),
        ("gzip, deflate, br", "gzip"),
        ("GZIP", "gzip"),
        ("gzip, deflate, br, zstd", "zstd"),
        ("gzip;q=1.0, zstd;q=0.2", "gzip"),
        ("zstd; q=0, gzip", "gzip"),
        ("*", "zstd"),
        ("*;q=0.1, zstd;q=0", "gzip"),
        ("*;q=0", None),
        ("gzip;q=much", None),
    ],
)
def test_the_coding_is_the_one_that_is_preferred(accepted: str, coding: str | None) -> None:
    assert coding_for(accepted) == coding


@pytest.mark.parametrize(
    ("coding", "reader"),
    [
        ("gzip", lambda: zlib.decompressobj(GZIP_WBITS).decompress),
        ("zstd", lambda: zstd.ZstdDecompressor().decompress),
    ],
)
async def test_each_piece_can_be_read_at_once(
    coding: str, reader: Callable[[], Callable[[bytes], bytes]]
) -> None:
    sent = [b"one\n", b"a long one " * BESIDE_BYTES, b"the last\n"]

    async def chunks() -> AsyncIterator[bytes]:
        for chunk in sent:
            yield chunk

    read = reader()
    pieces = [piece async for piece in compressed(chunks(), coding)]
    assert [read(piece) for piece in pieces] == [*sent, b""]
    assert sum(map(len, pieces)) < sum(map(len, sent)) / 10
