"""The sender that ours is compared with: `python -m benchmarks.bench.bare_client URL FILE --in-flight 64`.

An aiohttp client that posts each line of FILE as the body of one create call and reads the answer. It claims,
records and paces nothing. Prints one JSON line.
"""

import argparse
import asyncio
import json
import time
from collections import Counter
from pathlib import Path

import aiohttp
import uvloop

from app.config import EMULATOR_KEY


async def send_all(url: str, bodies: list[bytes], in_flight: int) -> dict[str, object]:
    """Post every body once, so many at a time; the rate over all of it."""
    headers = {"Authorization": f"Bearer {EMULATOR_KEY}", "Content-Type": "application/json"}
    todo, statuses = iter(bodies), Counter[int]()

    async def send() -> None:
        for body in todo:
            async with session.post(url, data=body) as response:
                await response.read()
                statuses[response.status] += 1

    connector = aiohttp.TCPConnector(limit=in_flight)
    async with aiohttp.ClientSession(headers=headers, connector=connector) as session:
        started = time.perf_counter()
        await asyncio.gather(*(send() for _ in range(in_flight)))
        seconds = time.perf_counter() - started
    return {"per_s": len(bodies) / seconds, "statuses": dict(statuses)}


def main() -> None:
    """Parse, send, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("file", type=Path)
    parser.add_argument("--in-flight", type=int, default=64)
    options = parser.parse_args()
    bodies = options.file.read_bytes().splitlines()
    print(json.dumps(uvloop.run(send_all(options.url, bodies, options.in_flight))))


if __name__ == "__main__":
    main()
