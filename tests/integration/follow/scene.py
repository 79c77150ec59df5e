"""Results of several days, engines and accounts in a store, and what readers that are not ours see of them
in a destination.
"""

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import duckdb
import pyarrow.dataset as ds
import sqlalchemy as sa
from pyarrow import fs

from app.address import read_objects_address
from app.cli.follow.destination import Destination
from app.cli.follow.follower import Follower
from app.cli.follow.manifest import Selection
from app.domain.task import TaskSpec
from app.domain.time_format import DAY_MS
from app.objects import Objects, open_objects
from app.store import Store
from tests.integration.store.scenes import FIVE, LEASE_MS, NOW, ended, failed_on, report_on, settle_all

if TYPE_CHECKING:
    import pandas as pd  # or each process of a test run takes half a second for it

ENGINES = ("CHATGPT", "GEMINI", "PERPLEXITY")
EVERYTHING = Selection()


async def settle_some(store: Store, tasks: int, *, account: str = "default", days: int = 2) -> str:
    """A run whose tasks are settled in a few transactions on several days, some of them failed; its id."""
    run_id = await store.runs.create_run(name="run", source="-", budget=None, now_ms=NOW, account=account)
    specs = [
        TaskSpec(n, engine, {"prompt": f"p{n}", "country": "US"})
        for n, engine in zip(range(1, tasks + 1), itertools.cycle(ENGINES), strict=False)
    ]
    await store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], NOW)
    assert await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
    sent = await store.submissions.claim_pending(
        account=account, limit=tasks, claim="me", now_ms=NOW, lease_until_ms=NOW + LEASE_MS
    )
    await store.submissions.record_submissions([ended(task) for task in sent])
    for day in range(days):
        reports = [
            failed_on(task)
            if n % 7 == 6
            else report_on(task, response=json.dumps({"text": f"answer {n}", "pad": "x" * 50}).encode())
            for n, task in enumerate(sent)
            if n % days == day
        ]
        await settle_all(store, *reports, now_ms=NOW + day * DAY_MS + 1)
    return run_id


async def numbers(store: Store) -> list[int]:
    """Every settle number of the store."""
    query = sa.text("SELECT seq FROM results ORDER BY seq")
    return list(await store.db.read(lambda connection: _scalars(connection, query)))


async def _scalars(connection: Any, query: Any) -> list[int]:
    return [row[0] for row in await connection.execute(query)]


def follower_of(
    store: Store, objects: Objects, selection: Selection = EVERYTHING, *, every_s: float = 0.01
) -> Follower:
    """One that waits little."""
    destination = Destination(objects, selection, clock=lambda: NOW)
    return Follower(store.settled, destination, selection, every_s=every_s, jitter=lambda: 0.0)


async def follow_once(store: Store, url: str, selection: Selection = EVERYTHING) -> Follower:
    """Add what is there."""
    follower = follower_of(store, open_objects(read_objects_address(url)), selection)
    await follower.run(once=True)
    return follower


async def seen_by_readers(url: str, folder: Path, env: Mapping[str, str]) -> list[int]:
    """The settle numbers that DuckDB and pandas find; sorted, with doubles."""
    by_duckdb = await seen_by_duckdb(url, folder)
    if by_duckdb:
        assert frame(url, env)["seq"].sort_values().to_list() == by_duckdb
    return by_duckdb


async def seen_by_duckdb(url: str, folder: Path) -> list[int]:
    """It reads a copy of a bucket, in `folder`, because its extension for S3 would have to be fetched."""
    local = await copied(url, folder)
    if not any(map(_is_part, await paths(url))):
        return []  # it calls that an error
    return [row[0] for row in query(f"SELECT seq FROM {table(local)} ORDER BY seq")]


def frame(url: str, env: Mapping[str, str]) -> "pd.DataFrame":
    """All rows, by pandas."""
    import pandas as pd

    if not url.startswith("s3://"):
        return pd.read_parquet(url)
    there = fs.S3FileSystem(
        access_key=env["AWS_ACCESS_KEY_ID"],
        secret_key=env["AWS_SECRET_ACCESS_KEY"],
        endpoint_override=env["AWS_ENDPOINT_URL"],
        region=env["AWS_REGION"],
    )
    found = ds.dataset(url.removeprefix("s3://"), filesystem=there, format="parquet", partitioning="hive")
    return found.to_table().to_pandas()


def table(folder: Path) -> str:
    """What to write behind FROM."""
    return f"read_parquet('{folder}/**/*.parquet', hive_partitioning = true)"


def query(text: str) -> list[tuple[Any, ...]]:
    """By DuckDB."""
    with duckdb.connect() as connection:
        connection.execute("SET TimeZone = 'UTC'")
        return connection.execute(text).fetchall()


async def paths(url: str) -> Sequence[str]:
    """Of all objects."""
    return [entry.path async for entry in open_objects(read_objects_address(url)).list()]


def _is_part(path: str) -> bool:
    return path.endswith(".parquet")


async def copied(url: str, folder: Path) -> Path:
    """The destination as a folder."""
    if not url.startswith("s3://"):
        return Path(url)
    objects = open_objects(read_objects_address(url))
    for path in await paths(url):
        file = folder / "copy" / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(await objects.get(path) or b"")
    return folder / "copy"
