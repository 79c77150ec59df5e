"""A block: some thousands of deliveries of one day in one object, packed by a dictionary made from them.

    magic | dictionary | one zstd frame for each body | index | footer | length of the footer | magic

The index, packed too, has a line of JSON for each delivery: its row without the body, where its frame lies,
and the SHA-256 of the body as it was received. The footer says where everything is. So one delivery is read
by its range, and a block explains itself without a database. Touches no network.
"""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO

from app.ports import BlockDamaged
from app.zstd import zstd

MAGIC = b"tallyhook-block1"
FOOTER_BYTES_MAX = 4_096
"""A reader that fetches so much of the end has the footer."""
DICTIONARY_BYTES = 112_640
"""The size that zstd recommends; it is stored once in a block of 64 MB."""
DICTIONARY_BYTES_MIN = 1_024
DICTIONARY_SHARE = 20
"""Of few bodies it is no larger than a twentieth: it must not cost more than it saves."""
SAMPLES_MAX = 2_000
"""Bodies that a dictionary is made from: of 18 KB they are 36 MB."""
LEVEL = 6
"""See docs/performance.md (Choices); a body is packed so once, by a worker that has time."""
_TAIL = 4 + len(MAGIC)


@dataclass(frozen=True, slots=True)
class Packed:
    """A delivery in a block."""

    row: dict[str, Any]
    """The columns of its row, without `body`."""
    start: int
    length_bytes: int
    sha256: str
    """Of the body as it was received, in hex."""


@dataclass(frozen=True, slots=True)
class BlockSummary:
    """What a finished block holds."""

    count: int
    first_id: str
    last_id: str
    body_bytes: int
    """Of the bodies, as they were received."""
    block_bytes: int
    sha256: str
    """Of the whole block, in hex."""


@dataclass(frozen=True, slots=True)
class Footer:
    """Where the parts of a block are."""

    dictionary_bytes: int
    index_start: int
    index_bytes: int
    count: int

    @property
    def dictionary_start(self) -> int:
        return len(MAGIC)


class BlockWriter:
    """Writes one block to a file: `add` the deliveries in the order of their ids, then `finish`."""

    def __init__(self, file: BinaryIO, samples: Sequence[bytes]) -> None:
        self._file = file
        self._hash = hashlib.sha256()
        self._dictionary = _train(samples)
        trained = None if self._dictionary is None else zstd.ZstdDict(self._dictionary)
        self._compressor = zstd.ZstdCompressor(LEVEL, zstd_dict=trained)
        self._index: list[str] = []
        self._ids: list[str] = []
        self._body_bytes = 0
        self.size_bytes = 0
        self._write(MAGIC)
        self._write(self._dictionary or b"")

    def add(self, row: dict[str, Any], body: bytes) -> None:
        """Append a delivery; `row` has JSON values, its `id` among them."""
        frame = self._compressor.compress(body, zstd.ZstdCompressor.FLUSH_FRAME)
        place = [self.size_bytes, len(frame), hashlib.sha256(body).hexdigest()]
        self._index.append(json.dumps([row, *place], separators=(",", ":")))
        self._ids.append(row["id"])
        self._body_bytes += len(body)
        self._write(frame)

    def finish(self) -> BlockSummary:
        """Write index and footer; the file is flushed to the disk."""
        index_start = self.size_bytes
        index = zstd.compress("\n".join(self._index).encode(), LEVEL)
        self._write(index)
        parts = [len(self._dictionary or b""), index_start, len(index), len(self._ids)]
        footer = json.dumps(parts).encode()
        self._write(footer)
        self._write(len(footer).to_bytes(4, "little"))
        self._write(MAGIC)
        self._file.flush()
        os.fsync(self._file.fileno())
        return BlockSummary(
            len(self._ids),
            self._ids[0],
            self._ids[-1],
            self._body_bytes,
            self.size_bytes,
            self._hash.hexdigest(),
        )

    def _write(self, part: bytes) -> None:
        self._file.write(part)
        self._hash.update(part)
        self.size_bytes += len(part)


def read_footer(end: bytes, block_bytes: int) -> Footer:
    """The footer, from the last bytes of a block (FOOTER_BYTES_MAX are enough). Raises BlockDamaged."""
    if end[-len(MAGIC) :] != MAGIC or len(end) < _TAIL:
        raise BlockDamaged("its end is not that of a block")
    length = int.from_bytes(end[-_TAIL : -len(MAGIC)], "little")
    try:
        parts = json.loads(end[-_TAIL - length : -_TAIL])
        footer = Footer(*parts)
        is_inside = len(MAGIC) + footer.dictionary_bytes <= footer.index_start
    except (ValueError, TypeError) as error:
        raise BlockDamaged("its footer cannot be read") from error
    if not is_inside or footer.index_start + footer.index_bytes + length + _TAIL != block_bytes:
        raise BlockDamaged("its footer does not fit its size")
    return footer


def read_index(packed: bytes) -> Iterator[Packed]:
    """The deliveries of a block, in the order of their ids. Raises BlockDamaged."""
    try:
        lines = zstd.decompress(packed).decode().split("\n")
        for line in lines:
            row, start, length_bytes, sha256 = json.loads(line)
            yield Packed(row, start, length_bytes, sha256)
    except (zstd.ZstdError, ValueError, TypeError) as error:
        raise BlockDamaged("its index cannot be read") from error


class BodyReader:
    """Unpacks the bodies of one block."""

    def __init__(self, dictionary: bytes) -> None:
        self._dictionary = zstd.ZstdDict(dictionary) if dictionary else None

    def body(self, packed: Packed, frame: bytes) -> bytes:
        """The body as it was received. Raises BlockDamaged when it is not the one that was written."""
        try:
            body = zstd.decompress(frame, self._dictionary)
        except zstd.ZstdError as error:
            raise BlockDamaged(f"delivery {packed.row['id']} does not unpack: {error}") from error
        if hashlib.sha256(body).hexdigest() != packed.sha256:
            raise BlockDamaged(f"delivery {packed.row['id']} is not the body that was written")
        return body


def read_block(read: Callable[[int, int], bytes], block_bytes: int) -> Iterator[tuple[Packed, bytes]]:
    """Every delivery of a block with its body, each checked; `read` returns the bytes from a start and of a
    length. Raises BlockDamaged."""
    tail = min(block_bytes, FOOTER_BYTES_MAX)
    footer = read_footer(read(block_bytes - tail, tail), block_bytes)
    if read(0, len(MAGIC)) != MAGIC:
        raise BlockDamaged("its beginning is not that of a block")
    reader, count = BodyReader(read(footer.dictionary_start, footer.dictionary_bytes)), 0
    for packed in read_index(read(footer.index_start, footer.index_bytes)):
        count += 1
        yield packed, reader.body(packed, read(packed.start, packed.length_bytes))
    if count != footer.count:
        raise BlockDamaged(f"it has {count} deliveries, its footer says {footer.count}")


def _train(samples: Iterable[bytes]) -> bytes | None:
    """A dictionary made from some bodies; None where they are too few or too short to make one."""
    chosen = [sample for sample in samples if sample][:SAMPLES_MAX]
    size = min(DICTIONARY_BYTES, sum(map(len, chosen)) // DICTIONARY_SHARE)
    if size < DICTIONARY_BYTES_MIN:
        return None
    try:
        return bytes(zstd.train_dict(chosen, size).dict_content)
    except (zstd.ZstdError, ValueError):
        return None
