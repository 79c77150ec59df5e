"""Small disks that can be filled. Root only."""

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


def mount_disk(folder: Path, size: str, mode: str = "0755") -> None:
    """A disk of its own at this folder, which is made where it is not there."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"size={size},mode={mode}"
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], check=True, capture_output=True)


def unmount_disk(folder: Path) -> None:
    """With all that is on it, whoever still has a file of it open."""
    subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


@contextmanager
def small_disk(folder: Path, size: str, mode: str = "0755") -> Iterator[Path]:
    """For the length of the `with`."""
    mount_disk(folder, size, mode)
    try:
        yield folder
    finally:
        unmount_disk(folder)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Not a byte is left on it."""
    filler = disk / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4_096))
    try:
        yield
    finally:
        filler.unlink()
