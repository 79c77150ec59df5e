"""Lines of a batch file, wherever the pieces that they come in are cut."""

import json
from collections.abc import AsyncIterator
from typing import Any

from app.domain.own_columns import BadLine
from app.domain.task import TaskSpec
from app.prompts.batch_file import ENDPOINTS, PIECE_LINES, read_batch_file
from app.prompts.lines import RECORD_BYTES_MAX

ENDPOINT = "/v1/monitor/google/news"


async def read(content: bytes, piece_bytes: int) -> list[TaskSpec | BadLine]:
    async def pieces() -> AsyncIterator[bytes]:
        for start in range(0, len(content), piece_bytes):
            yield content[start : start + piece_bytes]

    return [line async for some in read_batch_file(pieces(), ENDPOINT) for line in some]


def line(n: int, **more: Any) -> bytes:
    body = {"query": f"Füße {n}", "country": "DE"}
    return json.dumps({"custom_id": f"{n}", "method": "POST", "url": ENDPOINT, "body": body} | more).encode()


async def test_lines_are_the_same_wherever_pieces_end() -> None:
    content = b"\xef\xbb\xbf" + line(1) + b"\r\n\n" + line(2) + b"\nx\n" + line(4)
    whole = await read(content, len(content))
    assert [one.line for one in whole if isinstance(one, BadLine)] == [4]
    tasks = [one for one in whole if isinstance(one, TaskSpec)]
    assert [(one.ordinal, one.own.line if one.own else 0) for one in tasks] == [(1, 1), (2, 3), (4, 5)]
    for piece_bytes in (1, 2, 3, 7, 100):
        assert await read(content, piece_bytes) == whole


async def test_a_line_without_an_end_is_passed_over() -> None:
    long = b"x" * (3 * RECORD_BYTES_MAX)
    content = line(1) + b"\n" + long + b"\n" + line(3) + b"\n" + long
    found = await read(content, 50_000)
    assert [isinstance(one, BadLine) for one in found] == [False, True, False, True]
    assert [one.line for one in found if isinstance(one, BadLine)] == [2, 4]


async def test_every_engine_has_an_address() -> None:
    assert ENDPOINTS["/v1/monitor/google/news"] == "GOOGLE_NEWS"
    assert ENDPOINTS["/v1/monitor/chatgpt"] == "CHATGPT"
    many = await read(b"\n".join(line(n) for n in range(2 * PIECE_LINES + 1)), 1 << 20)
    assert [one.ordinal for one in many if isinstance(one, TaskSpec)] == list(range(1, 2 * PIECE_LINES + 2))
