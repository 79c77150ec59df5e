"""Requests that no client of ours sends: a silent sender, one that goes away, two tokens, strange paths."""

import asyncio
import io

import pytest
import structlog
from yarl import URL

from app.api import validate
from app.api.problems import Problem
from app.api.repeated import refuse_repeated_members
from app.store import Store
from app.store.tables import batch_files, tasks
from tests.integration.api.asking import Api, until
from tests.integration.api.conftest import StartApi
from tests.integration.api.test_provider import rows

FORM = "Content-Type: multipart/form-data; boundary=b\r\nContent-Length: 1000\r\n"
HALF = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nhalf of it'


async def opened(
    api: Api, line: str, headers: str, body: bytes = b""
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection on which this much was sent."""
    reader, writer = await asyncio.open_connection("127.0.0.1", api.client.port)
    writer.write(f"{line} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n".encode() + body)
    return reader, writer


async def answer_to(api: Api, line: str, headers: str, body: bytes = b"") -> bytes:
    """All that comes back."""
    reader, writer = await opened(api, line, headers, body)
    async with asyncio.timeout(20):
        answer = await reader.read()
    writer.close()
    return answer


async def bearer(api: Api, scope: str = "operate") -> str:
    return f"Authorization: Bearer {await api.token(scope)}\r\n"


async def test_a_sender_that_falls_silent_gives_its_place_back(
    sqlite_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(validate, "SILENT_S", 0.1)
    token = await bearer(sqlite_api)
    for body in (b"", b"--b\r\n", HALF):
        answer = await answer_to(sqlite_api, "POST /v1/files", token + FORM, body)
        assert answer.startswith(b"HTTP/1.1 408 "), body
    lines = "Content-Type: application/x-ndjson\r\nContent-Length: 1000\r\n"
    answer = await answer_to(sqlite_api, "POST /v1/runs?task_type=GEMINI", token + lines, b"{")
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert await rows(sqlite_api, batch_files) == []


async def test_slow_bodies_hold_nobody_up(sqlite_store: Store, start_api: StartApi) -> None:
    api = await start_api(sqlite_store, api_in_flight=2, api_timeout_s=60.0)
    json = await bearer(api) + "Content-Type: application/json\r\nContent-Length: 90\r\n"
    slow = [await opened(api, "POST /v1/batches", json, b"{") for _ in range(8)]
    async with asyncio.timeout(30):
        assert (await api.ask("/v1/runs")).status == 200
    for _, writer in slow:
        writer.transport.abort()


async def test_a_slow_body_is_given_up_after_a_while(sqlite_store: Store, start_api: StartApi) -> None:
    api = await start_api(sqlite_store, api_timeout_s=0.1)
    json = await bearer(api) + "Content-Type: application/json\r\nContent-Length: 90\r\n"
    assert (await answer_to(api, "POST /v1/batches", json, b"{")).startswith(b"HTTP/1.1 408 ")


async def test_a_sender_that_goes_away_leaves_no_file_and_no_traceback(sqlite_api: Api) -> None:
    token = await bearer(sqlite_api)

    async def files() -> int:
        return len(await rows(sqlite_api, batch_files))

    with structlog.testing.capture_logs() as logs:
        _, writer = await opened(sqlite_api, "POST /v1/files", token + FORM, HALF)
        await until(files, 1)
        writer.transport.abort()
        await until(files, 0)

        async def is_logged() -> bool:
            return any(entry.get("status") == 499 for entry in logs)

        await until(is_logged, True)
    assert [entry for entry in logs if entry["log_level"] in ("warning", "error")] == []


TASK = '{"taskType": "GEMINI", "payload": {"prompt": "x", "country": "DE"}}'
RUN = '{"task_type": "GEMINI", "country": "DE", "prompts": [{"prompt": "x"}]}'
BATCH = '{"input_file_id": "x", "endpoint": "/v1/monitor/gemini", "completion_window": "24h"}'
CALL = (
    '{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "x", "arguments": {"run": "x"}}}'
)


@pytest.mark.parametrize(
    ("path", "body", "once", "status"),
    [
        ("/v1/async/task", TASK, '"prompt": "x"', 400),
        ("/v1/async/task", TASK, '"taskType": "GEMINI"', 400),
        ("/v1/async/task/batch", f"[{TASK}]", '"country": "DE"', 400),
        ("/v1/monitor/gemini", '{"prompt": "x", "country": "DE"}', '"prompt": "x"', 400),
        ("/v1/runs", RUN, '"country": "DE"', 422),
        ("/v1/runs", RUN, '"prompt": "x"', 422),
        ("/v1/batches", BATCH, '"endpoint": "/v1/monitor/gemini"', 400),
        ("/mcp", CALL, '"run": "x"', 422),
    ],
)
async def test_a_body_that_says_one_thing_twice_is_refused(
    sqlite_api: Api, path: str, body: str, once: str, status: int
) -> None:
    twice = body.replace(once, f"{once}, {once}")
    answer = await sqlite_api.ask(path, "POST", data=twice, headers={"Content-Type": "application/json"})
    assert answer.status == status, answer.body
    assert b"given twice" in answer.body
    assert once.split('"')[1].encode() in answer.body
    assert await rows(sqlite_api, tasks) == []


def test_whether_a_body_says_one_thing_twice_is_told_by_its_quotes() -> None:
    for body in (
        '{"a": "b", "c": ["d", {"a": "a"}], "e": 1.5, "f": null}',
        r'{"a": "\"", "b\\": "\\\\\"", "c": "\u0022"}',
        '["a", "a"]',
        '{"a": NaN, "ä": "ö", "": ""}',
        "1",
    ):
        refuse_repeated_members(body.encode())
    for body in (
        '{"a": 1, "a": 1}',
        '[{"b": {"a": "x", "c": 2, "a": {"d": "e"}}}]',
        r'{"a": "\"", "a": "\\"}',
        r'{"a": 1, "\u0061": 2}',
    ):
        with pytest.raises(Problem) as refused:
            refuse_repeated_members(body.encode())
        assert [error.field for error in refused.value.errors] == ["a"]


def members(count: int, name: str = "n{}") -> str:
    return ",".join(f'"{name.format(n)}": true' for n in range(count))


@pytest.mark.parametrize(
    ("path", "body", "said"),
    [
        ("/v1/runs", f"{{{members(1_001)}}}", "it has 1,002 faults"),
        ("/v1/runs", f"{{{members(500)}}}", '"errors_unnamed":401'),
        ("/v1/bulk-changes", f'{{"verb": "retry", "filter": {{{members(2_000)}}}}}', "it has 2,000 faults"),
        ("/v1/async/task", f"{{{members(2_000)}}}", "it has 2,002 faults"),
        ("/v1/async/task", TASK.replace('"prompt"', f'{members(20_000)}, "prompt"'), "19,990 more names"),
        ("/v1/monitor/gemini", f'{{"include": {{{members(20_000)}}}}}', "19,990 more names"),
        ("/v1/async/task", TASK.replace('"prompt"', f'{members(25_000)}, {members(25_000)}, "prompt"'), "n9"),
    ],
)
async def test_many_faults_have_a_short_answer_soon(sqlite_api: Api, path: str, body: str, said: str) -> None:
    """The last of these took minutes, in which nobody else was answered."""
    headers = {"Content-Type": "application/json"}
    answer = await sqlite_api.ask(path, "POST", data=io.BytesIO(body.encode()), headers=headers)
    assert answer.status in (400, 422)
    assert said.encode() in answer.body
    assert len(answer.body) < 20_000


async def test_a_byte_order_mark_is_passed_over(sqlite_api: Api) -> None:
    marked = TASK.encode("utf-8-sig")
    headers = {"Content-Type": "application/json"}
    assert (await sqlite_api.ask("/v1/async/task", "POST", data=marked, headers=headers)).status == 200


NATIVE, PROVIDER, OPENAI = "urn:tallyhook:problem:", '"success":false', '"param":null'


@pytest.mark.parametrize(
    ("method", "path", "status", "shape", "said"),
    [
        ("GET", "/v1/nothing", 404, NATIVE, "/openapi.json has all of them"),
        ("PUT", "/v1/runs", 405, NATIVE, "GET, HEAD, POST"),
        ("GET", "/v1/runs/", 404, NATIVE, "but at /v1/runs:"),
        ("GET", "/runs", 404, NATIVE, "but at /v1/runs:"),
        ("GET", "/v1/async/nothing", 404, PROVIDER, "/openapi.json has all of them"),
        ("POST", "/v1/v1/async/task/", 404, PROVIDER, "but at /v1/async/task:"),
        ("DELETE", "/v1/async/task/secret", 405, PROVIDER, "GET, HEAD"),
        ("GET", "/v1/async//task/secret", 404, PROVIDER, "but at /v1/async/task/{task_id}:"),
        ("GET", "/v1/monitor/gemini", 405, PROVIDER, "POST"),
        ("POST", "/v1/credits", 405, PROVIDER, "GET, HEAD"),
        ("POST", "/v1/task", 404, PROVIDER, "/openapi.json has all of them"),
        ("POST", "/v1/files/secret/content", 405, OPENAI, "GET, HEAD"),
        ("GET", "/files", 404, OPENAI, "but at /v1/files:"),
        ("PUT", "/v1/batches/secret", 405, OPENAI, "GET, HEAD"),
        ("GET", "/v1/models", 404, OPENAI, "/openapi.json has all of them"),
        ("POST", "/v1/chat/completions", 404, OPENAI, "/openapi.json has all of them"),
    ],
)
async def test_what_is_no_address_is_said_in_the_words_of_who_asks(
    sqlite_api: Api, method: str, path: str, status: int, shape: str, said: str
) -> None:
    answer = await sqlite_api.ask(path, method)
    assert (answer.status, answer.headers.get("Allow")) == (status, said if status == 405 else None)
    assert shape.encode() in answer.body
    assert said.encode() in answer.body
    assert b"secret" not in answer.body


async def test_a_nul_in_a_path_names_nothing(api: Api) -> None:
    for method, path in (
        ("GET", "/v1/async/task/a%00b"),
        ("DELETE", "/v1/files/a%00b"),
        ("POST", "/v1/batches/a%00b/cancel"),
        ("POST", "/v1/runs/a%00b/cancel"),
        ("GET", "/v1/files/a%00b/content"),
    ):
        answer = await api.ask(URL(path, encoded=True), method)
        assert answer.status == 404, (path, answer.body)


async def test_other_versions_of_http_are_refused(sqlite_api: Api) -> None:
    token = await bearer(sqlite_api)
    for line in ("GET /v1/runs HTTP/2.0", "GET /v1/runs HTTP/0.9", "GET /v1/runs"):
        reader, writer = await asyncio.open_connection("127.0.0.1", sqlite_api.client.port)
        writer.write(f"{line}\r\nHost: x\r\n{token}\r\n".encode())
        async with asyncio.timeout(20):  # and the connection ends
            assert b" 400 Bad Request" in await reader.read(), line
        writer.close()
    reader, writer = await asyncio.open_connection("127.0.0.1", sqlite_api.client.port)
    # Which knows no answer before the answer.
    writer.write(f"POST /v1/runs?dry_run=1 HTTP/1.0\r\n{token}Expect: 100-continue\r\n\r\n".encode())
    async with asyncio.timeout(20):
        assert (await reader.read()).startswith(b"HTTP/1.0 400 ")
    writer.close()


async def test_what_two_readers_of_http_would_take_for_different_requests_is_refused(sqlite_api: Api) -> None:
    """Shapes of request smuggling: each is refused, and its connection ended, before anything is done."""
    token, json = await bearer(sqlite_api), "Content-Type: application/json\r\n"
    chunked, inner = "Transfer-Encoding: chunked\r\n", b"0\r\n\r\nGET /v1/runs HTTP/1.1\r\nHost: x\r\n\r\n"
    for headers in (
        f"{chunked}Content-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: 5, 5\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        f"{chunked}{chunked}",
        " Transfer-Encoding: chunked\r\n",
        "X: a\r\n b\r\n",
        "X: a\nTransfer-Encoding: chunked\r\n",
    ):
        answer = await answer_to(sqlite_api, "POST /v1/async/task", token + json + headers, inner)
        assert answer.count(b"HTTP/1.") == 1, headers
        assert b" 400 Bad Request" in answer, headers
    assert await rows(sqlite_api, tasks) == []


async def test_two_tokens_in_one_request_are_none(sqlite_api: Api) -> None:
    both = await bearer(sqlite_api) + await bearer(sqlite_api, "read")
    assert (await answer_to(sqlite_api, "GET /v1/runs", both)).startswith(b"HTTP/1.1 401 ")


@pytest.mark.parametrize("line", ["OPTIONS *", "CONNECT a:1"])
async def test_what_names_no_path_is_answered_as_any_other(line: str, sqlite_api: Api) -> None:
    answer = await answer_to(sqlite_api, line, await bearer(sqlite_api))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in answer
    assert b"aiohttp" not in answer


async def test_a_path_with_a_line_break_is_answered_as_any_other(sqlite_api: Api) -> None:
    answer = await answer_to(sqlite_api, "GET /v1/runs/a%0d%0aX-Evil:%201", await bearer(sqlite_api))
    assert answer.startswith(b"HTTP/1.1 404 ")
    assert b"application/problem+json" in answer
    assert b"X-Evil" not in answer
