"""Object storage: a folder and a bucket behave alike, whole or not at all, whatever is killed."""

import asyncio
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from app.address import read_objects_address
from app.objects import Objects, open_objects
from app.objects.folder import STAGED_AGE_MAX_S
from app.ports import ObjectsRefused, ObjectsUnavailable
from tests.servers.s3 import S3Server

LARGE = 20 << 20
"""Three parts of an upload."""


@pytest.fixture
def objects(objects_url: str) -> Objects:
    return open_objects(read_objects_address(objects_url))


async def listed(objects: Objects, folder: str = "", *, after: str = "") -> list[tuple[str, int]]:
    return [(entry.path, entry.size_bytes) async for entry in objects.list(folder, after=after)]


async def test_what_is_put_is_read_listed_and_deleted(objects: Objects, tmp_path: Path) -> None:
    large = tmp_path / "large"
    large.write_bytes(os.urandom(LARGE))
    assert await listed(objects) == []
    assert await objects.get("day=1/a") is None
    assert await objects.size_bytes("day=1/a") is None
    await objects.put("day=1/b.parquet", large)
    await objects.put("day=1/a", b"old")
    await objects.put("day=1/a", b"new one")
    await objects.put("other", b"")
    assert await objects.get("day=1/a") == b"new one"
    assert await objects.get("day=1/b.parquet") == large.read_bytes()
    assert await objects.get_range("day=1/b.parquet", LARGE - 5, 3) == large.read_bytes()[-5:-2]
    assert await listed(objects) == [("day=1/a", 7), ("day=1/b.parquet", LARGE), ("other", 0)]
    assert await listed(objects, "day=1") == [("day=1/a", 7), ("day=1/b.parquet", LARGE)]
    assert await listed(objects, "day=1", after="day=1/a") == [("day=1/b.parquet", LARGE)]
    await objects.delete("day=1/a")
    await objects.delete("day=1/a")
    assert await objects.get("day=1/a") is None


async def test_create_gives_a_path_to_the_first_only(objects: Objects) -> None:
    assert await objects.create("folder/one", b"mine")
    assert not await objects.create("folder/one", b"another's")
    assert await objects.create("folder/one", b"mine"), "as after an answer that was lost"
    assert await objects.get("folder/one") == b"mine"
    won = await asyncio.gather(*(objects.create("race", b"%d" % n) for n in range(8)))
    assert won.count(True) == 1
    assert await objects.get("race") == b"%d" % won.index(True)


def write_until_killed(url: str, puts: int, after_s: float) -> None:
    arguments = [sys.executable, "-m", "tests.integration.objects.writer", url, "x", str(LARGE)]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        for _ in range(1 + puts):
            assert process.stdout.readline()
        time.sleep(after_s)
        process.kill()


async def test_a_killed_writer_leaves_whole_objects_only(objects: Objects, objects_url: str) -> None:
    whole = {letter * LARGE for letter in (b"a", b"b")}
    for puts in range(4):
        write_until_killed(objects_url, puts, 0.004 + 0.013 * puts)  # another place of a put each time
        there = await objects.get("x")
        assert there in whole or (there is None and puts == 0)
        assert [path for path, _ in await listed(objects)] == ["x"] * (there is not None)


async def test_what_killed_writers_left_is_removed_in_time(tmp_path: Path) -> None:
    objects = open_objects(read_objects_address(str(tmp_path)))
    await objects.put("a", b"")
    old, fresh = tmp_path / "_staging" / "1-old", tmp_path / "_staging" / "2-fresh"
    old.write_bytes(b"half")
    fresh.write_bytes(b"half")
    long_ago_s = time.time() - STAGED_AGE_MAX_S - 60
    os.utime(old, (long_ago_s, long_ago_s))
    await objects.put("b", b"")
    assert not old.exists()
    assert fresh.exists()
    assert await listed(objects) == [("a", 0), ("b", 0)]


async def refusal(url: str) -> ObjectsRefused:
    with pytest.raises(ObjectsRefused) as refused:
        await open_objects(read_objects_address(url)).put("a", b"")
    return refused.value


async def test_a_bucket_that_is_not_there_is_named_with_a_remedy(s3: S3Server) -> None:
    error = await refusal("s3://no-such-bucket/x")
    assert "s3://no-such-bucket/x" in error.message
    assert "NoSuchBucket" in error.message
    assert "make the bucket first" in error.remedy
    for read in ("get", "size_bytes"):
        objects = open_objects(read_objects_address("s3://no-such-bucket/x"))
        if read == "get":  # a HEAD has no body, so it cannot say what is missing
            with pytest.raises(ObjectsRefused):
                await getattr(objects, read)("a")


async def test_missing_credentials_and_a_wrong_endpoint_are_named(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "ftp://127.0.0.1")
    assert "AWS_ENDPOINT_URL" in (await refusal(f"s3://{bucket}")).remedy
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3.env["AWS_ENDPOINT_URL"])
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    # In place of the address that tells a machine its role, which another network may have.
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")
    error = await refusal(f"s3://{bucket}")
    assert "AWS_ACCESS_KEY_ID" in error.remedy
    monkeypatch.delenv("AZURE_STORAGE_ACCOUNT_NAME", raising=False)
    assert "AZURE_STORAGE_ACCOUNT_NAME" in (await refusal("az://container/x")).remedy
    monkeypatch.setenv("GOOGLE_SERVICE_ACCOUNT", "/no/such/file")
    assert "GOOGLE_SERVICE_ACCOUNT" in (await refusal("gs://bucket/x")).remedy


async def test_a_storage_that_is_away_is_trouble_that_passes(
    s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket = s3.new_bucket()
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(ObjectsUnavailable, match=f"s3://{bucket}"):
        await open_objects(read_objects_address(f"s3://{bucket}")).put("a", b"")


async def test_a_folder_that_cannot_be_used_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    error = await refusal(str(tmp_path / "file" / "folder"))
    assert str(tmp_path / "file" / "folder") in error.message
    assert "may read and write" in error.remedy
