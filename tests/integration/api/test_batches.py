"""The batch dialect, through real HTTP on a real store: files, validation, ends, repetitions."""

import asyncio
import contextlib
import io
import itertools
import json
import uuid
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import FormData
from sqlalchemy.util import await_only

from app.api.dialects.batch.status import status_of
from app.domain.task import RunState, TaskState
from app.prompts.batch_file import read_batch_file
from app.services.batch_ends import delete_expired_files, expire_batches
from app.services.batches import load_batch
from app.store import Database, Store
from app.store.tables import batch_file_pieces, batch_files, batches, runs, tasks
from app.store.write.batch_files import PIECE_BYTES
from tests.integration.api.asking import Answered, Api
from tests.integration.api.test_provider import rows

ENDPOINT = "/v1/monitor/gemini"
HOUR_MS = 3_600_000


def request(n: int, **more: Any) -> dict[str, Any]:
    body = {"prompt": f"secret question {n}", "country": "GB"}
    return {"custom_id": f"id-{n}", "method": "POST", "url": ENDPOINT, "body": body} | more


def lines(*requests: Any) -> bytes:
    return b"".join((r if isinstance(r, bytes) else json.dumps(r).encode()) + b"\n" for r in requests)


def form(content: bytes, **more: str) -> FormData:
    made = FormData()
    for name, value in ({"purpose": "batch"} | more).items():
        made.add_field(name, value)
    made.add_field("file", io.BytesIO(content), filename="monday.jsonl", content_type="application/jsonl")
    return made


async def upload(api: Api, content: bytes, **asked: Any) -> str:
    answered = await api.ask("/v1/files", "POST", data=form(content), **asked)
    assert answered.status == 200, answered.body
    return str(answered.document["id"])


async def create(api: Api, file_id: str, **more: Any) -> Answered:
    headers = more.pop("headers", None)
    body = {"input_file_id": file_id, "endpoint": ENDPOINT, "completion_window": "24h"} | more
    return await api.ask("/v1/batches", "POST", json=body, headers=headers)


async def read(api: Api, batch_id: str) -> dict[str, Any]:
    """A batch whose file was read."""
    async with asyncio.timeout(20):
        while True:
            batch = (await api.ask(f"/v1/batches/{batch_id}")).document
            if batch["status"] != "validating":
                return dict(batch)
            await asyncio.sleep(0.01)


async def made(api: Api, *requests: Any) -> dict[str, Any]:
    batch = await create(api, await upload(api, lines(*requests)))
    assert batch.document["status"] == "validating"
    return await read(api, batch.document["id"])


def run_of(batch: dict[str, Any]) -> str:
    digits = batch["id"].removeprefix("batch_")
    return "-".join((digits[:8], digits[8:12], digits[12:16], digits[16:20], digits[20:]))


async def content(api: Api, file_id: str) -> list[Any]:
    answered = await api.ask(f"/v1/files/{file_id}/content")
    assert answered.status == 200
    return [json.loads(line) for line in answered.body.splitlines()]


async def end(api: Api, batch: dict[str, Any], state: TaskState) -> None:
    """As if the provider had ended all tasks so."""
    async with api.store.db.engine.begin() as connection:
        await connection.execute(tasks.update().where(tasks.c.run_id == run_of(batch)).values(state=state))
    await api.store.run_ends.finish_runs(api.clock())


