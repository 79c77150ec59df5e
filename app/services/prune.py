"""Prunes what is older than the policy: the oldest first, a bounded piece at a time.

Which rows must stay is the store's to say (`store/write/pruning.py`), in the transaction that drops the
others.
"""

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from app.domain.retention import Elsewhere, Kind, kept_since
from app.domain.time_format import DAY_MS
from app.ports import BlockDamaged, Clock, ObjectsRefused, ObjectsUnavailable

if TYPE_CHECKING:
    from app.store import Store
    from app.store.write.partitions import Partition
    from app.store.write.pruning_rows import RowBatch, RowId
    from app.store.write.receipts import Dropped

Policy = Mapping[str, int]
"""Days that rows of a kind are kept; a kind that is not named is kept for ever."""
ROW_KINDS = (Kind.NOTICES, Kind.FINDINGS, Kind.SUBMISSIONS, Kind.BALANCES, Kind.KEYS)
"""Before bodies, and what is explained by others before these: so a turn drops what was planned, and what
others hold up today goes tomorrow."""
LookAtRows = Callable[[Kind, int, "RowId | None", int], Awaitable["RowBatch"]]
"""Of a kind, before a time, after an id, now."""
Pause = Callable[[], Awaitable[None]]
"""Between two batches: who else writes has a turn, and who stops is heard."""


class Place(Protocol):
    """Where bodies are before they are pruned; days are their midnight (UTC) in ms."""

    async def of_day(self, day_ms: int) -> Elsewhere | None:
        """Asked before anything of a day is dropped; None: it may not be yet."""

    async def note_late(self, day_ms: int) -> None:
        """Asked of a day that may not be dropped yet: what stands of it is to follow."""

    async def fault_of(self, day_ms: int) -> str | None:
        """Why nothing of a day that is due may be dropped; None: it may. Raises ObjectsUnavailable."""


class Nowhere:
    """There is no archive: the policy alone decides."""

    async def of_day(self, _day_ms: int) -> Elsewhere | None:
        return Elsewhere()

    async def note_late(self, _day_ms: int) -> None:
        """Nothing follows anywhere."""

    async def fault_of(self, _day_ms: int) -> str | None:
        return None


