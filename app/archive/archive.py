"""Blocks in object storage: written, read back and compared before anybody relies on them; read by range.

Which blocks there are stands in the database. A block that was stored but never recorded costs bytes, and
nothing else.
"""

import asyncio
import contextlib
import functools
import hashlib
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app.archive.block import (
    FOOTER_BYTES_MAX,
    BlockSummary,
    BlockWriter,
    BodyReader,
    Packed,
    read_block,
    read_footer,
    read_index,
)
from app.ports import ArchivedBlock, BlockDamaged, ObjectsRefused

if TYPE_CHECKING:
    from app.objects import Objects

INDEXES_KEPT = 4
"""Indexes of blocks in memory: some 20,000 deliveries each, about 15 MB unpacked."""
GAP_BYTES_MAX = 64 * 1024
"""Frames so near to each other are fetched by one request: a request costs more than the bytes between."""
SPAN_BYTES_MAX = 8 * 1024 * 1024
"""No request asks for more."""


@dataclass(frozen=True, slots=True)
class _OpenBlock:
    index: Mapping[str, Packed]
    reader: BodyReader


class Archive:
    """Deliveries that have left the database, in one place of object storage."""

    def __init__(self, display: str, objects: Callable[[], "Objects"]) -> None:
        """`display`: where it is, for people; holds no secret. `objects` is called at first use: most
        processes never use it."""
        self.display = display
        self._opener = objects
        self._open: OrderedDict[str, _OpenBlock] = OrderedDict()

    @functools.cached_property
    def _objects(self) -> "Objects":
        return self._opener()

    async def begin_block(self, samples: Sequence[bytes]) -> "NewBlock":
        """A block to fill; `samples` are bodies that its dictionary is made from. Close it at the end."""
        return await asyncio.to_thread(NewBlock, self._objects, samples)

    async def deliveries(self, block: ArchivedBlock, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        """Delivery id -> its row as it stood in the database, `body` as it was received (encoding identity).
        Without those that are not in the block. Raises BlockDamaged, ObjectsUnavailable, ObjectsRefused."""
        with self._faults_of(block):
            return await self._read(block, ids)

    @contextlib.contextmanager
    def _faults_of(self, block: ArchivedBlock) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            # Not let through: who reads a database takes it for the database's.
            raise ObjectsRefused(
                f"{block.path} is not in the archive {self.display}",
                "let TALLYHOOK_ARCHIVE_URL name the archive that this day went to; where that is lost, "
                "leave it empty, and receipts speak for what was pruned",
            ) from None
        except BlockDamaged as error:
            raise BlockDamaged(f"{block.path} in the archive {self.display} is damaged: {error}") from error

    async def ids(self, block: ArchivedBlock) -> frozenset[str]:
        """Of all deliveries in a block. Raises as `deliveries`."""
        with self._faults_of(block):
            return frozenset((await self._opened(block)).index)

    async def check(self, block: ArchivedBlock) -> None:
        """Read a block from the storage. Raises BlockDamaged when it is not there, or not as it was written;
        ObjectsUnavailable, ObjectsRefused."""
        if await self._objects.size_bytes(block.path) is None:
            raise BlockDamaged(f"{block.path} is not in the archive {self.display}")
        if await _hash_of(self._objects, block.path, block.block_bytes) != block.sha256:
            raise BlockDamaged(f"{block.path} in the archive {self.display} is not as it was written")

    async def _read(self, block: ArchivedBlock, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
        opened = await self._opened(block)
        wanted = [opened.index[i] for i in sorted(set(ids)) if i in opened.index]
        found: dict[str, dict[str, Any]] = {}
        for span in _spans(sorted(wanted, key=lambda packed: packed.start)):
            start, end = span[0].start, span[-1].start + span[-1].length_bytes
            piece = await self._objects.get_range(block.path, start, end - start)
            for packed in span:
                frame = piece[packed.start - start :][: packed.length_bytes]
                body = opened.reader.body(packed, frame)
                found[packed.row["id"]] = packed.row | {"encoding": "identity", "body": body}
        return found

    async def _opened(self, block: ArchivedBlock) -> _OpenBlock:
        if (known := self._open.get(block.path)) is not None:
            self._open.move_to_end(block.path)
            return known
        size = block.block_bytes
        tail = min(size, FOOTER_BYTES_MAX)
        end = await self._objects.get_range(block.path, size - tail, tail)
        footer = read_footer(end, size)
        dictionary = b""
        if footer.dictionary_bytes:
            dictionary = await self._objects.get_range(
                block.path, footer.dictionary_start, footer.dictionary_bytes
            )
        packed = await self._objects.get_range(block.path, footer.index_start, footer.index_bytes)
        index = await asyncio.to_thread(lambda: {entry.row["id"]: entry for entry in read_index(packed)})
        if (len(index), min(index), max(index)) != (block.count, block.first_id, block.last_id):
            raise BlockDamaged("it holds other deliveries than were written: it is another block")
        opened = self._open[block.path] = _OpenBlock(index, BodyReader(dictionary))
        while len(self._open) > INDEXES_KEPT:
            self._open.popitem(last=False)
        return opened


class NewBlock:
    """One block on its way: filled in a file of this machine, then stored, read back and compared."""

    def __init__(self, objects: "Objects", samples: Sequence[bytes]) -> None:
        self._objects = objects
        self._folder = tempfile.TemporaryDirectory(prefix="tallyhook-archive-")
        self._path = Path(self._folder.name) / "block"
        self._file = self._path.open("wb")
        self._writer = BlockWriter(self._file, samples)
        self._hashes: dict[str, str] = {}

    @property
    def size_bytes(self) -> int:
        """So far."""
        return self._writer.size_bytes

    async def add(self, deliveries: Iterable[tuple[dict[str, Any], bytes]]) -> None:
        """The next deliveries, in the order of their ids: each its row without the body, and the body."""
        await asyncio.to_thread(self._add, deliveries)

    def _add(self, deliveries: Iterable[tuple[dict[str, Any], bytes]]) -> None:
        for row, body in deliveries:
            self._writer.add(row, body)
            self._hashes[row["id"]] = hashlib.sha256(body).hexdigest()

    async def store(self, day_ms: int) -> ArchivedBlock:
        """Store the block, read it back, and compare every delivery in it with what was put in. Raises
        BlockDamaged when it does not come back as it was written, ObjectsUnavailable, ObjectsRefused."""
        summary = await asyncio.to_thread(self._writer.finish)
        path = block_path(day_ms, summary)
        await self._objects.put(path, self._path)
        if await _hash_of(self._objects, path, summary.block_bytes) != summary.sha256:
            raise BlockDamaged(f"{path} does not come back as it was stored")
        await asyncio.to_thread(self._compare, path, summary.block_bytes)
        return ArchivedBlock(
            day_ms,
            path,
            summary.first_id,
            summary.last_id,
            summary.count,
            summary.body_bytes,
            summary.block_bytes,
            summary.sha256,
        )

    def _compare(self, path: str, block_bytes: int) -> None:
        """The file, which is equal to the object by now, against the bodies that came from the database."""
        with self._path.open("rb") as file:

            def read(start: int, length_bytes: int) -> bytes:
                file.seek(start)
                return file.read(length_bytes)

            hashes = {
                packed.row["id"]: hashlib.sha256(body).hexdigest()
                for packed, body in read_block(read, block_bytes)
            }
        if hashes != self._hashes:
            raise BlockDamaged(f"{path} does not hold the deliveries that were put in")

    def close(self) -> None:
        """Remove the file."""
        self._file.close()
        self._folder.cleanup()


async def _hash_of(objects: "Objects", path: str, block_bytes: int) -> str:
    """SHA-256 of an object, in hex; empty when there is none of that size."""
    if await objects.size_bytes(path) != block_bytes:
        return ""
    read = hashlib.sha256()
    with contextlib.suppress(FileNotFoundError):  # it went meanwhile, and is short
        for start in range(0, block_bytes, SPAN_BYTES_MAX):
            piece = await objects.get_range(path, start, min(SPAN_BYTES_MAX, block_bytes - start))
            await asyncio.to_thread(read.update, piece)
    return read.hexdigest()


def block_path(day_ms: int, summary: BlockSummary) -> str:
    """Where a block of a day is kept. Its hash is part of it: no other block takes its place."""
    day = datetime.fromtimestamp(day_ms / 1000, UTC).strftime("%Y-%m-%d")
    return f"deliveries/day={day}/{summary.first_id}-{summary.sha256[:16]}.block"


def _spans(wanted: Sequence[Packed]) -> list[list[Packed]]:
    """Neighbours together, as far as one request may fetch them."""
    spans: list[list[Packed]] = []
    for packed in wanted:
        if spans:
            first, last = spans[-1][0], spans[-1][-1]
            gap = packed.start - last.start - last.length_bytes
            length = packed.start + packed.length_bytes - first.start
            if gap <= GAP_BYTES_MAX and length <= SPAN_BYTES_MAX:
                spans[-1].append(packed)
                continue
        spans.append([packed])
    return spans
