"""A destination of results: which ranges it has, and how another one is added. Knows nothing of rows.

The protocol, with n the number of the last manifest:

1. `announce`: manifest n+1 is created, which only one process can do. From here on its range and its file
   names stand, and nobody writes other ones for these results.
2. `put`: its data files are stored under those names.
3. `complete`: `latest.json` says that n+1 is whole. Only then n+2 is announced.

A process that ends in between leaves manifest n+1 without the word that it is whole. Whoever opens the
destination next stores its files again, under the same names and with the same rows, so a file that is there
already is replaced by its equal. No file is ever deleted, and no result can be in two.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from app.cli.follow.manifest import (
    FOLDER,
    FORMAT,
    IDENTITY,
    LATEST,
    Identity,
    Manifest,
    Part,
    Selection,
    T,
    Unreadable,
    decode,
    encode,
    manifest_path,
)
from app.domain.time_format import iso_utc
from app.errors import USAGE, UserError
from app.objects import Objects
from app.ports import Clock


@dataclass(frozen=True, slots=True)
class Position:
    """How far a destination has come."""

    last: Manifest | None
    """The last manifest; None: nothing was exported yet."""
    is_whole: bool
    """Whether all its files are known to be stored."""

    @property
    def last_seq(self) -> int:
        return 0 if self.last is None else self.last.last_seq


class Destination:
    """One destination, as one process writes to it. Raises as Objects does, and UserError when somebody else
    writes to it too, or it is none of ours."""

    def __init__(self, objects: Objects, selection: Selection, *, clock: Clock) -> None:
        self._objects = objects
        self._selection = selection
        self._clock = clock
        self._writer = secrets.token_hex(8)
        self._known: int | None = None
        """Number of the last manifest that this process has seen; None: not opened yet."""
        self.display = objects.display

    async def open(self) -> Position:
        """Where to go on: at the start, and after any trouble, which leaves open what was stored."""
        await self._take()
        latest = await self._read_latest()
        last = latest
        after = manifest_path(latest.number) if latest is not None else ""
        async for entry in self._objects.list(FOLDER, after=after):
            if entry.path.startswith(f"{FOLDER}/manifest-"):
                last = await self._read_manifest(entry.path)
        self._known = 0 if last is None else last.number
        return Position(last, last == latest)

    async def announce(
        self, first_seq: int, last_seq: int, last_task_id: str, last_attempt: int, parts: Sequence[Part]
    ) -> Manifest:
        """The next manifest, from here on this process's to fulfil."""
        await self._refuse_emptied()
        manifest = Manifest(
            FORMAT,
            (self._known or 0) + 1,
            first_seq,
            last_seq,
            last_task_id,
            last_attempt,
            list(parts),
            self._writer,
            iso_utc(self._clock()),
        )
        if not await self._objects.create(manifest.path, encode(manifest)):
            raise self._overtaken(await self._read_manifest(manifest.path))
        self._known = manifest.number
        return manifest

    async def put(self, path: str, file: Path) -> None:
        """Store a data file of the announced manifest."""
        await self._objects.put(path, file)

    async def complete(self, manifest: Manifest) -> None:
        """All files of this manifest are stored."""
        await self._objects.put(LATEST, encode(manifest))

    async def _take(self) -> None:
        """Make sure that this destination is there for what is followed, and that its storage keeps two
        writers apart."""
        content = await self._objects.get(IDENTITY)
        if content is None:
            content = await self._found()
        identity = self._decoded(content, Identity, IDENTITY)
        if identity.selection != self._selection:
            raise UserError(
                "destination_differs",
                f"{self.display} holds {_words(identity.selection)}, not {_words(self._selection)}",
                "follow into another destination, or give the same RUN and --account as before",
                exit_code=USAGE,
            )
        if self._known is None and await self._objects.create(IDENTITY, content + b"\n"):
            await self._objects.put(IDENTITY, content)
            raise UserError(
                "destination_unsafe",
                f"{self.display} replaces an object that is only to be created, so two writers could not be "
                "kept apart",
                "choose a storage that knows conditional puts (If-None-Match), as S3, Google and Azure do",
            )

    async def _refuse_emptied(self) -> None:
        """A folder that somebody deletes under a follower would be made anew, and have the newest results
        only."""
        if await self._objects.get(IDENTITY) is None:
            raise UserError(
                "destination_emptied",
                f"{self.display} has lost its {FOLDER} while it was followed into: it was deleted, or is not "
                "mounted any more",
                "bring it back, or start this again: into an empty place all results go from the first on",
            )

    async def _found(self) -> bytes:
        """Say whose this destination is, if nobody has yet; what is said."""
        async for entry in self._objects.list():
            if (said := await self._objects.get(IDENTITY)) is not None:
                return said  # by a process that began at the same time
            raise UserError(
                "destination_not_empty",
                f"{self.display} is not empty and has no {IDENTITY}: {entry.path}",
                f"follow into an empty folder or prefix; one that lost its {FOLDER} cannot be gone on with",
                exit_code=USAGE,
            )
        created = iso_utc(self._clock())
        content = encode(Identity(FORMAT, secrets.token_hex(8), self._selection, created))
        if not await self._objects.create(IDENTITY, content):
            return await self._objects.get(IDENTITY) or content
        return content

    async def _read_latest(self) -> Manifest | None:
        content = await self._objects.get(LATEST)
        return None if content is None else self._decoded(content, Manifest, LATEST)

    async def _read_manifest(self, path: str) -> Manifest:
        return self._decoded(await self._objects.get(path) or b"", Manifest, path)

    def _decoded(self, content: bytes, kind: type[T], path: str) -> T:
        try:
            return decode(content, kind)
        except Unreadable as error:
            raise UserError(
                "destination_unreadable",
                f"{path} in {self.display} cannot be read: {error}",
                "it was changed by somebody, or written by a later version: follow into another destination",
            ) from error

    def _overtaken(self, by: Manifest) -> UserError:
        return UserError(
            "destination_taken",
            f"another process exports to {self.display}: at {by.written_at} it took up "
            f"results {by.first_seq} to {by.last_seq}",
            "let one of the two run: nothing is lost or doubled; start this again when the other one is gone",
        )


def _words(selection: Selection) -> str:
    what = "results of all runs" if selection.run_id is None else f"results of the run {selection.run_id}"
    return f"{what} of the accounts {', '.join(selection.accounts)}" if selection.accounts else what
