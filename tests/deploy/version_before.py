"""An earlier version of this repository as a command, in an environment with the packages of this one."""

import re
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from tests.deploy.tools import ROOT, debian_tool, must, run

MIGRATIONS = "app/store/migrations/versions"


def commit_before(migration: str) -> str:
    """The last commit without a migration, by its number, or the newest. Skips where there is no history."""
    git = debian_tool("git")
    found = run(
        git, "log", "--diff-filter=A", "--format=%H", "-1", "--", f"{MIGRATIONS}/{migration}*.py", cwd=ROOT
    )
    commit = found.stdout.strip()
    before = run(git, "rev-parse", "--verify", f"{commit}^{{commit}}^", cwd=ROOT) if commit else found
    if before.returncode != 0 or not commit:
        pytest.skip("no version before: this checkout has no history, as an archive or a shallow clone")
    return before.stdout.strip()


def installed(commit: str, folder: Path) -> list[str]:
    """How its command is started, beside arguments."""
    tree, environment = folder / "tree", folder / "environment"
    tree.mkdir(parents=True)
    with subprocess.Popen(["git", "archive", commit], cwd=ROOT, stdout=subprocess.PIPE) as archive:
        must("tar", "-x", "-C", tree, stdin=archive.stdout)
    must(sys.executable, "-m", "venv", "--without-pip", environment)
    python = environment / "bin" / "python"
    inside = must(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # The packages that are installed here, but not what their own .pth files name: the present version.
    (Path(inside) / "before.pth").write_text(
        f"{tree}\n{tree / 'deploy' / 'wheel'}\n{sysconfig.get_path('purelib')}\n"
    )
    script = re.search(r'^tallyhook = "([\w.]+):(\w+)"', (tree / "pyproject.toml").read_text(), re.MULTILINE)
    assert script is not None
    start = f"import sys; sys.argv[0] = 'tallyhook'; from {script[1]} import {script[2]} as run; run()"
    return [str(python), "-P", "-c", start]