class Pruner:
    """Prunes; remembers where it ended."""

    def __init__(
        self,
        store: "Store",
        policy: Policy,
        *,
        clock: Clock,
        pause: Pause,
        is_over: Callable[[], bool] = lambda: False,
        place: Place | None = None,
    ) -> None:
        self._store = store
        self._policy = policy
        self._clock = clock
        self._pause = pause
        self._place = Nowhere() if place is None else place
        self.held: dict[int, str] = {}
        """Days that are old enough, of which nothing went in the last turn for the archive's sake: why."""
        self._is_over = is_over
        """Asked between two days or batches: then the turn ends, and the next one goes on there."""
        self._next_day_ms = 0
        self._after: dict[Kind, RowId | None] = {}
        self._done_until_ms: dict[Kind, int] = {}

    async def turn(self) -> "list[Dropped]":
        """Drop what is due; days of which something went. Raises as the store does: what went until then is
        in its receipts."""
        found: list[Dropped] = []
        self.held = {}
        for kind in ROW_KINDS:
            found += await self._rows(kind, self._store.row_pruning.drop_rows, is_plan=False)
        if (days := self._policy.get(Kind.BODIES)) is not None:
            found += await self._bodies(kept_since(self._clock(), days))
        return [dropped for dropped in found if dropped.rows]

    async def plan(self) -> "list[Dropped]":
        """What a turn would drop, and what would stay."""
        found: list[Dropped] = []
        for kind in ROW_KINDS:
            found += await self._rows(kind, self._store.row_pruning.survey_rows, is_plan=True)
        if (days := self._policy.get(Kind.BODIES)) is not None:
            until_ms, day_ms = kept_since(self._clock(), days), await self._store.partitions.next_day(0)
            while day_ms is not None and day_ms < until_ms:
                if (place := await self._place.of_day(day_ms)) is not None:
                    found.append(await self._store.pruning.survey_bodies(day_ms, place))
                day_ms = await self._store.partitions.next_day(day_ms + DAY_MS)
        return found

    async def _rows(self, kind: Kind, look: "LookAtRows", *, is_plan: bool) -> "list[Dropped]":
        """A kind of rows, from where the turn before ended; once all are gone through, not again until the
        next day is old enough."""
        days = self._policy.get(kind)
        until_ms = 0 if days is None else kept_since(self._clock(), days)
        if until_ms <= self._done_until_ms.get(kind, 0):
            return []
        found: dict[int, Dropped] = {}
        after = None if is_plan else self._after.get(kind)
        while not self._is_over():
            batch = await look(kind, until_ms, after, self._clock())
            for day in batch.days:
                stood = found.get(day.day_ms)
                found[day.day_ms] = day if stood is None else stood.plus(day)
            after = batch.last_id
            if after is None and not is_plan:
                await self._store.row_pruning.close_rows(kind, until_ms)
                self._done_until_ms[kind] = until_ms
            if after is None:
                break
            await self._pause()
        if not is_plan:
            self._after[kind] = after
        for day in found.values():
            day.rows_of = []
        return [found[day_ms] for day_ms in sorted(found)]

    async def _bodies(self, until_ms: int) -> "list[Dropped]":
        partitions = await self._store.partitions.partitions()
        whole = {one.from_ms: one for one in partitions if one.until_ms - one.from_ms == DAY_MS}
        found = []
        while True:
            day_ms = await self._store.partitions.next_day(self._next_day_ms)
            if day_ms is None or day_ms >= until_ms:
                self._next_day_ms = 0
                break
            try:
                if (place := await self._place_of(day_ms)) is not None:
                    found.append(await self._day(day_ms, whole.get(day_ms), place))
            except (ObjectsRefused, BlockDamaged) as error:
                self.held[day_ms] = str(error)
            except ObjectsUnavailable as error:
                self.held[day_ms] = str(error)
                break
            if self._is_over():
                self._next_day_ms = day_ms
                break
            self._next_day_ms = day_ms + DAY_MS
        for partition in await self._store.partitions.partitions():
            if partition.until_ms <= until_ms:
                await self._store.pruning.drop_empty(partition)
        return found

    async def _place_of(self, day_ms: int) -> Elsewhere | None:
        """Where the day is, if what may go of it is there and whole."""
        place = await self._place.of_day(day_ms)
        if place is None:
            await self._place.note_late(day_ms)
            place = await self._place.of_day(day_ms)
        if place is None:
            self.held[day_ms] = "not all of it is in the archive yet"
        if place is None or place.location is None:
            return place
        # Read only where something goes: what stays of old days is looked at every hour.
        if not (await self._store.pruning.survey_bodies(day_ms, place)).rows:
            return None
        if (fault := await self._place.fault_of(day_ms)) is not None:
            self.held[day_ms] = fault
            return None
        return place

    async def _day(self, day_ms: int, partition: "Partition | None", elsewhere: Elsewhere) -> "Dropped":
        """A day's bodies: its partition whole where it has one, otherwise in batches."""
        if partition is not None:
            dropped = await self._store.pruning.drop_day(partition, self._clock(), elsewhere)
            if dropped is not None:
                return dropped
        return await self._in_batches(day_ms, elsewhere)

    async def _in_batches(self, day_ms: int, elsewhere: Elsewhere) -> "Dropped":
        pruning, after_id = self._store.pruning, None
        whole = None
        while True:
            batch = await pruning.drop_bodies(day_ms, after_id, self._clock(), elsewhere)
            whole = batch.dropped if whole is None else whole.plus(batch.dropped)
            after_id = batch.last_id
            if after_id is None:
                break
            if self._is_over():
                return whole
            await self._pause()
        await pruning.close_bodies(day_ms)
        return whole
