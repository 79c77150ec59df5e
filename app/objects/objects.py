"""What a folder and a bucket have in common: whole objects under paths, and a put that only creates.

An object is there whole or not at all, and once a call returns it lasts. Paths are relative, with / between
their parts. Every method raises ObjectsUnavailable for what passes, and ObjectsRefused for what a person must
see to.
"""

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from app.address import ObjectsAddress


@dataclass(frozen=True, slots=True)
class ObjectEntry:
    """One object of a listing."""

    path: str
    size_bytes: int


class Objects(Protocol):
    """Where objects are kept. Close nothing: it holds no connection that has to be given back."""

    display: str
    """For people; holds no secret."""

    async def put(self, path: str, content: bytes | Path) -> None:
        """Store an object in the place of any other; a Path is a file to copy, of any size."""

    async def create(self, path: str, content: bytes) -> bool:
        """Store an object where none is; False: another one is there. One that is equal counts as stored by
        this call: an answer may have been lost. So contents of different writers must differ."""

    async def get(self, path: str) -> bytes | None:
        """The whole object; None: there is none."""

    async def get_range(self, path: str, start: int, length_bytes: int) -> bytes:
        """A piece of an object that is there and that long."""

    async def size_bytes(self, path: str) -> int | None:
        """How large an object is; None: there is none."""

    def list(self, folder: str = "", *, after: str = "") -> AsyncIterator[ObjectEntry]:
        """The objects below a folder, at any depth, in the order of their paths; of those behind `after`."""

    async def delete(self, path: str) -> None:
        """Afterwards there is no such object, whether or not there was one."""


def open_objects(address: ObjectsAddress, *, ca_file: str = "") -> Objects:
    """The storage of an address; a bucket is not asked for anything yet. `ca_file`: certificates (PEM) to
    trust besides the system's. Raises ObjectsRefused."""
    if address.kind == "file":
        from app.objects.folder import Folder

        return Folder(Path(address.prefix))
    from app.objects.bucket import Bucket

    return Bucket(address, ca_file=ca_file)
