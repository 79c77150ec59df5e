"""`tallyhook emulator --port N` with no other option: the edition 2025 on the wire, at today's prices."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

KEY = "sk_test_0123456789abcdef0123456789abcdef"
US = {"country": "US"}
P, Q = {"prompt": "p", **US}, {"query": "q", **US}
FLAGS = {"rawResponse": True, "searchQueries": True, "ads": True, "shopping": True}
URL = "https://www.google.com/search?q=a&gl=us"

# The table of C-E.3, row by row: number, type, payload, creditsToCharge.
COSTS: list[tuple[int, str, dict[str, Any], int]] = [
    (1, "CHATGPT", P, 5),
    (2, "CHATGPT", {**P, "include": {"markdown": True, "html": True}}, 5),
    (3, "CHATGPT", {**P, "include": {"shopping": True}}, 7),
    (4, "CHATGPT", {**P, "include": FLAGS}, 7),
    (5, "CHATGPT", {**P, "include": {"shopping": True}, "state": "CA"}, 9),
    (6, "COPILOT", P, 5),
    (7, "COPILOT", {**P, "state": "NY"}, 7),
    (8, "GEMINI", P, 4),
    (9, "GEMINI", {**P, "include": {"rawResponse": True}, "state": "TX"}, 6),
    (10, "PERPLEXITY", P, 4),
    (11, "PERPLEXITY", {**P, "state": "TX"}, 6),
    (12, "AIMODE", P, 4),
    (13, "AIMODE", {**P, "include": {"expandProducts": True}}, 4),
    (14, "AIMODE", {**P, "include": {"expandProducts": True}}, 4),
    (15, "AIMODE", {**P, "include": {"expandProducts": True}}, 4),
    (16, "GROK", P, 4),
    (17, "GOOGLE", Q, 3),
    (18, "GOOGLE", {**Q, "pages": 3}, 7),
    (19, "GOOGLE", {**Q, "pages": 3, "include": {"aioverview": {"markdown": True}}}, 9),
    (20, "GOOGLE", {**Q, "pages": 10, "include": {"aioverview": {}, "paaAioverview": True}}, 23),
    (21, "GOOGLE", {"url": f"{URL}&num=30"}, 7),
    (22, "GOOGLE", {"url": f"{URL}&num=95"}, 21),
    (23, "GOOGLE", {"url": f"{URL}&num=250"}, 21),
    (24, "GOOGLE", {"url": f"{URL}&num=5"}, 3),
    (25, "GOOGLE_NEWS", Q, 3),
    (26, "GOOGLE_NEWS", {**Q, "pages": 2}, 5),
    (27, "GOOGLE_NEWS", {**Q, "pages": 10}, 21),
]


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    """The command as a user starts it; --json only to learn the port."""
    process = subprocess.Popen(
        [sys.executable, "-m", "app.emulator", "--port", "0", "--json"], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    try:
        yield json.loads(process.stdout.readline())["url"]
    finally:
        process.terminate()
        assert process.wait(20) == 0
        process.stdout.close()


def call(url: str, body: Any = None) -> tuple[Any, dict[str, str]]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as response:
        return json.load(response), dict(response.headers)


@pytest.mark.parametrize(("row", "task_type", "payload", "credits"), COSTS)
def test_each_row_of_the_cost_table(
    url: str, row: int, task_type: str, payload: dict[str, Any], credits: int
) -> None:
    answer, headers = call(f"{url}/v1/async/task", {"taskType": task_type, "payload": payload})
    assert answer["credits"]["creditsToCharge"] == credits, f"row {row}"
    assert headers["X-RateLimit-Limit"] == "500"
    assert "latencyMs" not in answer["task"], "the wire is that of 2025"


def test_one_organization_on_the_starter_plan(url: str) -> None:
    credits, _ = call(f"{url}/v1/credits")
    # Tasks of other tests may have been charged by now.
    most = sum(credits for *_, credits in COSTS)
    assert (650_000 - most <= credits["remaining"] <= 650_000, credits["perCycle"]) == (True, 650_000)
    status, _ = call(f"{url}/v1/async/status")
    assert status["concurrency"]["max"] == 50
