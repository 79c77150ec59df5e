"""Objects as files of a folder. Not by obstore: its LocalStore keeps half-written files among the others,
where readers of a folder find them, and does not wait until the disk has them.
"""

import asyncio
import contextlib
import errno
import os
import secrets
import shutil
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import ParamSpec, TypeVar

from app.objects.objects import ObjectEntry
from app.ports import ObjectsRefused, ObjectsUnavailable

P = ParamSpec("P")
R = TypeVar("R")

STAGING = "_staging"
"""Files that are not whole yet. Readers of folders leave out what begins with an underscore."""
STAGED_AGE_MAX_S = 24 * 3_600
"""Older ones are of a writer that was killed: none takes a day for one file."""
_ROOM = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EBUSY, errno.EAGAIN}
)
"""What passes, or is mended without us: a full disk, a network's file system that is away."""


class Folder:
    """Objects below a folder of this machine, which is made with the first of them."""

    def __init__(self, root: Path) -> None:
        self.display = str(root)
        self._root = root

    async def put(self, path: str, content: bytes | Path) -> None:
        try:
            await self._in_thread(self._write, path, content, os.replace)
        except FileNotFoundError as error:
            raise self._removed(error) from error

    async def create(self, path: str, content: bytes) -> bool:
        try:
            # A link is made only where no name is yet, and shows the file whole.
            await self._in_thread(self._write, path, content, os.link)
        except FileExistsError:
            return await self.get(path) == content
        except FileNotFoundError as error:
            raise self._removed(error) from error
        return True

    async def get(self, path: str) -> bytes | None:
        try:
            return await self._in_thread(self._place(path).read_bytes)
        except FileNotFoundError:
            return None

    async def get_range(self, path: str, start: int, length_bytes: int) -> bytes:
        return await self._in_thread(self._read, path, start, length_bytes)

    async def size_bytes(self, path: str) -> int | None:
        try:
            return (await self._in_thread(self._place(path).stat)).st_size
        except FileNotFoundError:
            return None

    async def list(self, folder: str = "", *, after: str = "") -> AsyncIterator[ObjectEntry]:
        for entry in await self._in_thread(lambda: sorted(self._below(folder), key=lambda e: e.path)):
            if entry.path > after:
                yield entry

    async def delete(self, path: str) -> None:
        await self._in_thread(self._place(path).unlink, missing_ok=True)

    def _removed(self, error: FileNotFoundError) -> ObjectsUnavailable:
        return ObjectsUnavailable(f"{self.display}: {error.filename} was removed meanwhile")

    async def _in_thread(self, work: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        try:
            return await asyncio.to_thread(work, *args, **kwargs)
        except (FileExistsError, FileNotFoundError):
            raise
        except OSError as error:
            if error.errno in _ROOM:
                raise ObjectsUnavailable(f"{self.display}: {error.strerror}") from error
            raise ObjectsRefused(
                f"cannot use the folder {self.display}: {error.strerror}",
                "name a folder that this user may read and write",
            ) from error

    def _place(self, path: str) -> Path:
        parts = path.split("/")
        if any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a path of an object: {path!r}")
        return self._root.joinpath(*parts)

    def _write(self, path: str, content: bytes | Path, publish: Callable[[Path, Path], None]) -> None:
        staging = self._make_folder(self._root / STAGING)
        _remove_old(staging)
        place = self._place(path)
        self._make_folder(place.parent)
        staged = staging / f"{os.getpid()}-{secrets.token_hex(8)}"
        try:
            with staged.open("xb") as output:
                if isinstance(content, Path):
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, output, 1 << 20)
                else:
                    output.write(content)
                output.flush()
                os.fsync(output.fileno())
            publish(staged, place)
        finally:
            staged.unlink(missing_ok=True)
        _sync_folder(place.parent)

    def _make_folder(self, folder: Path) -> Path:
        """With those above it, each of them to last."""
        if not folder.is_dir():
            if folder != folder.parent:
                self._make_folder(folder.parent)
            try:
                folder.mkdir(exist_ok=True)
            except FileExistsError:
                raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder)) from None
            _sync_folder(folder.parent)
        return folder

    def _read(self, path: str, start: int, length_bytes: int) -> bytes:
        with self._place(path).open("rb") as source:
            source.seek(start)
            return source.read(length_bytes)

    def _below(self, folder: str) -> Iterator[ObjectEntry]:
        top = self._place(folder) if folder else self._root
        for where, folders, names in os.walk(top):
            if Path(where) == self._root:
                folders[:] = [name for name in folders if name != STAGING]
            for name in names:
                file = Path(where, name)
                with contextlib.suppress(FileNotFoundError):  # deleted since
                    yield ObjectEntry(file.relative_to(self._root).as_posix(), file.stat().st_size)


def _remove_old(staging: Path) -> None:
    for staged in staging.iterdir():
        with contextlib.suppress(FileNotFoundError):
            if staged.stat().st_mtime < time.time() - STAGED_AGE_MAX_S:
                staged.unlink()


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
