"""What is archived of a day is all that is closed, once, as it was received, whatever is killed."""

import asyncio
import json
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncConnection

from app.address import read_objects_address
from app.archive import Archive
from app.domain.delivery import RawDelivery
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.objects import open_objects
from app.ports import ArchivedBlock, BlockDamaged
from app.services.archive import ArchivedDay, archive_days
from app.store import Store
from app.store.tables import archive_blocks, archived_days, deliveries

DAY = 20_000 * DAY_MS
UNTIL = DAY + 30 * DAY_MS
BLOCK_BYTES = 3_000


def opened(url: str) -> Archive:
    return Archive(url, lambda: open_objects(read_objects_address(url)))


async def fill(store: Store, count: int, days: int = 1, seed: int = 1) -> dict[str, RawDelivery]:
    rng = random.Random(seed)
    words = [rng.randbytes(4).hex() for _ in range(100)]
    made = []
    for n in range(count):
        at_ms = DAY + (n % days) * DAY_MS + n * 1_000
        body = json.dumps({"n": n, "text": " ".join(rng.choices(words, k=rng.randrange(200)))}).encode()
        signed = {"webhook_id": f"w-{n}", "signed_at": str(at_ms // 1000), "signature": f"v1={n:064x}"}
        made.append(RawDelivery(new_id(at_ms), Source.DELIVERY, at_ms, body, **signed, account="default"))
    await store.inbox.store_deliveries(made, due_at_ms=0)
    return {delivery.id: delivery for delivery in made}


async def set_state(store: Store, state: str, *ids: str) -> None:
    async def work(connection: AsyncConnection) -> None:
        update = sa.update(deliveries).values(state=state)
        await connection.execute(update.where(deliveries.c.id.in_(ids)) if ids else update)

    await store.db.write(work)


async def blocks(store: Store) -> list[ArchivedBlock]:
    b = archive_blocks.c
    query = sa.select(
        b.day_ms, b.path, b.first_id, b.last_id, b.deliveries, b.body_bytes, b.block_bytes, b.sha256
    ).order_by(b.day_ms, b.number)

    async def work(connection: AsyncConnection) -> list[ArchivedBlock]:
        return [ArchivedBlock(*row) for row in await connection.execute(query)]

    return await store.db.read(work)


async def left_out(store: Store) -> list[str]:
    async def work(connection: AsyncConnection) -> list[str]:
        rows = await connection.scalars(sa.select(archived_days.c.left_out))
        return [i for row in rows for i in json.loads(row)]

    return await store.db.read(work)


async def archived(store: Store, archive: Archive, until_ms: int = UNTIL) -> list[ArchivedDay]:
    days = archive_days(
        store, archive, until_ms=until_ms, days_max=9, clock=lambda: UNTIL, block_bytes=BLOCK_BYTES
    )
    return [day async for day in days]


async def check_archive(store: Store, url: str, expected: dict[str, RawDelivery]) -> None:
    """Each of `expected` is in one block, and comes back as it was received; nothing else is there."""
    archive = opened(url)
    times: Counter[str] = Counter()
    for block in await blocks(store):
        found = await archive.deliveries(block, expected)
        assert len(found) == block.count
        times.update(found.keys())
        for i, row in found.items():
            delivery = expected[i]
            assert row["body"] == delivery.body
            assert (row["signature"], row["received_at_ms"]) == (delivery.signature, delivery.received_at_ms)
    assert times == dict.fromkeys(expected, 1)


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


@pytest.fixture
def archive(url: str) -> Archive:
    return opened(url)


async def test_closed_deliveries_of_each_day_are_archived_once(
    store: Store, archive: Archive, url: str
) -> None:
    made = await fill(store, 500, days=3)
    await set_state(store, "done")
    done = await archived(store, archive)
    assert [day.day_ms for day in done] == [DAY, DAY + DAY_MS, DAY + 2 * DAY_MS]
    assert sum(day.deliveries for day in done) == 500
    assert all(day.blocks > 1 for day in done)
    await check_archive(store, url, made)
    assert await archived(store, archive) == []


async def test_a_day_that_is_not_over_is_left(store: Store, archive: Archive) -> None:
    await fill(store, 4, days=2)
    await set_state(store, "done")
    assert [day.day_ms for day in await archived(store, archive, DAY + 2 * DAY_MS - 1)] == [DAY]


async def test_what_was_not_closed_follows_when_it_is(store: Store, archive: Archive, url: str) -> None:
    made = await fill(store, 60)
    open_ids = sorted(made)[10:13]
    await set_state(store, "done")
    await set_state(store, "quarantined", *open_ids)
    (day,) = await archived(store, archive)
    assert (day.deliveries, day.left_out) == (57, 3)
    assert await left_out(store) == open_ids
    assert await archived(store, archive) == []
    await set_state(store, "done", *open_ids[:2])
    (day,) = await archived(store, archive)
    assert (day.deliveries, day.left_out) == (2, 1)
    await check_archive(store, url, {i: made[i] for i in made if i != open_ids[2]})


async def test_one_that_is_closed_while_its_day_is_read_is_archived_once(
    store: Store, archive: Archive, url: str
) -> None:
    """It was passed over already, or is still to come."""
    made = await fill(store, 300)
    first, *_, last = sorted(made)
    await set_state(store, "done")
    await set_state(store, "unmatched", first, last)
    record = store.archives.record_block

    async def close_then_record(*args: object, **kwargs: object) -> bool:
        await set_state(store, "done")
        return await record(*args, **kwargs)  # type: ignore[arg-type]

    store.archives.record_block = close_then_record  # type: ignore[method-assign]
    done = await archived(store, archive) + await archived(store, archive)
    assert [day.left_out for day in done] == [2, 0]
    await check_archive(store, url, made)


async def test_of_two_that_archive_a_day_one_is_counted(store: Store, archive: Archive, url: str) -> None:
    made = await fill(store, 120)
    await set_state(store, "done")
    record = store.archives.record_block
    won: list[list[ArchivedDay]] = []

    async def overtaken(*args: object, **kwargs: object) -> bool:
        store.archives.record_block = record  # type: ignore[method-assign]
        other = replace_first(url)
        won.append(await archived(store, other))
        return await record(*args, **kwargs)  # type: ignore[arg-type]

    def replace_first(place: str) -> Archive:
        return opened(place)

    store.archives.record_block = overtaken  # type: ignore[method-assign]
    await archived(store, archive)
    assert sum(day.deliveries for day in won[0]) == 120
    await check_archive(store, url, made)


def damaged(path: Path, part: int) -> bytes:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // part] ^= 1
    return bytes(raw)


async def test_a_block_that_does_not_come_back_as_written_is_not_recorded(
    store: Store, tmp_path: Path
) -> None:
    objects = open_objects(read_objects_address(str(tmp_path / "archive")))

    async def damage(path: str, content: bytes | Path) -> None:
        assert isinstance(content, Path)
        await put(path, damaged(content, 2))

    put, objects.put = objects.put, damage  # type: ignore[method-assign]
    await fill(store, 50)
    await set_state(store, "done")
    with pytest.raises(BlockDamaged, match="does not come back"):
        await archived(store, Archive("", lambda: objects))
    assert await blocks(store) == []


async def test_a_block_that_was_damaged_later_is_told(store: Store, archive: Archive, url: str) -> None:
    made = await fill(store, 50)
    await set_state(store, "done")
    await archived(store, archive)
    block = (await blocks(store))[0]
    path = Path(url) / block.path
    path.write_bytes(damaged(path, 3))
    with pytest.raises(BlockDamaged, match=f"{block.path} in the archive .* is damaged: "):
        await opened(url).deliveries(block, made)
    with pytest.raises(BlockDamaged):
        await opened(url).deliveries(replace(block, block_bytes=block.block_bytes - 1), made)


def run_archiver(*arguments: str) -> int:
    command = [sys.executable, "-m", "tests.integration.archive.archiver", *arguments]
    return subprocess.run(command, timeout=200, check=False).returncode


async def kill_at(steps: Iterable[int], store_url: str, url: str) -> int:
    """Archive, killed at each of the steps in turn and then left alone; how often it was killed."""
    kills = 0
    for step in [*steps, 1_000_000]:
        arguments = [store_url, url, str(UNTIL), str(BLOCK_BYTES), str(step)]
        code = await asyncio.to_thread(run_archiver, *arguments)
        assert code in (0, -signal.SIGKILL)
        kills += code != 0
    return kills


async def test_killed_at_some_steps_it_loses_nothing_and_doubles_nothing(
    store: Store, store_url: str, url: str
) -> None:
    made = await fill(store, 460, days=2)
    await set_state(store, "done")
    assert await kill_at((1, 6, 9, 12), store_url, url) == 4
    await check_archive(store, url, made)
    assert await left_out(store) == []


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("place", ["folder", "bucket"])
async def test_killed_at_every_step_it_loses_nothing_and_doubles_nothing(
    store: Store, store_url: str, place: str, url: str, request: pytest.FixtureRequest
) -> None:
    if place == "bucket":
        url = f"s3://{request.getfixturevalue('s3').new_bucket()}/archive"
    made = await fill(store, 460, days=2)
    await set_state(store, "done")
    assert await kill_at(range(40), store_url, url) > 8
    await check_archive(store, url, made)
    assert await left_out(store) == []
