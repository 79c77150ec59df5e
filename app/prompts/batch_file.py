"""Reads a file of the batch dialect: JSON lines of `custom_id`, `method`, `url` and `body`, each a task.

May import the domain only. Nothing it says contains a prompt. Memory stays flat: one line at a time.
"""

import asyncio
import codecs
from collections.abc import AsyncIterator, Mapping

import msgspec

from app.domain.engines.rules import ENGINES, UNKNOWN_NAMED, EngineProblem, check, display
from app.domain.own_columns import BadLine
from app.domain.task import TaskSpec
from app.prompts.lines import RECORD_BYTES_MAX
from app.prompts.own import read_own
from app.prompts.rows import repeated_members

ENDPOINTS = {f"/v1/monitor/{name.lower().replace('_', '/')}": name for name in ENGINES}
"""What a batch may ask: its engine by path."""
PIECE_LINES = 100
"""Read without a turn for other work: some 2 ms."""
_NAMES = ("custom_id", "method", "url", "body")
_REMEDY = f"leave it out, or put it into body if the engine takes it: a line has {', '.join(_NAMES)}"
_KNOWN = ", ".join(ENDPOINTS)
_JSON = msgspec.json.Decoder()


def endpoint_remedy() -> str:
    """Which there are."""
    return f"use one of {_KNOWN}"


async def read_batch_file(
    chunks: AsyncIterator[bytes], endpoint: str
) -> AsyncIterator[list[TaskSpec | BadLine]]:
    """Tasks and bad lines in the order of a file, some at a time. Raises nothing for what stands there."""
    ordinal, piece = 0, list[TaskSpec | BadLine]()
    async for number, line in _lines(chunks):
        if line is not None and not line.strip():
            continue
        ordinal += 1
        found = _too_long() if line is None else read_line(ordinal, number, line, endpoint)
        piece += [found] if isinstance(found, TaskSpec) else [BadLine(number, *fault) for fault in found]
        if len(piece) >= PIECE_LINES:
            yield piece
            piece = []
            await asyncio.sleep(0)  # a turn for others
    if not ordinal:
        piece.append(BadLine(1, "file", "empty", "write one request as a JSON object on each line"))
    yield piece


def read_line(ordinal: int, number: int, line: bytes, endpoint: str) -> TaskSpec | list[EngineProblem]:
    """The task of one line, or everything that is wrong with it."""
    try:
        request = _JSON.decode(line)
        twice = repeated_members(line.decode())
    except UnicodeDecodeError:
        return [EngineProblem("line", "not UTF-8", "save the file as UTF-8")]
    except msgspec.DecodeError as error:
        return [EngineProblem("line", str(error), "write one JSON object on one line")]
    except RecursionError:
        return [EngineProblem("line", "nested too deeply", "write a plain object")]
    if not isinstance(request, dict):
        return [EngineProblem("line", "not a JSON object", "write custom_id, method, url and body")]
    return twice or _task(ordinal, number, request, endpoint)


def _task(
    ordinal: int, number: int, request: Mapping[str, object], endpoint: str
) -> TaskSpec | list[EngineProblem]:
    body, custom_id = request.get("body"), request.get("custom_id")
    own = None
    problems = [*_head_problems(request, endpoint)]
    if isinstance(custom_id, str) and custom_id.strip():
        own = read_own(number, custom_id, {})
        problems += own if isinstance(own, list) else []
    if not isinstance(body, dict):
        problems.append(EngineProblem("body", "no JSON object", "write what the engine is asked"))
        return problems
    task_type = ENDPOINTS[endpoint]
    problems += [EngineProblem(f"body.{p.field}", p.problem, p.remedy) for p in check(task_type, body)]
    if problems or own is None or isinstance(own, list):
        return problems
    return TaskSpec(ordinal, task_type, body, own=own)


def _head_problems(request: Mapping[str, object], endpoint: str) -> list[EngineProblem]:
    problems = []
    custom_id, url = request.get("custom_id"), request.get("url")
    if not isinstance(custom_id, str) or not custom_id.strip():
        remedy = "give each line a text of its own, by which you know its answer"
        problems.append(EngineProblem("custom_id", "missing or no text", remedy))
    if request.get("method") != "POST":
        problems.append(EngineProblem("method", "not POST", 'write "POST"'))
    if url not in ENDPOINTS:
        problems.append(EngineProblem("url", "no engine has this address", endpoint_remedy()))
    elif url != endpoint:
        problems.append(
            EngineProblem("url", "another than the batch's endpoint", f"write {endpoint}; one batch asks one")
        )
    return problems + _unknown(request)


def _unknown(request: Mapping[str, object]) -> list[EngineProblem]:
    """What a line says besides: it would be lost, and its writer would not know."""
    unknown = [name for name in request if name not in _NAMES]
    found = [
        EngineProblem(display(name)[1:-1], "no field of a line", _REMEDY) for name in unknown[:UNKNOWN_NAMED]
    ]
    if (others := len(unknown) - UNKNOWN_NAMED) > 0:
        found.append(EngineProblem("line", f"{others:,} more names that no line has", _REMEDY))
    return found


def _too_long() -> list[EngineProblem]:
    return [EngineProblem("line", f"longer than {RECORD_BYTES_MAX:,} bytes", "shorten it")]


async def _lines(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes | None]]:
    """(number from 1, line without its end); None for one that is too long, of which nothing is kept."""
    number, rest, is_passed_over = 1, b"", False
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for line in lines:
            yield number, None if is_passed_over else _bounded(line, number)
            number, is_passed_over = number + 1, False
        if len(rest) > RECORD_BYTES_MAX + len(codecs.BOM_UTF8):
            rest, is_passed_over = b"", True
    if rest or is_passed_over:
        yield number, None if is_passed_over else _bounded(rest, number)


def _bounded(line: bytes, number: int) -> bytes | None:
    line = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
    return line if len(line) <= RECORD_BYTES_MAX else None