async def test_a_file_is_given_back_as_it_came(api: Api) -> None:
    sent = b"".join(lines(request(n)) for n in range(20_000))
    file_id = await upload(api, sent)
    shown = (await api.ask(f"/v1/files/{file_id}")).document
    assert (shown["object"], shown["bytes"], shown["filename"]) == ("file", len(sent), "monday.jsonl")
    assert (shown["purpose"], shown["expires_at"] - shown["created_at"]) == ("batch", 30 * 86_400)
    assert (await api.ask(f"/v1/files/{file_id}/content")).body == sent
    assert len(await rows(api, batch_file_pieces)) == -(-len(sent) // PIECE_BYTES)
    api.clock.advance(1)
    second = await upload(api, lines(request(1)))
    newest = (await api.ask("/v1/files?limit=1")).document
    assert ([file["id"] for file in newest["data"]], newest["has_more"]) == ([second], True)
    rest = (await api.ask(f"/v1/files?after={newest['last_id']}&purpose=batch")).document
    assert ([file["id"] for file in rest["data"]], rest["has_more"]) == ([file_id], False)
    gone = await api.ask(f"/v1/files/{file_id}", "DELETE")
    assert gone.document == {"id": file_id, "object": "file", "deleted": True}
    missing = await api.ask(f"/v1/files/{file_id}/content")
    assert (missing.status, missing.document["error"]["type"]) == (404, "not_found_error")


async def test_a_form_that_is_wrong_leaves_nothing_behind(sqlite_api: Api) -> None:
    twice = form(b"x")
    twice.add_field("file", b"y", filename="b")
    purposes = form(b"x")
    purposes.add_field("purpose", "batch")
    wrong = [
        (form(b"x", purpose="fine-tune"), 400, "purpose", "invalid_purpose"),
        (form(b""), 400, "file", "empty_file"),
        (twice, 400, "file", "given_twice"),
        (purposes, 400, "purpose", "given_twice"),
        (form(b"x", colour="red"), 400, None, "unknown_parameter"),
        (form(b"x", **{"expires_after[seconds]": "1"}), 400, "expires_after", "invalid_expires_after"),
        (form(b"x", purpose="batch" * 1000), 400, "purpose", "too_long"),
    ]
    for data, status, param, code in wrong:
        answered = await sqlite_api.ask("/v1/files", "POST", data=data)
        error = answered.document["error"]
        assert (answered.status, error["param"], error["code"]) == (status, param, code), answered.body
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    for body in (
        b"",
        b"--b\r\n",
        b"no form",
        b"--b\r\nContent-Disposition: form-data; name=file\r\n\r\nhalf",
    ):
        answered = await sqlite_api.ask("/v1/files", "POST", data=body, headers=kind)
        assert answered.status == 400, body
    answered = await sqlite_api.ask(
        "/v1/files", "POST", data=b"x", headers={"Content-Type": "multipart/form-data"}
    )
    assert answered.status == 400
    assert await rows(sqlite_api, batch_files) == await rows(sqlite_api, batch_file_pieces) == []


async def test_a_file_becomes_a_run(api: Api) -> None:
    batch = await made(api, request(1), request(2, body={"prompt": "x", "country": "US"}))
    assert (batch["status"], batch["errors"], batch["metadata"]) == ("in_progress", None, None)
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 0}
    assert batch["expires_at"] - batch["created_at"] == 86_400
    assert batch["in_progress_at"] is not None
    assert (batch["output_file_id"], batch["error_file_id"], batch["completed_at"]) == (None, None, None)
    run = (await api.ask(f"/v1/runs/{run_of(batch)}")).document
    assert (run["name"], run["counts"]["pending"]) == ("monday.jsonl", 2)
    listed = (await api.ask("/v1/batches")).document
    assert (listed["data"], listed["has_more"]) == ([batch], False)


WRONG: list[tuple[Any, str, str | None]] = [
    (b"{", "invalid_json_line", None),
    (b'{"custom_id": NaN}', "invalid_json_line", None),
    (b"[1]", "invalid_json_line", None),
    (b"\xff\xfe{\x00}\x00", "invalid_json_line", None),
    (b"[" * 20_000, "invalid_json_line", None),
    (b'{"a":"' + b"x" * 200_000 + b'"}', "invalid_json_line", None),
    (lines(request(9)).strip()[:-1] + b',"url":"/x"}', "invalid_url", "url"),
    (request(9, custom_id=""), "invalid_request", "custom_id"),
    (request(9, custom_id=7), "invalid_request", "custom_id"),
    ({k: v for k, v in request(9).items() if k != "custom_id"}, "invalid_request", "custom_id"),
    (request(9, method="GET"), "invalid_method", "method"),
    (request(9, url="/v1/chat/completions"), "invalid_url", "url"),
    (request(9, url="/v1/monitor/chatgpt"), "mismatched_url", "url"),
    (request(9, body=None), "invalid_request", "body"),
    (request(9, body={"prompt": "secret"}), "invalid_request", "body.country"),
    (request(9, body={"prompt": "secret", "country": "GB", "colour": 1}), "unknown_field", "body.colour"),
    (request(9, priority=5), "unknown_field", "priority"),
    (request(9, **{"secret " * 9: 1}), "unknown_field", "(not a name)"),
    (request(9, body={"prompt": "x", "country": "GB", "secret?": 1}), "unknown_field", "(not a name)"),
]


