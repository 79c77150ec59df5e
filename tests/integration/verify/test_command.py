"""The commands: a clean answer, a correction, a difference named row by row, work that is shared."""

import asyncio
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.cli import main
from app.cli.evidence.verify import VerifyPlan, run_share
from app.config import load_settings
from app.provider.wire import read_answer
from app.services.verify.books import VerifyTotals, verify_share
from app.store import Database, Store
from app.store.read import verification
from app.store.tables import tasks
from tests.integration.verify.scene import NAMES, SECRET, make_scene, scene_reading


@pytest.fixture
def environment(sqlite_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A database of the user's own, and the secret of the scene."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DATABASE_URL", sqlite_url)
    monkeypatch.setenv("CLORO_API_KEY", "sk_test")
    monkeypatch.setenv("CLORO_WEBHOOK_SECRET", "whsec_of_today")
    monkeypatch.setenv("RETIRED", SECRET)
    return sqlite_url


def test_verify_and_adjust(environment: str, capsys: pytest.CaptureFixture[str]) -> None:
    ids = asyncio.run(_make(environment))

    def verify(*arguments: str, code: int = 0) -> dict[str, Any]:
        assert main.run([*arguments, "--json"]) == code
        document: dict[str, Any] = json.loads(capsys.readouterr().out)
        return document

    clean = verify("verify", "--secret-env", "RETIRED", "--processes", "2")
    assert (clean["equal"], clean["counts"]["tasks"]) == (True, len(NAMES) + 3)
    assert clean["counts"]["signatures_unchecked"] == 0

    adjusted = verify("adjust", ids["overcharged"], "--credits=-1.5", "--reason", "charged after all")
    assert (adjusted["credits"], adjusted["adjusted_in_all"]) == ("-1.5", "2.5")
    assert verify("adjust", "second", "--credits", "3", "--reason", "goodwill")["adjusted_in_all"] == 3
    rotated = verify("verify", "--all")
    assert rotated["credits"]["adjusted"] == "5.5"
    assert rotated["counts"]["signatures_unchecked"] > 0, "today's secret signed nothing"
    for credits, reason in (("0", "why"), ("5", " "), ("5", "x" * 501)):
        assert "error" in verify("adjust", "scene", "--credits", credits, "--reason", reason, code=2)

    asyncio.run(_spoil(environment, ids["matched"]))
    found = verify("verify", "scene", code=1)
    assert not found["equal"]
    (difference,) = (d for d in found["differences"] if d["table"] == "tasks")
    assert (difference["key"], difference["column"]) == (ids["matched"], "state")
    assert main.run(["verify"]) == 1
    assert f"{ids['matched']}, state: stands failed, should be completed" in capsys.readouterr().out


async def test_shares_add_up_to_the_whole(sqlite_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    await make_scene(sqlite_store)
    monkeypatch.setattr(verification, "PAGE", 4)
    monkeypatch.setattr(verification, "PAGE_BODY_BYTES_MAX", 300)
    async with verification.open_snapshot(sqlite_store.db) as snapshot:
        runs, summed = await snapshot.runs(None, []), VerifyTotals()
        for share in range(3):
            summed.add(await verify_share(snapshot, runs, scene_reading(), share=share, shares=3))
        whole = await verify_share(snapshot, runs, scene_reading())
    assert (summed.counts, summed.sums) == (whole.counts, whole.sums)
    assert (summed.differences_count, summed.counts["tasks"]) == (0, len(NAMES) + 3)


async def _make(url: str) -> dict[str, str]:
    store = Store(Database(url), read_answer)
    try:
        return (await make_scene(store)).ids
    finally:
        await store.close()


async def _spoil(url: str, task_id: str) -> None:
    store = Store(Database(url), read_answer)
    change = sa.update(tasks).where(tasks.c.id == task_id).values(state="failed")
    try:
        await store.db.write(lambda connection: connection.execute(change))
    finally:
        await store.close()


def test_f17_each_process_keeps_the_limits_that_are_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[dict[str, Any]] = []

    class Noted(Database):
        def __init__(self, url: str, **limits: Any) -> None:
            made.append(limits)
            super().__init__(url, **limits)

    monkeypatch.setattr("app.bootstrap.Database", Noted)
    settings = load_settings(
        _env_file=None,
        data_dir=tmp_path,
        database_timeout_s=3,
        database_long_timeout_s=44,
        database_connect_timeout_s=2,
    )
    # As it comes to a process of its own.
    plan = pickle.loads(pickle.dumps(VerifyPlan(settings, {}, 300, False)))
    run_share(plan, [], 1, 2, None)
    assert made == [{"timeout_s": 3, "long_timeout_s": 44, "connect_timeout_s": 2, "sqlite_busy_ms": 10_000}]
