"""Results in a destination: each once, with their columns, as DuckDB and pandas read them."""

import asyncio
import json
import os
import shutil
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import structlog

from app.address import read_objects_address
from app.cli.follow import parts
from app.cli.follow.manifest import LATEST, Manifest, Selection, decode
from app.errors import UserError
from app.objects import ObjectEntry, Objects, open_objects
from app.ports import ObjectsUnavailable
from app.store import Store
from app.store.read.exports import GONE
from tests.integration.follow.scene import (
    follow_once,
    follower_of,
    frame,
    numbers,
    paths,
    query,
    seen_by_readers,
    settle_some,
    table,
)
from tests.integration.store.scenes import NOW, failed_on, report_on, settle_all, start_run, submit_all


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    folder.mkdir()
    return folder


async def test_every_result_is_in_its_day_and_engine_once(
    store: Store, objects_url: str, tmp_path: Path
) -> None:
    await settle_some(store, 40)
    first = await follow_once(store, objects_url)
    assert first.followed.rows == 40
    assert first.followed.parts == 6
    await settle_some(store, 10)
    second = await follow_once(store, objects_url)
    assert second.followed.rows == 10
    assert (await follow_once(store, objects_url)).followed.rows == 0
    wanted = await numbers(store)
    assert wanted == list(range(1, 51))
    assert await seen_by_readers(objects_url, tmp_path, os.environ) == wanted
    stored = [path for path in await paths(objects_url) if path.endswith(".parquet")]
    assert stored[0] == "day=2026-10-01/engine=CHATGPT/part-000000000001-000000000040.parquet"
    assert len(stored) == 12


async def test_readers_see_the_columns_with_their_types(
    sqlite_store: Store, out: Path, tmp_path: Path
) -> None:
    run_id = await settle_some(sqlite_store, 8)
    await follow_once(sqlite_store, str(out))
    types = {row[0]: row[1] for row in query(f"DESCRIBE SELECT * FROM {table(out)}")}
    assert (types["seq"], types["day"], types["engine"]) == ("BIGINT", "DATE", "VARCHAR")
    assert (types["credits_charged"], types["stored_at"]) == ("DECIMAL(18,6)", "TIMESTAMP WITH TIME ZONE")
    rows = query(
        "SELECT seq, run_id, run_name, account, attempt, state, verdict, credits_charged, answer_text, "
        f"prompt, day::VARCHAR, engine = task_type, response_note FROM {table(out)} ORDER BY seq"
    )
    (answered,) = [row for row in rows if row[9] == "p1"]
    assert answered[1:] == (
        *(run_id, "run", "default", 1, "completed", "matched", Decimal(5)),
        *("answer 0", "p1", "2026-10-01", True, None),
    )
    assert [row[5] for row in rows].count("failed") == 1
    loaded = frame(str(out), {})
    assert sorted(loaded["seq"]) == list(range(1, 9))
    assert set(loaded["engine"]) == {"CHATGPT", "GEMINI", "PERPLEXITY"}


async def test_each_attempt_is_a_row_of_its_own(sqlite_store: Store, out: Path, tmp_path: Path) -> None:
    _, ids = await start_run(sqlite_store, 1)
    (first,) = await submit_all(sqlite_store)
    await settle_all(sqlite_store, failed_on(first, 2))
    await follow_once(sqlite_store, str(out))
    assert await sqlite_store.retries.retry_tasks_if_closed(ids, NOW) == 1
    (second,) = await submit_all(sqlite_store)
    await settle_all(sqlite_store, report_on(second))
    await follow_once(sqlite_store, str(out))
    columns = "seq, attempt, state, credits_charged, answer_text"
    expected = [(1, 1, "failed", Decimal(2), None), (2, 2, "completed", Decimal(5), "yes")]
    assert query(f"SELECT {columns} FROM {table(out)} ORDER BY seq") == expected
    later = tmp_path / "later"
    # Written after the retry, the row of the first attempt is the same.
    await follow_once(sqlite_store, str(later))
    assert query(f"SELECT {columns} FROM {table(later)} ORDER BY seq") == expected


async def test_a_result_whose_body_is_gone_is_still_a_row(sqlite_store: Store, out: Path) -> None:
    await settle_some(sqlite_store, 4)
    gone = sa.text("DELETE FROM deliveries WHERE id = (SELECT delivery_id FROM results WHERE seq = 2)")
    await sqlite_store.db.write(lambda connection: connection.execute(gone))
    await follow_once(sqlite_store, str(out))
    rows = query(f"SELECT seq, response_note, response IS NULL, answer_sha256 FROM {table(out)} ORDER BY seq")
    assert [row[:3] for row in rows] == [
        (1, None, False),
        (2, GONE, True),
        (3, None, False),
        (4, None, False),
    ]
    assert all(len(row[3]) == 64 for row in rows)


