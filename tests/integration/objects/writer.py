"""A process that stores one large object or another under one path until it is killed, and writes a line at
its start and after each:
python -m tests.integration.objects.writer URL PATH SIZE_BYTES
"""

import asyncio
import sys

from app.address import read_objects_address
from app.objects import open_objects


async def write(url: str, path: str, size_bytes: int) -> None:
    objects = open_objects(read_objects_address(url))
    letter, other = b"a", b"b"
    while True:
        sys.stdout.write("next\n")
        sys.stdout.flush()
        await objects.put(path, letter * size_bytes)
        letter, other = other, letter


if __name__ == "__main__":
    asyncio.run(write(sys.argv[1], sys.argv[2], int(sys.argv[3])))
