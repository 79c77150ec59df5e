"""The load: a process of its own that posts prepared requests over kept connections and does nothing else.

`python -m benchmarks.bench.load` reads one JSON command a line and answers each with one. Everything
that costs (bodies, signatures, heads) is made by `prepare`; while `run` measures, bytes are only moved.
"""

import asyncio
import json
import statistics
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import uvloop

from benchmarks.bench.bodies import signed_headers, write_bodies

SIGNED_FOR_S = 200
"""Requests are signed anew when older: deliveries are refused after 300 s (C-I.3)."""
SIGNED_PER_S = 1_000
SPREAD_MAX_S = 60


class Load:
    """Prepared requests, and one run over them at a time."""

    def __init__(self) -> None:
        self._bodies: list[tuple[str, bytes]] = []
        self._requests: list[bytes] = []
        self._seconds: set[int] = set()
        self._signed_s = 0
        self._sent = 0
        """Requests before this one were sent as they are signed now."""

    def prepare(self, seed: int, count: int, keys_file: str | None = None) -> dict[str, Any]:
        """Make `count` requests; `keys_file` holds an idempotency key a line; without it they are made up."""
        keys = Path(keys_file).read_text().split() if keys_file else [f"key{n}" for n in range(count)]
        self._bodies = list(write_bodies(seed, keys))
        self._sign()
        return {"requests": len(self._requests), "bytes": len(self._bodies[0][1])}

    def prepare_posts(
        self, path: str, bodies_file: str, headers: dict[str, str], method: str = "POST"
    ) -> dict[str, Any]:
        """Make a request of each line of a file, without a signature."""
        self._bodies, self._sent = [], 0
        lines = Path(bodies_file).read_bytes().splitlines()
        self._requests = [_post(path, body, headers, method) for body in lines]
        return {"requests": len(self._requests)}

    def _sign(self) -> None:
        # Never twice for the same second: a repeat of a delivery is only counted.
        second_s = int(time.time())
        while second_s in self._seconds:
            second_s -= 1
        self._seconds.add(second_s)
        self._signed_s, self._sent = second_s, 0
        # Over the seconds before, as fast as the provider is: the time of signing decides where a row is put.
        each_s = max(SIGNED_PER_S, len(self._bodies) // SPREAD_MAX_S)
        first_s = second_s - len(self._bodies) // each_s
        self._requests = [
            self._request(task_id, body, first_s + n // each_s)
            for n, (task_id, body) in enumerate(self._bodies)
        ]

    def _request(self, task_id: str, body: bytes, signed_s: int) -> bytes:
        return _post("/webhooks/cloro", body, signed_headers(task_id, body, signed_s))

    async def run(
        self, port: int, seconds: float, connections: int, first: int = 0, count: int | None = None
    ) -> dict[str, Any]:
        """Post from request number `first` on, over so many connections, until the time is over or `count`
        are answered. Answers a second, from the first byte sent to the last one answered."""
        if self._bodies and (first < self._sent or time.time() - self._signed_s > SIGNED_FOR_S):
            self._sign()
        end = self._sent = len(self._requests) if count is None else first + count
        one = _Run(self._requests[first:end], seconds)
        loop = asyncio.get_running_loop()
        lines = [
            (await loop.create_connection(lambda: _Connection(one), "127.0.0.1", port))[1]
            for _ in range(connections)
        ]
        one.begin(lines)
        await one.over
        for line in lines:
            line.close()
        return one.figures()


class _Run:
    """What connections share while one run goes on."""

    def __init__(self, requests: list[bytes], seconds: float) -> None:
        self._requests = iter(requests)
        self._seconds = seconds
        self._open = 0
        self._statuses: Counter[int] = Counter()
        self.latencies_s: list[float] = []
        self.over: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._started_s = self._last_s = self._until_s = 0.0

    def begin(self, lines: "list[_Connection]") -> None:
        self._started_s = time.perf_counter()
        self._until_s = self._started_s + self._seconds
        self._open = len(lines)
        for line in lines:
            line.send_next()

    def next_request(self) -> bytes | None:
        """None: this connection is done."""
        if time.perf_counter() < self._until_s and (request := next(self._requests, None)) is not None:
            return request
        self._open -= 1
        if not self._open and not self.over.done():
            self.over.set_result(None)
        return None

    def answered(self, status: int, sent_s: float) -> None:
        self._last_s = time.perf_counter()
        self._statuses[status] += 1
        self.latencies_s.append(self._last_s - sent_s)

    def failed(self, error: BaseException | None) -> None:
        if not self.over.done():
            self.over.set_exception(error or ConnectionError("the server closed a connection"))

    def figures(self) -> dict[str, Any]:
        cuts = statistics.quantiles(self.latencies_s, n=100) if len(self.latencies_s) > 1 else [0.0] * 99
        seconds = self._last_s - self._started_s
        answered = self._statuses.total()
        return {
            "answered": answered,
            "seconds": seconds,
            "per_s": answered / seconds,
            "statuses": dict(self._statuses),
            "p50_ms": cuts[49] * 1000,
            "p99_ms": cuts[98] * 1000,
        }


class _Connection(asyncio.Protocol):
    """One kept connection: a request, its answer, the next request."""

    def __init__(self, run: _Run) -> None:
        self._run = run
        self._got = b""
        self._sent_s = 0.0
        self._idle = True

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def send_next(self) -> None:
        request = self._run.next_request()
        self._idle = request is None
        if request is not None:
            self._sent_s = time.perf_counter()
            self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, separator, body = self._got.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        self._got = b""
        self._run.answered(int(head[9:12]), self._sent_s)
        self.send_next()

    def connection_lost(self, exc: BaseException | None) -> None:
        if not self._idle:
            self._run.failed(exc)

    def close(self) -> None:
        self._transport.close()


def _post(path: str, body: bytes, headers: Mapping[str, str], method: str = "POST") -> bytes:
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in headers.items()),
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def _content_length(head: bytes) -> int:
    _, _, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0])


def main() -> None:
    """Commands in, answers out, until the input ends."""
    load = Load()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for line in sys.stdin:
            command = json.loads(line)
            do = command.pop("do")
            how = {"prepare": load.prepare, "prepare_posts": load.prepare_posts}.get(do)
            answer: Any = how(**command) if how else runner.run(load.run(**command))
            print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main()
