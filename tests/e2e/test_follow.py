"""`tallyhook export --follow` as a process, while a worker settles and readers read; and how it ends."""

import json
import os
import sys
from pathlib import Path

import duckdb
import pytest

from app.address import read_objects_address
from app.objects import open_objects
from app.ports import ObjectsRefused
from tests.conftest import StartValkey
from tests.e2e.forking import Forks
from tests.e2e.stack import KILL, Stack, running_stack
from tests.integration.follow.scene import query, table
from tests.servers.s3 import S3Server

COUNT = 160
EMULATOR = ("--time-scale", "60", "--concurrency", "80", "--fail", "0.03", "--duplicate", "0.02")


def seen(folder: Path) -> list[int]:
    """What DuckDB reads at this moment; where there is no file yet, nothing."""
    try:
        return [row[0] for row in query(f"SELECT seq FROM {table(folder)} ORDER BY seq")]
    except duckdb.IOException as error:
        assert "No files found" in str(error), error
        return []


async def until_seen(stack: Stack, out: Path, at_least: int) -> None:
    async def reached() -> bool:
        now = seen(out)
        assert len(now) == len(set(now)), "a result twice"
        return len(now) >= at_least

    await stack.until(reached, f"{at_least} results in files")


# In make test, integration/follow/test_kills.py kills a follower before each write.
@pytest.mark.slow
async def test_readers_see_each_result_once_while_a_follower_is_killed(
    tmp_path: Path, store_url: str, start_valkey: StartValkey
) -> None:
    import pandas as pd

    out = tmp_path / "out"
    async with running_stack(tmp_path, store_url, start_valkey().url, *EMULATOR) as stack:
        stack.follow_to = str(out)
        stack.start("follower")
        await stack.submit(COUNT)
        for some in (1, COUNT // 3):
            await until_seen(stack, out, some)
            stack.end("follower", KILL)
            stack.start("follower")
        await stack.until_finished()
        await until_seen(stack, out, COUNT)
        assert stack.end("follower") == 0
        states = (await stack.store.queries.progress(stack.run_id)).states
    assert seen(out) == sorted(pd.read_parquet(out)["seq"]) == list(range(1, COUNT + 1))
    assert dict(query(f"SELECT state, count(*) FROM {table(out)} GROUP BY ALL")) == states


@pytest.fixture(scope="module")
def commands(tmp_path_factory: pytest.TempPathFactory) -> Forks:
    return Forks(tmp_path_factory.mktemp("follow"))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--follow", "s3://KEY:SECRET@bucket/x"), "AWS_SECRET_ACCESS_KEY"),
        (("--follow", "gcs:/bucket"), "names no bucket"),
        (("--follow", ""), "is empty"),
        (("--follow", "out", "--format", "csv"), "Parquet files of results only"),
        (("--follow", "out", "--what", "ledger"), "Parquet files of results only"),
        (("--follow", "out", "-o", "file"), "Parquet files of results only"),
        (("--follow", "out", "--every", "10"), "has no unit"),
        (("--follow", "out", "--account", "nobody"), "no account 'nobody'"),
        (("--once",), "with --follow only"),
        (("--every", "5s"), "with --follow only"),
    ],
)
def test_what_is_asked_wrongly_is_refused_in_words(
    commands: Forks, arguments: tuple[str, ...], words: str
) -> None:
    ended = commands.run("export", *arguments)
    assert ended.code == 2, ended.err
    assert words in " ".join(ended.err.split())
    assert "SECRET@" not in ended.err
    assert not (commands.here / "out").exists()


def test_once_adds_what_is_there_and_says_how_much(commands: Forks) -> None:
    ended = commands.run("export", "--follow", "empty", "--once", "--json")
    assert ended.code == 0, ended.err
    document = json.loads(ended.out)
    assert (document["rows"], document["files"], document["last_seq"]) == (0, 0, 0)
    assert document["destination"] == str(commands.here / "empty")
    refused = commands.run("export", "--follow", "empty", "--account", "default", "--once", "--json")
    assert refused.code == 2
    assert json.loads(refused.out)["error"]["code"] == "destination_differs"


def test_a_bucket_that_is_not_there_is_said_in_a_sentence(commands: Forks, s3: S3Server) -> None:
    ended = commands.run("export", "--follow", "s3://not-there/x", "--once", "--json", env=s3.env)
    assert ended.code == 1, ended.err
    error = json.loads(ended.out)["error"]
    assert (error["code"], error["remedy"]) == (
        "destination_refused",
        "make the bucket first, or name another one",
    )
    assert "Traceback" not in ended.err


def test_without_obstore_buckets_are_refused_and_folders_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "obstore.store", None)
    with pytest.raises(ObjectsRefused, match=r"tallyhook\[objects\]"):
        open_objects(read_objects_address("s3://bucket"))
    assert open_objects(read_objects_address(os.fspath(tmp_path))).display == str(tmp_path)
