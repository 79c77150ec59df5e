"""A tree like the image's base, made of what this machine can get: Debian's own by debootstrap, with a Python
of this machine's in /usr/local. Kept in the environment's folder, as its making takes minutes."""

import os
import shutil
import sys
from pathlib import Path

import pytest

from tests.deploy.tools import debian_tool, must, run

SUITE = "bookworm"
KEPT = Path(sys.prefix) / "base-tree"
PACKAGES = (
    "ca-certificates,netbase,tzdata,libssl3,libffi8,libsqlite3-0,zlib1g,libbz2-1.0,liblzma5,libreadline8"
    ",libuuid1"
)
MIRROR = os.environ.get("TALLYHOOK_TEST_DEBIAN")
"""None: the one that debootstrap itself goes by."""
CERTIFICATES = "/etc/ssl/certs/ca-certificates.crt"
LEFT_OUT = ("test", "tests", "idlelib", "tkinter", "turtledemo", "site-packages", "__pycache__", "*.a")


def base_tree() -> Path:
    """Its folder; skips the test where it cannot be made."""
    done = KEPT / "usr" / "local" / "bin" / "python"
    if not done.exists():
        debootstrap = debian_tool("debootstrap")
        shutil.rmtree(KEPT, ignore_errors=True)
        made = run(
            debootstrap, "--variant=minbase", f"--include={PACKAGES}", SUITE, KEPT, *filter(None, [MIRROR]),
            timeout=900,
        )  # fmt: skip
        if made.returncode != 0:
            pytest.skip(f"no tree of Debian could be made, as from a mirror: {made.stdout[-300:]}")
        _add_python(KEPT)
    # As on this machine: how names are found, and whom its registries' certificates are of.
    for name in ("/etc/resolv.conf", CERTIFICATES):
        shutil.copyfile(name, KEPT / name.lstrip("/"))
    return KEPT


def _add_python(tree: Path) -> None:
    """The newest of 3.11 to 3.13 that this machine has; the image's own is 3.12."""
    home, version = Path(sys.base_prefix), f"python3.{sys.version_info.minor}"
    for name in ("python3.12", "python3.13"):
        found = run(name, "-c", "import sys; print(sys.base_prefix)") if shutil.which(name) else None
        if found is not None and found.returncode == 0:
            home, version = Path(found.stdout.strip()), name
            break
    local = tree / "usr" / "local"
    for part in ("bin", "lib"):
        (local / part).mkdir(exist_ok=True)
    shutil.copytree(
        home / "lib" / version,
        local / "lib" / version,
        ignore=shutil.ignore_patterns(*LEFT_OUT),
        symlinks=True,
    )
    (local / "lib" / version / "site-packages").mkdir(exist_ok=True)
    for library in (home / "lib").glob("libpython3*.so*"):
        shutil.copy2(library, local / "lib", follow_symlinks=False)
    shutil.copy2(home / "bin" / version, local / "bin" / version)
    must("chroot", tree, "ldconfig")
    for alias in ("python3", "python"):
        (local / "bin" / alias).symlink_to(version)
