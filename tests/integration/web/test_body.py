"""Reading stops at its bounds: how much was consumed is counted at the stream."""

import gzip
import tracemalloc
from types import SimpleNamespace
from typing import Any

import pytest

from app.web.receiver.body import FREE_BYTES, BodyRefused, ReadBudget, read_body

MIB = 1024 * 1024
CHUNK = 64 * 1024


class CountingStream:
    """Gives `data` in chunks and counts what was taken."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self.consumed = 0

    def is_eof(self) -> bool:
        return False

    async def readany(self) -> bytes:
        chunk = self._data[self.consumed : self.consumed + CHUNK]
        self.consumed += len(chunk)
        return chunk


async def read(stream: CountingStream, bytes_max: int, *, budget: ReadBudget) -> bytes:
    request: Any = SimpleNamespace(content_length=None, content=stream)
    return await read_body(request, budget, bytes_max=bytes_max, timeout_s=30.0)


@pytest.mark.parametrize("mebibytes", [1, 16, 64])
async def test_r9_reading_stops_at_the_cap(mebibytes: int) -> None:
    stream = CountingStream(bytes(mebibytes * MIB + 1))
    budget = ReadBudget(64 * MIB)
    with pytest.raises(BodyRefused, match="oversize") as refused:
        await read(stream, MIB, budget=budget)
    assert refused.value.status == 413
    assert stream.consumed <= MIB + CHUNK
    assert budget.used_bytes == 0


async def test_r10_a_bomb_stays_as_small_as_it_came() -> None:
    bomb = gzip.compress(bytes(256 * MIB), 1)
    tracemalloc.start()
    try:
        assert await read(CountingStream(bomb), 4 * MIB, budget=ReadBudget(4 * MIB)) == bomb
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 6 * MIB


async def test_bodies_being_read_share_a_budget() -> None:
    budget = ReadBudget(MIB)
    assert len(await read(CountingStream(bytes(MIB)), MIB, budget=budget)) == MIB
    budget.reserve(MIB - 100)
    with pytest.raises(BodyRefused, match="full") as refused:
        await read(CountingStream(bytes(MIB)), MIB, budget=budget)
    assert refused.value.status == 503
    assert budget.used_bytes == MIB - 100
    # A delivery of the usual size is read even when large ones have taken everything.
    assert len(await read(CountingStream(bytes(FREE_BYTES)), MIB, budget=budget)) == FREE_BYTES