async def test_one_run_or_one_account_can_be_followed(sqlite_store: Store, out: Path, tmp_path: Path) -> None:
    chosen = await settle_some(sqlite_store, 6)
    await settle_some(sqlite_store, 6, account="eu")
    for name, selection, wanted in (
        ("run", Selection(run_id=chosen), range(1, 7)),
        ("account", Selection(accounts=["eu"]), range(7, 13)),
    ):
        url = str(tmp_path / name)
        await follow_once(sqlite_store, url, selection)
        assert await seen_by_readers(url, tmp_path, {}) == list(wanted)
        with pytest.raises(UserError, match="holds results of") as refused:
            await follow_once(sqlite_store, url, Selection(accounts=["other"]))
        assert refused.value.code == "destination_differs"


async def test_a_range_ends_where_it_is_large_or_has_many_parts(
    sqlite_store: Store, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.store.read.settled.EXPORT_CHUNK", 4)
    monkeypatch.setattr(parts, "PARTS_MAX", 3)
    await settle_some(sqlite_store, 20)
    await follow_once(sqlite_store, str(tmp_path / "parts"))
    manifests = [path for path in await paths(str(tmp_path / "parts")) if "manifest-" in path]
    assert len(manifests) > 3
    monkeypatch.setattr(parts, "PARTS_MAX", 32)
    monkeypatch.setattr(parts, "PART_BYTES_MAX", 0)
    await follow_once(sqlite_store, str(tmp_path / "bytes"))
    assert len([path for path in await paths(str(tmp_path / "bytes")) if "manifest-" in path]) == 20
    for name in ("parts", "bytes"):
        assert await seen_by_readers(str(tmp_path / name), tmp_path, {}) == list(range(1, 21))


async def test_rows_are_kept_in_memory_up_to_a_bound(
    sqlite_store: Store, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parts, "KEPT_BYTES_MAX", 1_000)
    await settle_some(sqlite_store, 30)
    with parts.PartFiles() as files:
        page = await sqlite_store.settled.settled_after(0)
        for row in page.rows:
            files.add(row)
            assert files.kept_bytes < 1_000
        files.finish()
        assert sum(part.rows for part, _ in files.named(1, 30)) == 30


async def test_a_folder_of_somebody_elses_is_refused(sqlite_store: Store, out: Path, tmp_path: Path) -> None:
    (out / "theirs.parquet").write_bytes(b"")
    with pytest.raises(UserError, match=r"is not empty and has no _tallyhook/destination.json") as refused:
        await follow_once(sqlite_store, str(out))
    assert refused.value.exit_code == 2


async def test_another_database_is_refused(
    store: Store, sqlite_url: str, objects_url: str, tmp_path: Path
) -> None:
    await settle_some(store, 6)
    await follow_once(store, objects_url)
    async for other in opened_apart(tmp_path, sqlite_url):
        with pytest.raises(UserError, match="in the database that is none") as refused:
            await follow_once(other, objects_url)
        assert refused.value.code == "database_differs"
        await settle_some(other, 9)
        with pytest.raises(UserError, match="in the database that is of task"):
            await follow_once(other, objects_url)


async def opened_apart(folder: Path, template_url: str) -> AsyncIterator[Store]:
    """An empty store beside the test's."""
    from app.provider.wire import read_answer
    from app.store import Database
    from app.store.migrate import migrate

    database = Database(f"sqlite:///{folder / 'other.db'}")
    await migrate(database)
    yield Store(database, read_answer)
    await database.close()


class Unconditional:
    """A storage that takes every put, as some that speak S3 do."""

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self.display = objects.display

    def __getattr__(self, name: str) -> object:
        return getattr(self._objects, name)

    async def create(self, path: str, content: bytes) -> bool:
        await self._objects.put(path, content)
        return True


async def test_a_storage_without_conditions_is_refused(
    sqlite_store: Store, out: Path, tmp_path: Path
) -> None:
    objects = open_objects(read_objects_address(str(out)))
    for _ in range(2):
        with pytest.raises(UserError, match="two writers could not be kept apart"):
            await follower_of(sqlite_store, Unconditional(objects)).run(once=True)  # type: ignore[arg-type]


class Failing:
    """A storage that is away for the first calls of each kind."""

    def __init__(self, objects: Objects, times: int) -> None:
        self._objects = objects
        self._left = dict.fromkeys(("put", "create", "get", "list"), times)
        self.display = objects.display

    def _fail(self, name: str) -> None:
        self._left[name] -= 1
        if self._left[name] >= 0:
            raise ObjectsUnavailable("away")

    async def get(self, path: str) -> bytes | None:
        self._fail("get")
        return await self._objects.get(path)

    async def put(self, path: str, content: bytes | Path) -> None:
        await self._objects.put(path, content)
        self._fail("put")  # done, and the answer lost

    async def create(self, path: str, content: bytes) -> bool:
        created = await self._objects.create(path, content)
        self._fail("create")
        return created

    async def list(self, folder: str = "", *, after: str = "") -> AsyncIterator[ObjectEntry]:
        self._fail("list")
        async for entry in self._objects.list(folder, after=after):
            yield entry


async def test_trouble_of_the_destination_is_waited_out(
    sqlite_store: Store, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.follow.follower.WAIT_S_MAX", 0.001)
    await settle_some(sqlite_store, 12)
    objects = open_objects(read_objects_address(str(out)))
    follower = follower_of(sqlite_store, Failing(objects, 3))  # type: ignore[arg-type]
    running = asyncio.create_task(follower.run(once=False))
    while follower.followed.rows < 12:
        await asyncio.sleep(0.005)
        assert not running.done(), running.result()
    follower.stop()
    await running
    assert await seen_by_readers(str(out), tmp_path, {}) == list(range(1, 13))


async def test_once_ends_with_an_error_when_trouble_does_not_pass(
    sqlite_store: Store, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.follow.follower.WAIT_S_MAX", 0.001)
    objects = open_objects(read_objects_address(str(out)))
    with pytest.raises(UserError, match="the destination does not answer: away") as ended:
        await follower_of(sqlite_store, Failing(objects, 100)).run(once=True)  # type: ignore[arg-type]
    assert ended.value.exit_code == 1


async def test_a_folder_that_is_deleted_under_a_follower_is_said(
    sqlite_store: Store, out: Path, tmp_path: Path
) -> None:
    """It would be made anew, with what comes from now on and nothing of before."""
    await settle_some(sqlite_store, 6)
    follower = follower_of(sqlite_store, open_objects(read_objects_address(str(out))))
    running = asyncio.create_task(follower.run(once=False))
    while follower.followed.rows < 6:
        await asyncio.sleep(0.005)
        assert not running.done(), running.result()
    shutil.rmtree(out)
    await settle_some(sqlite_store, 3)
    with pytest.raises(UserError, match="has lost its _tallyhook") as ended:
        await running
    assert (ended.value.code, await paths(str(out))) == ("destination_emptied", [])
    await follow_once(sqlite_store, str(out))
    assert await seen_by_readers(str(out), tmp_path, {}) == list(range(1, 10))


async def test_a_full_disk_of_this_machine_is_waited_out(
    sqlite_store: Store, out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.cli.follow.follower.WAIT_S_MAX", 0.001)
    await settle_some(sqlite_store, 6)
    full, opened, left = Path("/dev/full"), Path.open, [3]

    def open_full(self: Path, *args: Any, **kwargs: Any) -> Any:
        left[0] -= self.suffix == ".parquet"
        return opened(full if self.suffix == ".parquet" and left[0] >= 0 else self, *args, **kwargs)

    monkeypatch.setattr(Path, "open", open_full)
    with structlog.testing.capture_logs() as lines:
        await follow_once(sqlite_store, str(out))
    assert await seen_by_readers(str(out), tmp_path, {}) == list(range(1, 7))
    assert {line["reason"] for line in lines if line["event"] == "follow_waits"} == {
        "no file can be made on this machine: No space left on device"
    }


async def test_the_latest_manifest_says_what_is_complete(
    sqlite_store: Store, out: Path, tmp_path: Path
) -> None:
    await settle_some(sqlite_store, 5)
    await follow_once(sqlite_store, str(out))
    latest = decode((out / LATEST).read_bytes(), Manifest)
    assert (latest.number, latest.first_seq, latest.last_seq, latest.rows) == (1, 1, 5, 5)
    assert json.loads((out / latest.path).read_bytes()) == json.loads((out / LATEST).read_bytes())
