"""The commands on accounts, against an emulator of their own: plan, audit, statement."""

import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.store import Store
from app.store.tables import balances
from tests.e2e.stack import TALLYHOOK
from tests.e2e.test_cli import Cli, cli, here, on_store, restored_logging

__all__ = ["cli", "here", "restored_logging"]


KEY = "sk_live_" + "0123456789abcdef" * 2


def post(url: str, body: dict[str, Any]) -> None:
    """What somebody else does with the same key."""
    headers = {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)
    with urllib.request.urlopen(request, timeout=60) as response:
        assert response.status == 200


@pytest.fixture
def provider(tmp_path: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """An emulator a thousand times as fast as life, on which we subscribed a week ago; its URL."""
    command = [TALLYHOOK, "emulator", "--port", "0", "--edition", "2026", "--json"]
    with (tmp_path / "emulator.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--time-scale", "1000"], stdout=subprocess.PIPE, stderr=log, text=True
        )
    try:
        assert process.stdout is not None
        url = json.loads(process.stdout.readline())["url"]
        week_ago = datetime.now(UTC) - timedelta(days=7)
        described = {
            "name": "ours",
            "plan": "lite",
            "keys": [{"key": KEY}],
            "subscribedAt": week_ago.isoformat(),
        }
        post(f"{url}/_emulator/organizations", described)
        monkeypatch.setenv("CLORO_API_KEY", KEY)
        monkeypatch.setenv("CLORO_BASE_URL", url)
        yield url
    finally:
        process.kill()
        process.communicate()


def test_an_account_from_its_first_balance_to_its_statement(cli: Cli, provider: str) -> None:
    assert cli("plan --json").document["error"]["code"] == "no_cycle"
    assert cli("statement --json").document["error"]["code"] == "no_cycle"
    first = cli("audit --json").document
    assert (first["balance"], first["books"], first["explained"]) == (37_500, 37_500, True)
    assert [(entry["what"], entry["credits"]) for entry in first["booked"]] == [("allocation", 37_500)]
    assert cli("ask hello --engine gemini --country US --json").code == 0

    plan = cli("plan --json").document
    assert (plan["allocation"], plan["used"], plan["remaining"], plan["available"]) == (
        37_500,
        6,
        37_494,
        37_494,
    )
    assert 20 <= plan["cycle"]["days_left"] <= 31
    (burned,) = plan["burn"]["by"]
    assert (burned["task_type"], burned["country"], burned["tasks"], burned["credits"]) == (
        "GEMINI",
        "US",
        1,
        6,
    )
    assert "held 0 (0 tasks)" in cli("plan").out

    document = cli("statement --json").document
    assert [(line["what"], line["credits"], line["balance"]) for line in document["lines"]] == [
        ("allocation", 37_500, 37_500),
        ("posts", -6, 37_494),
    ]
    assert (
        document["lines"][1]["task_type"],
        document["lines"][1]["mode"],
        document["lines"][1]["count"],
    ) == ("GEMINI", "sync", 1)
    assert (document["totals"]["closing"], document["closed"]) == (37_494, False)
    assert "GEMINI sync" in cli("statement").out
    day = document["cycle"]["starts_at"][:10]
    assert cli(f"statement --cycle {day} --json").document["cycle"] == document["cycle"]
    assert cli("statement --cycle 2001-01-01 --json").document["error"]["code"] == "unknown_cycle"
    assert cli("statement --cycle yesterday --json").document["error"]["code"] == "bad_option"
    assert cli("plan --account nobody --json").document["error"]["code"] == "unknown_account"


def test_an_audit_that_cannot_explain_ends_with_1(cli: Cli, provider: str) -> None:
    cli("audit")

    async def lowered(store: Store) -> None:
        """As if the balance an hour ago had been 100 lower: since then credits came back."""
        an_hour_ago = time.time_ns() // 1_000_000 - 3_600_000

        async def work(connection: Any) -> None:
            await connection.execute(sa.update(balances).values(at_ms=an_hour_ago, remaining=37_400))

        await store.db.write(work)

    on_store(lowered)
    found = cli("audit --json")
    assert (found.code, found.document["explained"], found.document["unexplained"]) == (1, False, 100)
    (interval,) = found.document["intervals"]
    assert (interval["before"], interval["after"], interval["actual"]) == (37_400, 37_500, -100)
    drawn = cli("audit")
    assert (drawn.code, "100 credits should be gone and are not" in drawn.out) == (1, True)


def test_spending_of_others_is_reported(cli: Cli, provider: str) -> None:
    cli("audit")
    post(f"{provider}/v1/monitor/google", {"query": "theirs", "country": "US"})

    async def aged(store: Store) -> None:
        """As if the balances until now were older than they may lag."""

        async def work(connection: Any) -> None:
            await connection.execute(sa.update(balances).values(at_ms=balances.c.at_ms - 120_000))

        await store.db.write(work)

    on_store(aged)
    found = cli("audit --json").document
    assert (found["balance"], found["foreign"], found["explained"]) == (
        37_495,
        {"lowest": 5, "highest": 5},
        True,
    )
    assert [(e["what"], e["credits"]) for e in found["booked"]] == [("foreign", 5)]
    assert cli("statement --json").document["totals"]["foreign"] == 5


def test_a_provider_that_reports_no_balance(cli: Cli, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLORO_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("CLORO_API_KEY", KEY)
    ended = cli("audit --json")
    assert (ended.code, ended.document["error"]["code"]) == (1, "no_balance")
