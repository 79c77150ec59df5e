"""/v1/runs/{run_id}/results: every result once, in the order of settlement, wherever a reader goes on."""

import gzip
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from aiohttp import ClientPayloadError, ClientSession

from app.api.native.results import Result
from app.ports import StoreUnavailable
from app.store.read import exports, run_results
from app.store.tables import deliveries
from app.zstd import zstd
from tests.integration.api.asking import Answered, Api
from tests.integration.store.scenes import failed_on, report_on, settle_all, start_run, submit_all


async def settled(api: Api, tasks: int = 3) -> tuple[str, list[Any]]:
    """A run of which all but the last task are settled, the first one failed; its id and tasks."""
    run_id, _ = await start_run(api.store, tasks, now_ms=api.clock())
    sent = await submit_all(api.store, now_ms=api.clock())
    await settle_all(api.store, failed_on(sent[0]), *map(report_on, sent[1:-1]))
    return run_id, sent


def lines(answered: Answered) -> list[Any]:
    assert (answered.status, answered.headers["Content-Type"]) == (200, "application/x-ndjson")
    assert answered.body.endswith(b"\n") or not answered.body
    return [json.loads(line) for line in answered.body.splitlines()]


async def test_every_result_is_sent_once_wherever_a_reader_goes_on(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also one that is settled while a reader is at work, results of other runs between them, and an attempt
    that a retry replaced; however few are read at once, and whichever way their numbers are found."""
    from jsonschema import validate  # or each process of a test run takes two seconds for it

    run_id, sent = await settled(api, 6)
    await settled(api, 3)
    await api.store.retries.retry_tasks_if_closed([sent[0].id], api.clock())
    again = await submit_all(api.store, now_ms=api.clock())
    await settle_all(api.store, report_on(sent[-1]), *map(report_on, again))
    path = f"/v1/runs/{run_id}/results"
    whole = lines(await api.ask(path))
    assert [(row["task_id"], row["attempt"]) for row in whole] == [
        *((task.id, 1) for task in sent),
        (sent[0].id, 2),
    ]
    assert [row["seq"] for row in whole] == sorted({row["seq"] for row in whole})
    for row in whole:
        validate(row, Result.model_json_schema(mode="serialization"))
        assert list(row) == list(Result.model_fields)
    assert whole[1]["credits_charged"] == "5" and whole[1]["response"] == {"text": "yes"}
    for walked_max in (1, 1_000):
        monkeypatch.setattr(run_results, "WALKED_MAX", walked_max)
        monkeypatch.setattr(run_results, "FOUND_MAX", 2)
        monkeypatch.setattr(exports, "CHUNK_BYTES", 1)
        for n in range(len(whole) + 1):
            after = whole[n - 1]["seq"] if n else 0
            assert lines(await api.ask(f"{path}?after={after}")) == whole[n:]


async def test_what_is_settled_while_it_is_read_is_sent_too(api: Api) -> None:
    run_id, sent = await settled(api)
    pages = api.store.run_results.results_of_run(run_id, 0)
    first = await anext(pages)
    await settle_all(api.store, report_on(sent[-1]))
    rest = [row["task_id"] async for page in pages for row in page]
    assert [row["task_id"] for row in first] + rest == [task.id for task in sent]


async def test_it_is_compressed_as_the_reader_asks(api: Api) -> None:
    run_id, _ = await settled(api)
    token = {"Authorization": f"Bearer {await api.token()}"}
    url = api.client.make_url(f"/v1/runs/{run_id}/results")
    async with ClientSession(auto_decompress=False) as session:
        for accepted, coding, opened in (
            ("identity", None, bytes),
            ("gzip", "gzip", gzip.decompress),
            ("gzip;q=0.5, zstd;q=0.9", "zstd", zstd.decompress),
            ("br", None, bytes),
        ):
            async with session.get(url, headers=token | {"Accept-Encoding": accepted}) as answer:
                assert (answer.headers.get("Content-Encoding"), answer.headers["Vary"]) == (
                    coding,
                    "Accept-Encoding",
                )
                assert len(opened(await answer.read()).splitlines()) == 2


async def test_what_was_pruned_is_said_and_the_run_of_another_account_is_none(api: Api) -> None:
    run_id, _ = await settled(api)

    async def drop(connection: Any) -> None:
        await connection.execute(sa.delete(deliveries))

    await api.store.db.write(drop)
    for row in lines(await api.ask(f"/v1/runs/{run_id}/results", scope="read")):
        assert (row["response"], row["response_note"]) == (None, exports.GONE)
        assert len(row["answer_sha256"]) == 64
    assert (await api.ask(f"/v1/runs/{run_id}/results", account="eu")).status == 404
    assert (await api.ask(f"/v1/runs/{run_id}/results?after=-1")).status == 422


async def test_a_stream_that_breaks_off_has_no_end(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    """So nobody takes it for all."""
    run_id, _ = await settled(api)
    reads = api.store.run_results
    whole = reads.results_of_run

    async def broken(run_id: str, after: int) -> AsyncIterator[Any]:
        async for page in whole(run_id, after):
            yield page
            raise StoreUnavailable("gone")

    monkeypatch.setattr(reads, "results_of_run", broken)
    with pytest.raises(ClientPayloadError):
        await api.ask(f"/v1/runs/{run_id}/results")