async def test_a_line_that_is_wrong_fails_the_batch_and_nothing_is_sent(sqlite_api: Api) -> None:
    for line, code, param in WRONG:
        batch = await made(sqlite_api, request(1), b"", line, request(2))
        assert (batch["status"], batch["request_counts"]["total"]) == ("failed", 0), line
        assert batch["failed_at"] is not None
        error = batch["errors"]["data"][0]
        assert (error["code"], error["line"], error["param"]) == (code, 3, param), line
        assert "secret" not in json.dumps(error)
    assert await rows(sqlite_api, runs) == await rows(sqlite_api, tasks) == []
    batch = await made(sqlite_api, b"\n \n")
    assert (batch["status"], batch["errors"]["data"][0]["code"]) == ("failed", "empty_file")


async def test_equal_custom_ids_are_refused_with_both_lines(api: Api) -> None:
    batch = await made(api, request(1), request(2), request(3, custom_id="id-1"))
    (error,) = batch["errors"]["data"]
    assert (error["code"], error["line"], error["param"]) == ("duplicate_custom_id", 3, "custom_id")
    assert "line 1" in error["message"]
    assert "id-1" not in error["message"]
    assert batch["status"] == "failed"


@pytest.mark.parametrize("after", [1, 2, 3])
async def test_who_looks_while_it_is_refused_is_told_of_it_or_of_the_time_before(
    api: Api, after: int
) -> None:
    """Between any two statements of the look its run goes."""
    batch = (await create(api, await upload(api, lines(request(1))))).document
    await read(api, batch["id"])
    # A look from before the file was in its run may have started a second reading, which lets the run begin.
    await api.parts.batch_loads.close()
    db, run_id, seen = api.store.db, run_of(batch), itertools.count(1)
    async with db.engine.begin() as connection:
        await connection.execute(runs.update().values(state=RunState.LOADING))
    other = Store(Database(db.url), api.store.read_answer)

    def refuse(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT") and next(seen) == after:
            await_only(other.batches.refuse_batch(run_id, "[]", api.clock()))

    sa.event.listen(db.engine.sync_engine, "after_cursor_execute", refuse)
    found = await api.store.batch_reads.batch(run_id)
    sa.event.remove(db.engine.sync_engine, "after_cursor_execute", refuse)
    await other.close()
    assert next(seen) > after
    assert found is not None
    assert status_of(*found) in ("validating", "failed")
    assert (await read(api, batch["id"]))["status"] == "failed"


async def test_a_mark_and_line_ends_of_other_systems_are_no_fault(sqlite_api: Api) -> None:
    windows = b"\xef\xbb\xbf" + lines(request(1), request(2)).replace(b"\n", b"\r\n").rstrip()
    batch = await create(sqlite_api, await upload(sqlite_api, windows))
    assert (await read(sqlite_api, batch.document["id"]))["request_counts"]["total"] == 2


async def test_a_batch_of_which_all_failed_is_completed_and_says_so(api: Api) -> None:
    batch = await made(api, request(1), request(2))
    await end(api, batch, TaskState.FAILED)
    batch = await read(api, batch["id"])
    assert (batch["status"], batch["output_file_id"]) == ("completed", None)
    assert batch["request_counts"] == {"total": 2, "completed": 0, "failed": 2}
    errors = await content(api, batch["error_file_id"])
    assert [error["custom_id"] for error in errors] == ["id-1", "id-2"]
    assert {(error["response"], error["error"]["code"]) for error in errors} == {(None, "request_failed")}
    shown = (await api.ask(f"/v1/files/{batch['error_file_id']}")).document
    body = (await api.ask(f"/v1/files/{batch['error_file_id']}/content")).body
    assert (shown["bytes"], shown["purpose"]) == (len(body), "batch_output")
    assert (await api.ask(f"/v1/files/{batch['error_file_id']}", "DELETE")).status == 400


async def test_what_was_not_sent_in_time_expires(api: Api) -> None:
    batch = await made(api, request(1), request(2))
    assert await expire_batches(api.store, api.clock()) == 0
    async with api.store.db.engine.begin() as connection:
        first = tasks.c.run_id == run_of(batch), tasks.c.ordinal == 1
        await connection.execute(tasks.update().where(*first).values(state=TaskState.SUBMITTED))
    api.clock.advance(25 * HOUR_MS)
    assert await expire_batches(api.store, api.clock()) == 1
    assert (await read(api, batch["id"]))["status"] == "finalizing", "one is with the provider"
    async with api.store.db.engine.begin() as connection:
        await connection.execute(tasks.update().where(*first).values(state=TaskState.COMPLETED))
    await api.store.run_ends.finish_runs(api.clock())
    batch = await read(api, batch["id"])
    assert (batch["status"], batch["expired_at"] is None) == ("expired", False)
    assert batch["request_counts"] == {"total": 2, "completed": 1, "failed": 1}
    (error,) = await content(api, batch["error_file_id"])
    assert (error["custom_id"], error["error"]["code"]) == ("id-2", "batch_expired")
    assert batch["output_file_id"] is not None
    assert await expire_batches(api.store, api.clock()) == 0


async def test_a_batch_is_cancelled_once_and_says_what_it_left(api: Api) -> None:
    batch = await made(api, request(1))
    cancelled = (await api.ask(f"/v1/batches/{batch['id']}/cancel", "POST")).document
    assert (cancelled["status"], cancelled["request_counts"]["failed"]) == ("cancelled", 1)
    again = await api.ask(f"/v1/batches/{batch['id']}/cancel", "POST")
    assert (again.status, again.document["status"]) == (200, "cancelled")
    (error,) = await content(api, cancelled["error_file_id"])
    assert error["error"]["code"] == "batch_cancelled"
    failed = await made(api, request(1, method="GET"))
    refused = await api.ask(f"/v1/batches/{failed['id']}/cancel", "POST")
    assert (refused.status, refused.document["error"]["code"]) == (400, "not_cancellable")


async def test_a_batch_that_is_asked_for_again_is_made_once(api: Api) -> None:
    file_id = await upload(api, lines(request(1)))
    key = {"Idempotency-Key": "monday"}
    answers = await asyncio.gather(*(create(api, file_id, headers=key) for _ in range(5)))
    assert len({answer.document["id"] for answer in answers}) == 1
    other = await create(api, file_id, headers=key, completion_window="1h")
    assert (other.status, other.document["error"]["code"]) == (400, "idempotency_key_reused")
    # As OpenAI's clients repeat themselves.
    again = await create(api, file_id, headers={"X-Stainless-Retry-Count": "1"})
    assert again.document["id"] == answers[0].document["id"]
    first = await create(api, file_id, headers={"X-Stainless-Retry-Count": "0"})
    assert first.document["id"] != again.document["id"], "asked for once more, and not by a repetition"
    await read(api, first.document["id"])
    await read(api, again.document["id"])
    assert len(await rows(api, batches)) == len(await rows(api, tasks)) == 2


async def test_a_file_that_was_left_half_read_is_read_on_by_whoever_looks(api: Api) -> None:
    file_id = await upload(api, lines(*(request(n) for n in range(1_200))))
    api.parts.batch_loads.start = lambda *_: None  # type: ignore[method-assign]
    batch_id = (await create(api, file_id)).document["id"]
    run_id = run_of({"id": batch_id})

    async def dies(*_: Any, **__: Any) -> None:
        raise RuntimeError("the process is gone")

    finish, api.store.loading.finish_loading = api.store.loading.finish_loading, dies  # type: ignore[method-assign, assignment]
    with contextlib.suppress(RuntimeError):
        file = (await rows(api, batch_files))[0]
        await load_batch(api.store, api.clock, read_batch_file, run_id, file.id, ENDPOINT)
    assert len(await rows(api, tasks)) == 1_200
    api.store.loading.finish_loading = finish  # type: ignore[method-assign]
    del api.parts.batch_loads.start
    assert (await api.ask(f"/v1/batches/{batch_id}")).document["status"] == "validating"
    assert (await read(api, batch_id))["request_counts"]["total"] == 1_200


async def test_what_is_asked_wrongly_is_named_in_the_shape_of_the_dialect(sqlite_api: Api) -> None:
    file_id = await upload(sqlite_api, lines(request(1)))
    for more, status, param, code in (
        ({"endpoint": "/v1/chat/completions"}, 400, "endpoint", "wrong_value"),
        ({"completion_window": "soon"}, 400, "completion_window", "wrong_value"),
        ({"completion_window": "31d"}, 400, "completion_window", "wrong_value"),
        ({"input_file_id": "file-1"}, 404, "input_file_id", "file_not_found"),
        ({"metadata": {str(n): "x" for n in range(17)}}, 400, "metadata", "too_long"),
        ({"model": "x"}, 400, "model", "unknown_field"),
    ):
        answered = await create(sqlite_api, file_id, **more)
        error = answered.document["error"]
        assert (answered.status, error["param"], error["code"]) == (status, param, code)
        assert error["message"]
    answered = await sqlite_api.ask("/v1/batches", headers={"Authorization": "Bearer sk-none"})
    assert (answered.status, answered.document["error"]["code"]) == (401, "invalid_api_key")
    answered = await sqlite_api.ask("/v1/batches", "POST", scope="read", json={})
    assert (answered.status, answered.document["error"]["type"]) == (403, "permission_error")


async def test_nothing_of_another_account_is_there(sqlite_api: Api) -> None:
    batch = await made(sqlite_api, request(1))
    await end(sqlite_api, batch, TaskState.FAILED)
    batch = await read(sqlite_api, batch["id"])
    for path, method in (
        (f"/v1/files/{batch['input_file_id']}", "GET"),
        (f"/v1/files/{batch['input_file_id']}/content", "GET"),
        (f"/v1/files/{batch['input_file_id']}", "DELETE"),
        (f"/v1/files/{batch['error_file_id']}/content", "GET"),
        (f"/v1/batches/{batch['id']}", "GET"),
        (f"/v1/batches/{batch['id']}/cancel", "POST"),
    ):
        assert (await sqlite_api.ask(path, method, account="eu")).status == 404, path
    for path in ("/v1/files", "/v1/batches"):
        assert (await sqlite_api.ask(path, account="eu")).document["data"] == []
    assert (await sqlite_api.ask(f"/v1/batches/{batch['id']}/cancel", "POST")).status == 400
    listed = (await sqlite_api.ask("/v1/actions")).document["data"]
    changes = [(action["action"], action["subject"]) for action in listed if (action["status"] or 0) >= 400]
    file_id = str(uuid.UUID(batch["input_file_id"].removeprefix("file-")))
    assert sorted(changes) == [
        ("batch.cancel", run_of(batch)),
        ("batch.cancel", batch["id"]),
        ("file.delete", file_id),
    ], "what it was done to, or what was given as such"


async def test_files_go_when_their_time_is_over(sqlite_api: Api) -> None:
    await upload(sqlite_api, lines(request(1)))
    assert await delete_expired_files(sqlite_api.store, sqlite_api.clock()) == 0
    sqlite_api.clock.advance(31 * 24 * HOUR_MS)
    assert await delete_expired_files(sqlite_api.store, sqlite_api.clock()) == 1
    assert await rows(sqlite_api, batch_files) == await rows(sqlite_api, batch_file_pieces) == []
