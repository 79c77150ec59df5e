"""POST /v1/runs: JSON and uploads, keys, what is refused, and what is left of what broke off."""

import asyncio
import gzip
import json
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
import structlog
from multidict import CIMultiDict

from app.ports import StoreUnavailable
from app.store.tables import actions, idempotency_keys, runs, task_metadata, tasks
from tests.integration.api.asking import Answered, Api

CSV = {"Content-Type": "text/csv"}
NDJSON = {"Content-Type": "application/x-ndjson"}
LONG = "of some length " * 25
ROWS = "prompt,task_type,country\n" + "".join(f"question {n},GEMINI,GB\n" for n in range(1_201))


async def post(api: Api, body: object, path: str = "/v1/runs", key: str = "", **headers: str) -> Answered:
    """JSON of an object, or an upload as it is."""
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    if key:
        sent["Idempotency-Key"] = key
    if isinstance(body, dict):
        return await api.ask(path, "POST", json=body, headers=sent)
    return await api.ask(path, "POST", data=body, headers={**CSV, **sent})


async def count(api: Api, table: sa.Table) -> int:
    async with api.store.db.engine.connect() as connection:
        return await connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0


async def test_a_run_from_json(api: Api) -> None:
    body = {
        "name": "monday",
        "task_type": "GEMINI",
        "country": "GB",
        "budget": "12.5",
        "prompts": ["what is rain", {"prompt": "and snow?", "custom_id": "b", "priority": 9}],
    }
    made = await post(api, body)
    assert made.status == 201, made.document
    assert made.headers["Location"] == f"/v1/runs/{made.document['id']}"
    assert (made.document["tasks"], made.document["errors"]) == (2, [])
    run = (await api.ask(made.headers["Location"])).document
    assert (run["name"], run["state"], run["budget"]) == ("monday", "running", "12.5")
    assert run["credits"]["estimated"] == made.document["estimated"]
    taken = await post(api, body)
    assert (taken.status, taken.document["errors"][0]["code"]) == (409, "name_taken")
    assert await count(api, runs) == 1


@pytest.mark.parametrize("how", ["plain", "gzip", "ndjson"])
async def test_an_upload_is_stored_as_it_comes(api: Api, how: str) -> None:
    rows = ROWS.encode()
    if how == "ndjson":
        lines = (json.dumps({"prompt": f"question {n}"}) for n in range(1_201))
        made = await post(api, "\n".join(lines).encode(), "/v1/runs?task_type=GEMINI&country=GB", **NDJSON)
    elif how == "gzip":
        # As several members, filled up with zeros as tapes are.
        packed = gzip.compress(rows[:1_000]) + bytes(512) + gzip.compress(rows[1_000:]) + bytes(70_000)
        made = await post(api, packed, Content_Encoding="gzip")
    else:
        made = await post(api, rows)
    assert (made.status, made.document["tasks"]) == (201, 1_201), made.document
    assert (await api.ask(made.headers["Location"])).document["counts"]["pending"] == 1_201


OWN = '{"share":0.12345678901234567890,"price":1.10,"far":1e999,"count":COUNT}'


@pytest.mark.parametrize("how", ["json", "ndjson"])
async def test_own_columns_keep_every_digit(how: str, api: Api) -> None:
    # In a JSON body no parser of ours reads a longer one.
    count = "7" * (5_000 if how == "ndjson" else 4_000)
    own = OWN.replace("COUNT", count)
    record = own.replace("{", '{"prompt":"x","country":"GB","task_type":"GEMINI",', 1)
    body, kind = (record, "x-ndjson") if how == "ndjson" else (f'{{"prompts": [{record}]}}', "json")
    made = await post(api, body, Content_Type=f"application/{kind}")
    assert made.status == 201, made.document
    async with api.store.db.engine.connect() as connection:
        assert await connection.scalar(sa.select(task_metadata.c.metadata)) == own
        task_id = await connection.scalar(sa.select(tasks.c.id))
    shown = await api.ask(f"/v1/tasks/{task_id}")
    assert shown.document["metadata"] == {
        "share": "0.12345678901234567890",
        "price": 1.1,
        "far": "1e999",
        "count": count,
    }


async def test_the_same_key_again_is_answered_as_before(api: Api) -> None:
    listed = {"prompts": ["a"], "task_type": "GEMINI", "country": "GB"}
    for body, key, others in (
        (ROWS, "k", [(ROWS + "more,GEMINI,GB\n", "/v1/runs"), (ROWS, "/v1/runs?strict=1")]),
        (listed, "l", [({**listed, "prompts": ["b"]}, "/v1/runs"), ({**listed, "priority": 3}, "/v1/runs")]),
    ):
        first = await post(api, body, key=key)
        again = await post(api, body, key=f'"{key}"')
        assert (first.status, again.status, again.body) == (201, 201, first.body)
        assert again.headers["Idempotency-Replayed"] == "true"
        assert again.headers["Location"] == first.headers["Location"]
        for other, path in others:
            changed = await post(api, other, path, key=key)
            assert (changed.status, changed.document["errors"][0]["code"]) == (422, "key_reused")
    assert await count(api, runs) == 2
    for keys in (["no blanks"], ["k", "k"]):
        headers = CIMultiDict([("Authorization", f"Bearer {await api.token()}")])
        headers.extend([("Idempotency-Key", key) for key in keys])
        async with api.client.post("/v1/runs", json=listed, headers=headers) as refused:
            assert refused.status == 400, keys


