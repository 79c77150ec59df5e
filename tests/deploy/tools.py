"""Tools that validate or run what lies in deploy/: found, or the test is skipped with what to do."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
SBIN = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"


def python_tool(name: str) -> str:
    """The command of a package of the extra `deploy`."""
    path = Path(sys.executable).parent / name
    if not path.exists():
        pytest.skip(f"no {name} in this environment: `make test-deploy` installs it")
    return str(path)


def debian_tool(name: str, package: str = "") -> str:
    """A command of a Debian package, of the same name unless it is told."""
    path = shutil.which(name, path=SBIN)
    if path is None:
        pytest.skip(f"no {name} on this machine: `apt-get install {package or name}` to run this")
    return path


def needs_root() -> None:
    """Skip where this process may not do what only root may."""
    if os.geteuid() != 0:
        pytest.skip("this needs root: a namespace, a chroot or another user's process")


def run(*command: str | Path, **options: object) -> "subprocess.CompletedProcess[str]":
    """Run to the end, both outputs in one text."""
    settings: dict[str, object] = {"timeout": 300, **options}
    return subprocess.run(  # type: ignore[call-overload, no-any-return]
        [str(part) for part in command],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        **settings,
    )


def must(*command: str | Path, **options: object) -> str:
    """What a command prints; it must end with 0."""
    ended = run(*command, **options)
    assert ended.returncode == 0, f"{command}: {ended.returncode}\n{ended.stdout[-4000:]}"
    return ended.stdout
