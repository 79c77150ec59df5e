"""What is wrong with an archive, or with what goes there, costs no delivery and holds up no other day."""

import shutil
import tempfile
from pathlib import Path

import pytest
import sqlalchemy as sa

from app.archive import Archive
from app.domain.delivery import RawDelivery
from app.domain.retention import Kind
from app.domain.settlement import Source
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.ports import ArchivedBlock, BlockDamaged, ObjectsUnavailable
from app.services.in_archive import InArchive
from app.services.prune import Pruner
from app.store import Store
from app.store.tables import deliveries
from tests.integration.archive.test_archive_days import (
    DAY,
    UNTIL,
    archived,
    blocks,
    check_archive,
    fill,
    left_out,
    opened,
    set_state,
)
from tests.integration.prune.test_prune import no_pause


@pytest.fixture
def url(tmp_path: Path) -> str:
    return str(tmp_path / "archive")


def pruner_of(store: Store, url: str) -> Pruner:
    place = InArchive(store, opened(url))
    return Pruner(store, {Kind.BODIES: 10}, clock=lambda: UNTIL, pause=no_pause, place=place)


async def stand(store: Store) -> set[str]:
    query = sa.select(deliveries.c.id)
    return {row[0] for row in await store.db.read(lambda c: c.execute(query))}


def lose(url: str, block: ArchivedBlock, _other: ArchivedBlock) -> None:
    Path(url, block.path).unlink()


def cut_off(url: str, block: ArchivedBlock, _other: ArchivedBlock) -> None:
    path = Path(url, block.path)
    path.write_bytes(path.read_bytes()[:-1])


def put_another_day_there(url: str, block: ArchivedBlock, other: ArchivedBlock) -> None:
    shutil.copy(Path(url, other.path), Path(url, block.path))


@pytest.mark.parametrize("harm", [lose, cut_off, put_another_day_there])
async def test_nothing_is_dropped_whose_block_is_not_whole_any_more(
    sqlite_store: Store, url: str, harm: object
) -> None:
    """It was read back when it was stored; what happened since is found by who drops the last copy."""
    store, made = sqlite_store, await fill(sqlite_store, 60, days=2)
    await set_state(store, "done")
    await archived(store, opened(url))
    first, *_, last = await blocks(store)
    assert callable(harm)
    harm(url, first, last)
    pruner = pruner_of(store, url)
    (dropped,) = await pruner.turn()
    assert (dropped.day_ms, set(pruner.held)) == (DAY + DAY_MS, {DAY}), "the other day goes"
    assert first.path in pruner.held[DAY] and "is archived anew" in pruner.held[DAY]
    assert await stand(store) == {i for i in made if i < last.first_id}
    assert (await pruner.turn(), pruner.held) == ([], {DAY: "not all of it is in the archive yet"})
    assert [day.day_ms for day in await archived(store, opened(url))] == [DAY]
    (dropped,) = await pruner.turn()
    assert (dropped.day_ms, pruner.held, await stand(store)) == (DAY, {}, set())
    await check_archive(store, url, made)


async def test_a_lost_block_of_a_day_that_is_dropped_in_part_is_said_and_kept_in_the_books(
    sqlite_store: Store, url: str
) -> None:
    store, made = sqlite_store, await fill(sqlite_store, 20)
    late = max(made)
    await set_state(store, "done")
    await set_state(store, "quarantined", late)
    await archived(store, opened(url))
    assert len(await pruner_of(store, url).turn()) == 1
    await set_state(store, "done", late)
    await archived(store, opened(url))
    first, *_ = known = await blocks(store)
    lose(url, first, first)
    for _ in range(2):
        pruner = pruner_of(store, url)
        assert await pruner.turn() == []
        assert pruner.held[DAY].endswith("restore it")
    assert (await stand(store), await blocks(store)) == ({late}, known)


