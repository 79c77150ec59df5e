"""A database that goes away in the middle of requests: each dialect says so in its own shape, with the time
after which to come again; and whoever does loses nothing and buys nothing twice."""

from typing import Any

import pytest

from app.api.table import ROUTES
from app.ports import StoreUnavailable
from app.store import Database
from app.store.tables import tasks
from tests.integration.api.asking import Api
from tests.integration.api.test_provider import rows
from tests.statements import losing_answers

ID = "019ac5d0-1f2a-7c39-8aa2-23e828c426f9"
TASK = {"taskType": "GEMINI", "payload": {"prompt": "x", "country": "DE"}}
RUN = {"task_type": "GEMINI", "country": "DE", "prompts": ["x"]}
BODIES: dict[str, Any] = {
    "/v1/runs": RUN,
    "/v1/async/task": TASK,
    "/v1/async/task/batch": [TASK],
    "/v1/monitor/{engine}": TASK["payload"],
    "/v1/monitor/google/news": {"query": "x", "country": "DE"},
    "/v1/batches": {"input_file_id": "file-" + ID.replace("-", ""), "endpoint": "/v1/monitor/gemini"}
    | {"completion_window": "24h"},
    "/v1/bulk-changes": {"verb": "pause"},
    "/v1/bulk-changes/{change_id}/confirm": {"matched": 1, "credits": "1"},
}
PATHS = {
    "file_id": "file-" + ID.replace("-", ""),
    "batch_id": "batch_" + ID.replace("-", ""),
    "engine": "gemini",
}
STORELESS = ("/openapi.json", "/v1/countries", "/v1/states", "/v1/events")
FORM = (
    b'--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nbatch\r\n'
    b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n{}\r\n--b--\r\n'
)


async def test_every_route_says_when_to_come_again(sqlite_api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    await sqlite_api.ask("/v1/runs")

    async def away(*_: object, **__: object) -> None:
        raise StoreUnavailable("at host secret")

    for name in ("read", "write", "append"):
        monkeypatch.setattr(Database, name, away)
    for route in ROUTES:
        if route.path in STORELESS:
            continue
        path = route.path.format(**{name: PATHS.get(name, ID) for name in route.params.model_fields})
        how: dict[str, Any] = {}
        if route.method == "POST":
            how["json"] = BODIES.get(route.path, {})
        if route.path == "/v1/files" and route.method == "POST":
            how = {"data": FORM, "headers": {"Content-Type": "multipart/form-data; boundary=b"}}
        answer = await sqlite_api.ask(path, route.method, **how)
        assert (answer.status, answer.headers.get("Retry-After")) == (503, "5"), (path, answer.body)
        route.dialect.error_model.model_validate(answer.document)
        assert b"secret" not in answer.body


async def test_a_task_whose_commit_was_not_answered_is_bought_once(api: Api) -> None:
    task = TASK | {"idempotencyKey": "order-7"}
    await api.ask("/v1/async/status")
    with losing_answers(api.store.db) as lost:
        lost.count = 1
        first = await api.ask("/v1/async/task", "POST", json=task)
    again = await api.ask("/v1/async/task", "POST", json=task)
    assert (first.status, again.status) == (200, 409)
    assert [str(row.id) for row in await rows(api, tasks)] == [first.document["task"]["id"]]
