"""A year in small: days of work on a stepped clock, archived when they are over and pruned as they grow old.
Bytes level off in the database and grow evenly in the archive, and the books verify: before, in the middle of
and after each step. Each day what the steps are about is verified, each month all there ever was. The short
form has twelve days of few tasks.
"""

import itertools
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from app.address import read_objects_address
from app.archive import Archive
from app.domain.delivery import RawDelivery
from app.domain.retention import Kind
from app.domain.settlement import Source
from app.domain.task import TaskSpec, new_id
from app.domain.time_format import DAY_MS
from app.objects import Objects, open_objects
from app.provider.signature import sign
from app.provider.wire import read_answer, read_report
from app.services.archive import archive_days
from app.services.in_archive import InArchive
from app.services.prune import Pruner
from app.services.settle import settle
from app.services.verify.books import conclude, verify_share
from app.store import Database, Store
from app.store.days import day_of
from app.store.read.verification import open_snapshot
from app.store.tables import deliveries
from app.store.write import archives, pruning
from app.store.write.partitions import AHEAD_DAYS
from tests.clock import SteppedClock
from tests.integration.archive.test_archive_days import blocks
from tests.integration.prune.test_prune import receipts, verify
from tests.integration.verify.scene import FIVE, SECRET, Scene, scene_reading, verified
from tests.servers.postgres import PostgresServer

ARCHIVED_AFTER_DAYS = 2
BLOCK_BYTES = 1_000
"""Less than a page: a day has two blocks of a page each."""
STEPS = 5
"""After which the books are verified, of a day: work, two blocks, the archive's end, pruning; on SQLite also
between two batches."""
STEPS_EVERY_DAYS = 10
"""On the other days the books of a day are verified at its end."""
WHOLE_MAX = 500
"""Up to so many deliveries all books are verified at each step of a month's last day. To derive a year again
six times a month is to derive it for an hour: then each month has one step of its own."""


async def work_a_day(scene: Scene, day: int, count: int) -> tuple[str, dict[str, bytes]]:
    """A run of `count` prompts, each answered: its id, and delivery id -> body."""
    store, clock = scene.store, scene.clock
    run_id = await store.runs.create_run(name=f"day {day}", source="-", budget=None, now_ms=clock())
    names = [f"{day}-{n}" for n in range(count)]
    specs = [TaskSpec(n, "CHATGPT", {"prompt": name, "country": "DE"}) for n, name in enumerate(names, 1)]
    ids = await store.runs.add_tasks(run_id, [(spec, FIVE) for spec in specs], clock())
    scene.ids = dict(zip(names, ids, strict=True))
    await store.runs.start_run_if_loading(run_id, sha256="0" * 64, bad_lines=0)
    await scene.claim()
    await store.submissions.record_submissions([scene.ended(name) for name in names])
    now = clock.advance(60_000)
    arrived = [_signed(scene.body(name, response={"text": _text(name)}), now) for name in names]
    await store.inbox.store_deliveries(arrived, due_at_ms=now)
    await settle(store, read_report, [one.id for one in arrived], clock=clock, unmatched_ms=0)
    return run_id, {one.id: one.body for one in arrived}


def _text(name: str) -> str:
    return random.Random(name).randbytes(1_000).hex()


