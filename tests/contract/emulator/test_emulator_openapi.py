"""The OpenAPI document against the server: no 500, no undocumented answer, in every edition."""

import asyncio
from typing import Any

import pytest
from emulator_harness import Provider

from app.emulator.engine.faults import FaultRates
from tests.generated_requests import probe_all

CHECK_NAMES = (
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
)
EXAMPLES_PER_OPERATION = {"2026": 3, "2025": 1, "legacy": 1}
"""The older editions answer by the same code."""


def run(url: str, key: str, edition: str) -> list[str]:
    """Drive every operation with generated requests, good and bad; what was wrong."""
    seen: list[str] = []

    def probe(case: Any, checks: list[Any]) -> None:
        response = case.call(headers={"Authorization": f"Bearer {key}"})
        seen.append(f"{case.method} {case.path} {response.status_code}")
        # 502 is what the resolver's contract has for links that lead nowhere; 500 is always a fault.
        assert response.status_code != 500, case.as_curl_command()
        case.validate_response(response, checks=checks)

    probe_all(f"{url}/openapi.json?edition={edition}", EXAMPLES_PER_OPERATION[edition], probe, CHECK_NAMES)
    return seen


@pytest.mark.parametrize("edition", ["2025", "legacy", "2026"])
async def test_schemathesis_finds_no_500_and_nothing_undocumented(emulate: Any, edition: str) -> None:
    # The generated webhook URLs name hosts that must not be called: no delivery leaves.
    silent = FaultRates(drop=1.0, internal_retry=0)
    provider: Provider = await emulate(
        edition=edition, scale=100_000.0, requests_per_s=0, concurrency=200, grok=True, faults=silent
    )
    seen = await asyncio.get_running_loop().run_in_executor(None, run, provider.url, provider.key, edition)
    statuses = {line.rsplit(" ", 1)[1] for line in seen}
    assert "200" in statuses
    assert len({line.rsplit(" ", 1)[0] for line in seen}) >= 13


async def test_document_covers_every_contract_path(emulate: Any) -> None:
    """What is served under /v1 is in the document of its edition, and the other way round."""
    newer = {"/v1/async/queue", "/v1/monitor/google/goto"}
    for edition, absent, more in (
        ("2026", set(), set()),
        ("2025", newer, set()),
        ("legacy", newer | {"/v1/async/task/batch"}, {"/v1/run", "/v1/monitor", "/v1/task"}),
    ):
        provider = await emulate(edition=edition)
        paths = set((await provider.get("/openapi.json", key=None)).body["paths"])
        engines = {"chatgpt", "gemini", "copilot", "grok", "perplexity", "aimode", "google", "google/news"}
        expected = {f"/v1/monitor/{engine}" for engine in engines} | {
            "/v1/async/task",
            "/v1/async/task/{taskId}",
            "/v1/tasks/{taskId}",
            "/v1/monitor/google-news",
            "/v1/async/task/batch",
            "/v1/async/status",
            "/v1/async/queue",
            "/v1/credits",
            "/v1/countries",
            "/v1/states",
            "/v1/monitor/google/goto",
        }
        assert paths == expected - absent | more


async def test_document_and_checks_know_what_todays_prices_sell(emulate: Any) -> None:
    """Two editions of one name in one process: the default at today's prices, and 2025 as it was."""
    for todays, ok in ((True, 200), (False, 422), (True, 200)):
        provider = await emulate(todays_prices=todays)
        document = (await provider.get("/openapi.json", key=None)).body
        assert ("state" in document["components"]["schemas"]["CHATGPT"]["properties"]) == todays
        task = provider.task("CHATGPT", payload={"state": "CA"})
        assert (await provider.post("/v1/async/task", task)).status == ok
