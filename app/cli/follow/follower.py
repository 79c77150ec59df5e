"""Follows the settle sequence into a destination: looks, stores what is new, waits.

Trouble of the database or of the destination is waited out, and everything is then looked at anew: nothing
that this process believes about the destination outlives it. Raises UserError for what a person must see to.
"""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from app.cli.follow.destination import Destination, Position
from app.cli.follow.manifest import Manifest, Selection
from app.cli.follow.parts import PartFiles, own_disk
from app.cli.store_access import trouble
from app.errors import UserError
from app.logger import get_logger
from app.ports import Jitter, ObjectsRefused, ObjectsUnavailable
from app.store.read.exports import Row
from app.store.read.settled import SettledPage
from app.waiting import set_within

log = get_logger(__name__)

WAIT_S_MAX = 60.0
"""After trouble: 1, 2, 4, … seconds, and up to half as long again."""
ANOTHER_DATABASE = "it is another one, or was restored from a backup: follow it into another destination"
ONCE_TRIES = 6
"""With --once: 31 to 47 s of waiting, then whoever started it is told."""


class SettledReads(Protocol):
    """The part of the store that is followed."""

    async def settled_after(
        self, seq: int, *, through: int | None = None, run_id: str | None = None, accounts: Sequence[str] = ()
    ) -> SettledPage: ...

    async def settled_at(self, seq: int) -> tuple[str, int] | None: ...


@dataclass(slots=True)
class Followed:
    """What one process has added."""

    rows: int = 0
    parts: int = 0
    last_seq: int = 0


class Follower:
    """One process's following; `stop` may be called from a signal handler."""

    def __init__(
        self,
        source: SettledReads,
        destination: Destination,
        selection: Selection,
        *,
        every_s: float,
        jitter: Jitter,
    ) -> None:
        self._source = source
        self._destination = destination
        self._selection = selection
        self._every_s = every_s
        self._jitter = jitter
        self._stopping = asyncio.Event()
        self._seen_seq = 0
        """Up to here everything was looked at; behind the last result where others are not followed."""
        self._failures = 0
        self.followed = Followed()

    def stop(self) -> None:
        """End as soon as what was read is stored."""
        self._stopping.set()

    async def run(self, *, once: bool) -> None:
        """Until `stop`; `once`: until everything is stored that was settled when it was looked at."""
        while not self._stopping.is_set():
            try:
                await self._follow(once)
            except trouble(ObjectsUnavailable) as error:
                await self._wait_out(error, once)
            except ObjectsRefused as error:
                raise UserError("destination_refused", error.message, error.remedy) from error
            else:
                return

    async def _wait_out(self, error: BaseException, once: bool) -> None:
        of = "destination" if isinstance(error, ObjectsUnavailable) else "database"
        self._failures += 1
        if once and self._failures >= ONCE_TRIES:
            raise UserError(
                f"{of}_away",
                f"the {of} does not answer: {str(error)[:300]}",
                "start this again when it does: it goes on where it was",
            ) from error
        wait_s = min(2.0 ** (self._failures - 1), WAIT_S_MAX) * (1 + self._jitter() / 2)
        log.warning("follow_waits", trouble_of=of, reason=str(error)[:300], wait_s=round(wait_s, 1))
        await self._pause(wait_s)

    async def _follow(self, once: bool) -> None:
        position = await self._destination.open()
        await self._refuse_another_database(position)
        if position.last is not None and not position.is_whole:
            await self._repeat(position.last)
        self._seen_seq = self.followed.last_seq = position.last_seq
        while not self._stopping.is_set():
            await self._catch_up()
            self._failures = 0
            if once:
                return
            await self._pause(self._every_s)

    async def _refuse_another_database(self, position: Position) -> None:
        if position.last is None:
            return
        last = position.last
        there = await self._source.settled_at(last.last_seq)
        if there != (last.last_task_id, last.last_attempt):
            raise UserError(
                "database_differs",
                f"{self._destination.display} ends with result {last.last_seq}, of task {last.last_task_id}; "
                f"in the database that is {'none' if there is None else 'of task ' + there[0]}",
                ANOTHER_DATABASE,
            )

    async def _repeat(self, manifest: Manifest) -> None:
        """Store the files of a manifest that somebody has announced and not completed."""
        started_s = time.monotonic()
        with own_disk(), PartFiles() as parts:
            seq = manifest.first_seq - 1
            while seq < manifest.last_seq:
                page = await self._page(seq, through=manifest.last_seq)
                for row in page.rows:
                    parts.add(row)
                seq = page.through_seq
            parts.finish()
            if [part for part, _ in parts.named(manifest.first_seq, manifest.last_seq)] != manifest.parts:
                raise UserError(
                    "database_differs",
                    f"the database does not have the results {manifest.first_seq} to {manifest.last_seq} as "
                    f"{manifest.path} in {self._destination.display} lists them",
                    ANOTHER_DATABASE,
                )
            await self._store(manifest, parts, started_s)

    async def _catch_up(self) -> None:
        """Store everything that is settled by now."""
        is_last = False
        while not is_last and not self._stopping.is_set():
            started_s = time.monotonic()
            with own_disk(), PartFiles() as parts:
                is_last = await self._fill(parts)
                if parts.last is not None:
                    await self._announce_and_store(parts, parts.last, started_s)

    async def _fill(self, parts: PartFiles) -> bool:
        """Read until a range is full or all is read; whether all is."""
        while not self._stopping.is_set():
            page = await self._page(self._seen_seq)
            for row in page.rows:
                parts.add(row)
                self._seen_seq = row["seq"]
                if parts.is_full:
                    return False
            self._seen_seq = page.through_seq
            if page.is_last:
                return True
        return False

    async def _announce_and_store(self, parts: PartFiles, last: Row, started_s: float) -> None:
        first_seq, last_seq = self.followed.last_seq + 1, last["seq"]
        parts.finish()
        manifest = await self._destination.announce(
            first_seq,
            last_seq,
            last["task_id"],
            last["attempt"],
            [part for part, _ in parts.named(first_seq, last_seq)],
        )
        await self._store(manifest, parts, started_s)

    async def _store(self, manifest: Manifest, parts: PartFiles, started_s: float) -> None:
        for part, file in parts.named(manifest.first_seq, manifest.last_seq):
            await self._destination.put(part.path, file)
        await self._destination.complete(manifest)
        self.followed.rows += manifest.rows
        self.followed.parts += len(manifest.parts)
        self.followed.last_seq = manifest.last_seq
        log.info(
            "results_exported",
            rows=manifest.rows,
            parts=len(manifest.parts),
            last_seq=manifest.last_seq,
            took_s=round(time.monotonic() - started_s, 2),
        )

    async def _page(self, seq: int, through: int | None = None) -> SettledPage:
        return await self._source.settled_after(
            seq, through=through, run_id=self._selection.run_id, accounts=self._selection.accounts
        )

    async def _pause(self, wait_s: float) -> None:
        await set_within(self._stopping, wait_s)