async def test_of_equal_requests_at_once_one_makes_a_run(api: Api) -> None:
    await api.token()
    answers = await asyncio.gather(*(post(api, ROWS, key="same") for _ in range(6)))
    assert {answer.status for answer in answers} <= {201, 409}
    assert await count(api, runs) == 1
    assert await count(api, tasks) == 1_201
    waiting = [answer for answer in answers if answer.status == 409]
    assert {answer.document["errors"][0]["code"] for answer in waiting} <= {"in_progress"}
    assert all(int(answer.headers["Retry-After"]) >= 1 for answer in waiting)


async def test_what_is_refused_leaves_nothing(api: Api) -> None:
    bad = ROWS + "x,NOBODY,GB\n" + "y,GEMINI,XX\n"
    strict = await post(api, bad, "/v1/runs?strict=1", key="k")
    assert strict.status == 422
    assert [(e["line"], e["field"]) for e in strict.document["errors"]] == [
        (1203, "task_type"),
        (1204, "country"),
    ]
    many = "prompt,task_type\n" + "".join(f"x,NOBODY{n}\n" for n in range(300))
    none = await post(api, many)
    assert (none.status, len(none.document["errors"]) + none.document["errors_unnamed"]) == (422, 300)
    assert "NOBODY" not in none.body.decode()
    twice = await post(api, "prompt,task_type,country\n" + 2 * "a,GEMINI,GB\n", "/v1/runs?duplicates=error")
    assert (twice.status, twice.document["errors"][0]["code"]) == (422, "duplicate")
    damaged = gzip.compress(ROWS.encode())
    for body in (damaged[:-9], damaged[:2000] + b"xx" + damaged[2002:], b"no gzip"):
        assert (await post(api, body, Content_Encoding="gzip")).status == 400
    assert (await post(api, ROWS, Content_Encoding="br")).status == 415
    for query in (
        "budget=nothing",
        "budget=",
        "country=Narnia",
        "batch=501",
        "webhook_url=ftp://x",
        "encoding=klingon",
        "delimiter=klingon",
        "reuse_within=klingon",
        "reuse_within=",
        "name=latest",
    ):
        field, _, value = query.partition("=")
        (error,) = (wrong := await post(api, ROWS, f"/v1/runs?{query}")).document["errors"]
        assert (wrong.status, error["field"]) == (422, field), query
        assert error["remedy"], query
        assert value != "klingon" or b"klingon" not in wrong.body, query
    element = await post(api, {"prompts": [{"prompt": "a", "task_type": "NOBODY"}]})
    assert element.document["errors"][0]["field"] == "prompts.0.task_type"
    for table in (runs, tasks, idempotency_keys):
        assert await count(api, table) == 0, table.name
    # The key that was refused is free.
    assert (await post(api, ROWS, key="k")).status == 201


async def test_a_refused_run_that_stays_is_said_and_is_not_in_the_way(
    sqlite_api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(_run_id: str) -> bool:
        raise StoreUnavailable("away")

    bad = ROWS + "x,NOBODY,GB\n"
    with monkeypatch.context() as patch, structlog.testing.capture_logs() as logs:
        patch.setattr(sqlite_api.store.runs, "discard_run", away)
        assert (await post(sqlite_api, bad, "/v1/runs?strict=1", key="k")).status == 503
    said = [entry for entry in logs if entry["event"] == "refused_run_not_discarded"]
    assert [entry["error"] for entry in said] == ["StoreUnavailable"]
    assert await count(sqlite_api, runs) == 1
    assert (await post(sqlite_api, bad, "/v1/runs?strict=1", key="k")).status == 422
    assert await count(sqlite_api, runs) == 0


async def test_a_body_that_breaks_off_leaves_nothing(api: Api) -> None:
    broken = asyncio.Event()

    async def half() -> AsyncIterator[bytes]:
        # The first 256 KB are looked at before anything is read.
        yield ROWS.replace("question", LONG).encode()
        await broken.wait()
        raise OSError("gone")

    sending = asyncio.create_task(post(api, half(), key="k"))
    async with asyncio.timeout(20):
        while await count(api, tasks) < 1_000:  # noqa: ASYNC110 - another task writes it
            await asyncio.sleep(0.01)
        assert (await post(api, ROWS, key="k")).status == 409
        broken.set()
        with pytest.raises(Exception, match=r"body|disconnected"):
            await sending
        while await count(api, idempotency_keys) + await count(api, runs):  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert await count(api, tasks) == 0


async def test_a_trial_tells_all_and_stores_nothing(api: Api) -> None:
    body = ROWS + "question 1,GEMINI,GB\nx,NOBODY,GB\n"
    tried = await post(api, body, "/v1/runs?dry_run=1", key="k")
    assert tried.status == 200, tried.document
    assert (tried.document["tasks"], tried.document["duplicates"], tried.document["bad_records"]) == (
        1_202,
        1,
        1,
    )
    assert tried.document["forecast"]["account"] == "default"
    assert await count(api, runs) + await count(api, idempotency_keys) == 0
    excel = await post(api, ROWS.encode("utf-16"), "/v1/runs?dry_run=1")
    assert excel.document["read_as"].startswith("the upload is read as UTF-16"), excel.document["read_as"]
    assert await count(api, actions) == 1, "the token's own: nothing was changed, or tried to be"
    made = await post(api, body, key="k")
    assert (made.document["tasks"], made.document["estimated"]) == (1_202, tried.document["estimated"])


async def test_a_token_of_an_account_submits_for_it_only(api: Api) -> None:
    body = {"prompts": ["a"], "task_type": "GEMINI", "account": "default"}
    assert (await api.ask("/v1/runs", "POST", json=body, account="other")).status == 404
    assert (await api.ask("/v1/runs", "POST", json=body, scope="read")).status == 403