async def test_another_block_of_the_same_size_is_told(sqlite_store: Store, url: str) -> None:
    """Then a look-up would find nothing in it, and take that for pruned."""
    store = sqlite_store
    await fill(store, 40, days=2)
    await set_state(store, "done")
    await archived(store, opened(url))
    block, *_, other = await blocks(store)
    shutil.copy(Path(url, other.path), Path(url, block.path))
    same_size = ArchivedBlock(
        **{name: getattr(block, name) for name in block.__slots__} | {"block_bytes": other.block_bytes}
    )
    with pytest.raises(BlockDamaged, match="it is another block"):
        await opened(url).deliveries(same_size, [block.first_id])


async def test_a_storage_that_is_away_holds_everything_until_it_is_back(
    sqlite_store: Store, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, made = sqlite_store, await fill(sqlite_store, 20, days=2)
    await set_state(store, "done")
    await archived(store, opened(url))

    async def away(*_: object) -> None:
        raise ObjectsUnavailable("503")

    pruner = pruner_of(store, url)
    with monkeypatch.context() as patched:
        patched.setattr(Archive, "check", away)
        assert await pruner.turn() == []
    assert (pruner.held, await stand(store)) == ({DAY: "503"}, made.keys())
    assert len(await pruner.turn()) == 2


async def test_what_came_after_its_day_was_archived_follows(store: Store, url: str) -> None:
    """Of a clock that went back by days: neither in a block nor left out, it held its day up for ever."""
    made = await fill(store, 20)
    await set_state(store, "done")
    await archived(store, opened(url))
    late = RawDelivery(new_id(DAY + 5), Source.POLL, DAY + 5, b'{"late": 1}', account="default")
    await store.inbox.store_deliveries([late], due_at_ms=0)
    await set_state(store, "done")
    assert await archived(store, opened(url)) == []
    (dropped,) = await pruner_of(store, url).turn()
    assert (dropped.rows, await stand(store), await left_out(store)) == (20, {late.id}, [late.id])
    (day,) = await archived(store, opened(url))
    assert (day.deliveries, day.left_out) == (1, 0)
    (dropped,) = await pruner_of(store, url).turn()
    assert (dropped.rows, await stand(store)) == (1, set())
    await check_archive(store, url, made | {late.id: late})


async def test_a_body_that_does_not_unpack_is_left_out_and_the_others_go(
    sqlite_store: Store, url: str
) -> None:
    store, made = sqlite_store, await fill(sqlite_store, 20, days=2)
    await set_state(store, "done")
    broken = min(made)
    harm = sa.update(deliveries).where(deliveries.c.id == broken).values(body=b"?", encoding="zstd")
    await store.db.write(lambda connection: connection.execute(harm))
    first, second = await archived(store, opened(url))
    assert (first.left_out, first.unreadable, second.unreadable) == (1, (broken,), ())
    assert await archived(store, opened(url)) == []
    await check_archive(store, url, {i: made[i] for i in made if i != broken})
    await pruner_of(store, url).turn()
    assert await stand(store) == {broken}


async def test_a_full_disk_of_this_machine_is_trouble_that_passes(
    sqlite_store: Store, url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await fill(sqlite_store, 5)
    await set_state(sqlite_store, "done")
    with monkeypatch.context() as patched:
        patched.setattr(tempfile, "tempdir", str(tmp_path / "none"))
        with pytest.raises(ObjectsUnavailable, match="no block can be made on this machine: No such file"):
            await archived(sqlite_store, opened(url))
    assert len(await archived(sqlite_store, opened(url))) == 1


async def test_a_day_of_which_nothing_is_closed_is_nobodys_trouble(sqlite_store: Store, url: str) -> None:
    made = await fill(sqlite_store, 5)
    await set_state(sqlite_store, "quarantined")
    (day,) = await archived(sqlite_store, opened(url))
    pruner = pruner_of(sqlite_store, url)
    assert (day.blocks, await pruner.turn(), pruner.held) == (0, [], {})
    assert await stand(sqlite_store) == made.keys()