def _signed(body: bytes, now_ms: int) -> RawDelivery:
    at = str(now_ms // 1000)
    signature = sign(SECRET, at, body)
    return RawDelivery(
        new_id(now_ms),
        Source.DELIVERY,
        now_ms,
        body,
        account="default",
        webhook_id="w",
        signed_at=at,
        signature=signature,
    )


async def stored_bytes(store: Store) -> int:
    size = sa.select(sa.func.coalesce(sa.func.sum(sa.func.length(deliveries.c.body)), 0))
    return int(await store.db.read(lambda connection: connection.scalar(size)) or 0)


async def stored(store: Store) -> dict[str, int]:
    """Delivery id -> how often its row stands: once, but for a bug."""
    query = sa.select(deliveries.c.id, sa.func.count()).group_by(deliveries.c.id)
    rows = await store.db.read(lambda connection: connection.execute(query))
    return {row[0]: row[1] for row in rows}


@dataclass
class Year:
    """What lives through it."""

    scene: Scene
    objects: Objects
    kept: int
    """Days."""
    a_day: int
    """Tasks."""
    month: int
    """Days."""
    day: int = 0
    step: int = 0
    """Of the day."""
    runs: list[str] = field(default_factory=list)
    """Of each day until today."""
    bodies: dict[str, bytes] = field(default_factory=dict)
    """All that was ever received, by delivery id."""
    looked: int = 0
    """Times that all books were verified."""

    async def live(self, day: int) -> None:
        """Work, then what the duties do: make partitions, archive, prune."""
        store, clock = self.scene.store, self.scene.clock
        self.day, self.step = day, 0
        await store.partitions.add_partitions(clock())
        run_id, bodies = await work_a_day(self.scene, day, self.a_day)
        self.runs.append(run_id)
        self.bodies |= bodies
        await self.look()
        until_ms = clock() - ARCHIVED_AFTER_DAYS * DAY_MS
        assert isinstance(store.archive, Archive)
        async for archived in archive_days(
            store, store.archive, until_ms=until_ms, days_max=3, clock=clock, block_bytes=BLOCK_BYTES
        ):
            assert (archived.deliveries, archived.left_out) == (self.a_day, 0)
            assert self._days_ago(archived.day_ms) == ARCHIVED_AFTER_DAYS + 1
        await self.look()
        dropped = await Pruner(
            store,
            {Kind.BODIES: self.kept},
            clock=clock,
            pause=self.look,
            place=InArchive(store, store.archive),
        ).turn()
        assert [self._days_ago(one.day_ms) for one in dropped] == [self.kept + 1] * (day > self.kept)
        await self.look(is_end=True)

    def _days_ago(self, day_ms: int) -> int:
        return (day_of(self.scene.clock()) - day_ms) // DAY_MS

    async def look(self, *, is_end: bool = False) -> None:
        """After a step: the books derive again from database and archive together, and without the archive by
        receipts."""
        is_month = self.day % self.month == self.month - 1
        is_due = len(self.bodies) <= WHOLE_MAX or self.step == self.day // self.month % STEPS
        self.step += 1
        if is_month and is_due:
            await self.verify_all()
        elif is_end or self.day % STEPS_EVERY_DAYS == 0:
            ago = (0, ARCHIVED_AFTER_DAYS + 1, self.kept + 1)
            await self.verify_days([self.day - days for days in ago if days <= self.day])

    async def verify_days(self, days: Sequence[int]) -> None:
        """What the steps of today are about."""
        store, ids = self.scene.store, [self.runs[day] for day in days]
        async with open_snapshot(store.db, archive=store.archive) as snapshot:
            whole = await verify_share(snapshot, await snapshot.runs(None, ids), scene_reading())
            conclude(whole)
        assert (whole.differences, whole.counts["pruned"]) == ([], 0)
        assert whole.counts["signatures_fit"] == len(days) * self.a_day
        async with open_snapshot(store.db) as snapshot:
            by_receipts = await verify_share(snapshot, await snapshot.runs(None, ids), scene_reading())
            conclude(by_receipts)
        assert by_receipts.differences == []
        stand = by_receipts.counts["signatures_fit"]
        assert stand + by_receipts.counts["pruned"] == len(days) * self.a_day

    async def verify_all(self) -> None:
        """As `verify --all`, with the archive and without."""
        store = self.scene.store
        self.looked += 1
        async with open_snapshot(store.db, archive=store.archive) as snapshot:
            whole = await verified(snapshot)
        assert (whole.differences, whole.counts["pruned"]) == ([], 0)
        assert whole.counts["signatures_fit"] == len(self.bodies)
        by_receipts = await verify(store)
        assert by_receipts.differences == []
        gone = sum(one.row_count for one in await receipts(store))
        assert by_receipts.counts["pruned"] == gone

    async def assert_nothing_lost_or_doubled(self) -> None:
        store, archive, times = self.scene.store, self.scene.store.archive, await stored(self.scene.store)
        assert isinstance(archive, Archive)
        archived: set[str] = set()
        for block in await blocks(store):
            found = await archive.deliveries(block, self.bodies)
            assert len(found) == block.count and not archived & found.keys()
            assert all(row["body"] == self.bodies[i] for i, row in found.items())
            archived |= found.keys()
        assert set(times.values()) == {1} and times.keys() | archived == self.bodies.keys()
        gone = await receipts(store)
        assert sum(one.row_count for one in gone) == len(self.bodies) - len(times)
        objects = [entry.size_bytes async for entry in self.objects.list()]
        assert sum(objects) == sum(block.block_bytes for block in await blocks(store)), "nothing left behind"


@pytest.fixture(params=["sqlite", "postgres"])
async def books(request: pytest.FixtureRequest, postgres: PostgresServer) -> AsyncIterator[Database]:
    """A database whose partitions are the test's own."""
    if request.param == "sqlite":
        url = request.getfixturevalue("sqlite_url")
    else:
        url = postgres.create_database(request.getfixturevalue("postgres_template"))
    database = Database(url)
    try:
        yield database
    finally:
        await database.close()
        if request.param != "sqlite":
            postgres.drop_database(url)


LONG = [pytest.mark.slow, pytest.mark.timeout(3_600)]


@pytest.mark.parametrize(
    ("days", "kept", "a_day", "month", "place"),
    [
        (12, 4, 3, 6, "folder"),
        pytest.param(365, 30, 50, 30, "folder", marks=LONG),
        pytest.param(365, 30, 50, 30, "bucket", marks=LONG),
    ],
)
async def test_bytes_level_off_as_the_policy_says(
    books: Database,
    days: int,
    kept: int,
    a_day: int,
    month: int,
    place: str,
    tmp_path: Path,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(pruning, "BATCH", a_day // 2 + 1)
    monkeypatch.setattr(archives, "PAGE", a_day // 2 + 1)
    url = str(tmp_path / "archive")
    if place == "bucket":
        url = f"s3://{request.getfixturevalue('s3').new_bucket()}/archive"
    objects = open_objects(read_objects_address(url))
    store = Store(books, read_answer, Archive(url, lambda: objects))
    clock = SteppedClock(day_of(await store.health.database_ms()) + 20 * DAY_MS + 3_600_000)
    year = Year(Scene(store, clock), objects, kept, a_day, month)
    record = store.archives.record_block

    async def record_and_look(*args: Any, **kwargs: Any) -> bool:
        is_first = await record(*args, **kwargs)
        await year.look()
        return is_first

    store.archives.record_block = record_and_look  # type: ignore[method-assign]
    sizes, archived = [], []
    for day in range(days):
        start_ms = clock()
        await year.live(day)
        sizes.append(await stored_bytes(store))
        archived.append(sum(block.block_bytes for block in await blocks(store)))
        clock.now_ms = start_ms + DAY_MS
    level = sizes[kept + 1]
    assert sizes[kept - 1] < level
    assert all(abs(size - level) < level * 0.02 for size in sizes[kept + 1 :])
    grown = [after - before for before, after in itertools.pairwise(archived[ARCHIVED_AFTER_DAYS + 1 :])]
    assert max(grown) < min(grown) * 1.1, "the archive grows by a day each day"
    assert year.looked >= days // month
    await year.verify_all()
    await year.assert_nothing_lost_or_doubled()
    if not books.is_sqlite:
        state = await store.partitions.partition_state(clock() - DAY_MS)
        assert state is not None and (state.days_ahead, state.has_rows_in_default) == (AHEAD_DAYS, False)
        assert len(await store.partitions.partitions()) <= kept + AHEAD_DAYS + 4
