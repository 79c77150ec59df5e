"""The OpenAPI document against the real process, on each database: no 500, and nothing undocumented."""

import asyncio
import collections
import json
import time
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa

from app.api.dialects.batch.ids import batch_id, file_id, read_file_id
from app.api.route import Streamed
from app.api.table import ROUTES
from app.domain.accounting.balances import Balance
from app.domain.bulk_change import Verb
from app.domain.relay.message import NewEndpoint, new_secret
from app.domain.task import new_id
from app.domain.task_filter import TaskFilter
from app.provider.wire import read_answer
from app.services.access import Asker
from app.services.bulk_changes import propose
from app.store import Database, Store
from app.store.tables import deliveries
from app.store.write.batches import NewBatch
from tests.e2e.stack import Stack
from tests.generated_requests import probe_all
from tests.integration.store.scenes import failed_on, report_on, settle_all, start_run, submit_all

CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "negative_data_rejection",
    "positive_data_acceptance",
)
SHORT, LONG = 3, 150
ENDPOINT = "/v1/monitor/gemini"
PLAIN = {"priority", "repeats", "batch", "strict", "pause_failing_engines"}
"""Options of a new run of which the document says all there is to know."""
OF_TASKS = {"country", "custom_id", "text"}
RECORD = {"prompt": "why", "task_type": "GEMINI", "country": "GB"}
ENDLESS = {
    (route.method, route.path)
    for route in ROUTES
    if route.waits
    or any(isinstance(a, Streamed) and "event-stream" in a.media_type for a in route.answers.values())
}
"""Streams that never end, and requests that wait for a worker, have tests of their own."""


def ask_all(url: str, token: str, known: dict[str, str], examples: int) -> collections.Counter[str]:
    """Drive every operation with generated requests, good and bad; what was answered, by route and status."""
    seen = collections.Counter[str]()

    def probe(case: Any, checks: list[Any]) -> None:
        if not case.meta.generation.mode.is_negative:
            make_sense(case, known)
        response = case.call(headers={"Authorization": f"Bearer {token}"})
        seen[f"{case.method} {case.path} {response.status_code}"] += 1
        # Any body is a text, also one that was made to be none.
        is_good = case.media_type in ("text/csv", "application/x-ndjson") or is_mended(case, response)
        kept = [check for check in checks if not (is_good and check.__name__ == "negative_data_rejection")]
        case.validate_response(response, checks=kept)

    probe_all(f"{url}/openapi.json", examples, probe, CHECKS, but=ENDLESS)
    return seen


def is_mended(case: Any, response: Any) -> bool:
    """Whether nothing of what was to make a request bad was sent: the token is always there, and of an empty
    list or object in a query nothing is left."""
    mutations = getattr(case.meta.phase.data, "mutations", ())
    names = parse_qs(urlsplit(response.request.url).query, keep_blank_values=True).keys()
    unknown = names - {parameter.name for parameter in case.operation.query}

    def is_gone(mutation: Any) -> bool:
        where, broken = mutation.parameter_location.name, mutation.keywords
        if where == "QUERY":
            return "additionalProperties" in broken and not unknown
        return where == "HEADER" and "required" in broken

    return bool(mutations) and all(map(is_gone, mutations))


def make_sense(case: Any, known: dict[str, str]) -> None:
    """Mend what a document cannot say."""
    # Of ids that are made up nothing is known.
    given = case.path_parameters or {}
    of_action = {name: known.get(f"{case.method} {case.path} {name}") for name in given}
    case.path_parameters = {n: of_action[n] or known.get(n, v) for n, v in given.items()}
    if isinstance(case.body, dict) and "input_file_id" in case.body:
        case.body["input_file_id"] = known["file_id"]
    # A key says that a request is an earlier one.
    (case.headers or {}).pop("Idempotency-Key", None)
    # And a cursor comes from a page.
    (case.query or {}).pop("cursor", None)
    # Of two letters not all are a country.
    for given in (case.query, case.body.get("filter") if isinstance(case.body, dict) else None):
        if isinstance(given, dict) and isinstance(given.get("country"), str):
            given["country"] = RECORD["country"]
    if isinstance(case.body, dict) and "payload" in case.body:
        # What an engine takes is the domain's to say, and where to post to the settings'.
        case.body |= {"taskType": "GEMINI", "payload": {"prompt": "why", "country": "GB"}}
        case.body.pop("webhook", None)
    if isinstance(case.body, dict) and "verb" in case.body:
        # Runs are not found by what stands in a prompt, prompts are looked at run by run, and not every state
        # can be changed.
        unfit = OF_TASKS if case.body["verb"] in ("pause", "resume") else {"state"}
        wanted = {name: v for name, v in case.body.get("filter", {}).items() if name not in unfit}
        of_run = wanted.get("run_id") or wanted.get("text")
        case.body["filter"] = wanted | ({"run_id": known["run_id"]} if of_run else {})
    if isinstance(case.body, dict) and "matched" in case.body:
        case.body |= {"matched": int(known["matched"]), "credits": known["credits"], "filter": None}
    if (case.method.upper(), case.path) == ("POST", "/v1/runs"):
        # What a file holds is a matter of its reader's tests.
        given = case.body if isinstance(case.body, dict) else {}
        case.media_type, case.query = "application/json", {}
        case.body = {"prompts": [RECORD], **{name: given[name] for name in PLAIN & set(given)}}


