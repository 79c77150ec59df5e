"""A provider that accepts everything and remembers nothing:
`python -m benchmarks.bench.noop_provider --port N`.

Bytes in, the same answer out, with no HTTP library in between, so that a sender is measured and not this.
"""

import argparse
import asyncio
import json
from typing import Any

import uvloop

CREDITS = 5
"""Of one CHATGPT task without extras, so that it is what ours expects."""


def _answer(status: str, body: dict[str, Any]) -> bytes:
    content = json.dumps(body).encode()
    head = f"HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n\r\n"
    return head.encode() + content


_CREATED = _answer(
    "200 OK",
    {
        "success": True,
        "task": {"id": "b27a21e1-7c39-4aa2-a347-23e828c426f9", "taskType": "CHATGPT", "status": "QUEUED"},
        "credits": {"creditsToCharge": CREDITS, "creditsCharged": None},
    },
)
_NOT_FOUND = _answer("404 Not Found", {"success": False, "error": {"code": "NOT_FOUND", "message": "none"}})


class NoopProvider(asyncio.Protocol):
    """One connection."""

    def __init__(self) -> None:
        self._got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: Any = transport

    def data_received(self, data: bytes) -> None:
        self._got += data
        head, separator, body = self._got.partition(b"\r\n\r\n")
        if not separator or len(body) < _content_length(head):
            return
        self._got = b""
        self._transport.write(_CREATED if head.startswith(b"POST") else _NOT_FOUND)


def _content_length(head: bytes) -> int:
    _, found, rest = head.lower().partition(b"content-length:")
    return int(rest.split(b"\r\n", 1)[0]) if found else 0


async def serve(port: int) -> None:
    """Serve until ended."""
    server = await asyncio.get_running_loop().create_server(NoopProvider, "127.0.0.1", port)
    await server.serve_forever()


def main() -> None:
    """Parse and serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    uvloop.run(serve(parser.parse_args().port))


if __name__ == "__main__":
    main()
