"""A block explains itself, and tells when it is not the one that was written."""

import io
import json
import random
import tempfile
from typing import Any

import pytest

from app.archive.block import FOOTER_BYTES_MAX, MAGIC, BlockWriter, Packed, read_block, read_footer
from app.ports import BlockDamaged


def bodies(seed: int, count: int) -> list[bytes]:
    rng = random.Random(seed)
    words = [rng.randbytes(4).hex() for _ in range(300)]
    return [json.dumps({"n": n, "text": " ".join(rng.choices(words, k=400))}).encode() for n in range(count)]


def written(deliveries: list[bytes], samples: list[bytes]) -> tuple[bytes, Any]:
    with tempfile.TemporaryFile() as file:
        writer = BlockWriter(file, samples)
        for n, body in enumerate(deliveries):
            writer.add({"id": f"id-{n:04}", "state": "done", "tries": n}, body)
        summary = writer.finish()
        file.seek(0)
        return file.read(), summary


def read(block: bytes) -> list[tuple[Packed, bytes]]:
    return list(read_block(lambda start, length: block[start : start + length], len(block)))


@pytest.mark.parametrize("count", [1, 200])
@pytest.mark.parametrize("sampled", [0, 100])
def test_every_delivery_comes_back(count: int, sampled: int) -> None:
    made = bodies(count, count)
    block, summary = written(made, made[:sampled])
    assert (summary.count, summary.block_bytes) == (count, len(block))
    assert (summary.first_id, summary.last_id) == ("id-0000", f"id-{count - 1:04}")
    found = read(block)
    assert [body for _, body in found] == made
    assert [packed.row["tries"] for packed, _ in found] == list(range(count))


def test_a_dictionary_makes_bodies_of_one_shape_smaller() -> None:
    made = bodies(1, 600)
    without, _ = written(made, [])
    packed, _ = written(made, made[:300])
    assert len(packed) < len(without)


def test_odd_bodies_are_kept() -> None:
    made = [b"", b"\x00", b"{" * 5, bytes(range(256)) * 100]
    assert [body for _, body in read(written(made, made)[0])] == made


def test_whatever_byte_is_changed_is_noticed() -> None:
    block, _ = written(bodies(2, 30), bodies(2, 30))
    good = [body for _, body in read(block)]
    rng = random.Random(3)
    for place in [*rng.sample(range(len(block)), 200), *range(len(block) - 120, len(block))]:
        changed = bytearray(block)
        changed[place] ^= 1 << rng.randrange(8)
        try:
            found = [body for _, body in read(bytes(changed))]
        except BlockDamaged:
            continue
        # A byte that nothing depends on, as in the dictionary's unused entries: then all is as it was.
        assert found == good, place


@pytest.mark.parametrize("length", [0, 1, len(MAGIC), 100])
def test_a_block_that_was_cut_is_none(length: int) -> None:
    block, _ = written(bodies(4, 5), [])
    with pytest.raises(BlockDamaged):
        read(block[:length])
    with pytest.raises(BlockDamaged):
        read_footer(block[:-1][-FOOTER_BYTES_MAX:], len(block) - 1)


def test_an_empty_file_is_none() -> None:
    with pytest.raises(BlockDamaged):
        read(io.BytesIO().getvalue())