async def add_file(store: Store) -> str:
    """A file of the batch dialect; its id there."""
    made = new_id(1)
    await store.batch_files.begin_file(made, account="default", filename="a", now_ms=1)
    line = {"custom_id": "1", "method": "POST", "url": ENDPOINT, "body": {"prompt": "x", "country": "GB"}}
    await store.batch_files.add_piece(made, 1, json.dumps(line).encode())
    await store.batch_files.end_file(made, body_bytes=1, sha256="0", expires_at_ms=1 << 42)
    return file_id(made)


async def try_out(store: Store) -> dict[str, str]:
    """A bulk change that can be confirmed."""
    run_id, _ = await start_run(store)
    change = await propose(
        store, Verb.CANCEL, TaskFilter(run=run_id), Asker("test"), now_ms=time.time_ns() // 1_000_000
    )
    figures = change.proposed
    return {"change_id": change.id, "matched": str(figures.matched), "credits": str(figures.credits)}


async def add_batch(store: Store, of: str) -> str:
    """A batch of a file; its id there."""
    found = read_file_id(of)
    assert found is not None
    new = NewBatch(new_id(1), "default", None, "0", found.id, ENDPOINT, "24h", None, 1, 1 << 42)
    return batch_id((await store.batches.create_batch(new, name="a", source="a", repeats_since_ms=None))[0])


@pytest.mark.parametrize(
    "examples", [SHORT, pytest.param(LONG, marks=[pytest.mark.slow, pytest.mark.timeout(1_800)])]
)
async def test_schemathesis_finds_no_500_and_nothing_undocumented(
    examples: int, store_url: str, tmp_path: Path
) -> None:
    store = Store(Database(store_url), read_answer)
    stack = Stack(tmp_path, store, store_url, "redis://127.0.0.1:1")
    stack.is_forked = True
    stack.env["TALLYHOOK_API_RATE_PER_S"] = "10000"
    try:
        run_id, task_ids = await start_run(
            store, 4, push_to=NewEndpoint("https://example.com/hooks", new_secret())
        )
        _, (failed,) = await start_run(store, 1)
        sent = await submit_all(store)
        of_run = [task for task in sent if task.id in task_ids]
        reports = [report_on(task, "7.5") for task in of_run[1:3]]
        failures = [failed_on(task) for task in sent if task.id in (of_run[0].id, failed)]
        await settle_all(store, *failures, *reports)
        await store.accounts.store_balance("default", Balance(time.time_ns() // 1_000_000, Decimal(10_000)))
        stack.start("api")
        (endpoint,) = await store.relay.endpoints(limit=1)
        known = {"run_id": run_id, "task_id": task_ids[1], "endpoint_id": endpoint.id}
        known |= {
            "file_id": await add_file(store),
            "DELETE /v1/files/{file_id} file_id": await add_file(store),
        }
        known["POST /v1/runs/{run_id}/cancel run_id"] = (await start_run(store))[0]
        known["POST /v1/tasks/{task_id}/retry task_id"] = failed
        known["POST /v1/tasks/{task_id}/cancel task_id"] = (await start_run(store))[1][0]
        known |= await try_out(store)
        any_delivery = sa.select(deliveries.c.id).limit(1)
        known["delivery_id"] = await store.db.read(lambda connection: connection.scalar(any_delivery))
        known["batch_id"] = await add_batch(store, known["file_id"])
        token = await stack.token("operate")
        seen = await asyncio.get_running_loop().run_in_executor(
            None, ask_all, stack.api_url, token, known, examples
        )
    finally:
        stack.close()
        await store.close()
    for route in ROUTES:
        # The document itself is not asked for as an operation.
        if (route.method, route.path) not in ENDLESS and route.path != "/openapi.json":
            statuses = {int(line.rpartition(" ")[2]) for line in seen if f" {route.path} " in line}
            assert statuses & set(route.answers), f"{route.path} never worked: {seen}"
