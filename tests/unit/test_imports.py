"""What a small command does not load: imports are most of what it costs, and they come back one by one."""

import json
import os
import subprocess
import sys
from pathlib import Path

HELP_NEEDS_NONE_OF = {
    "aiohttp",
    "alembic",
    "app.config",
    "app.emulator",
    "app.store",
    "arq",
    "asyncio",
    "msgspec",
    "multiprocessing",
    "pydantic",
    "redis",
    "sqlalchemy",
    "structlog",
}
LOOKING_NEEDS_NONE_OF = {
    "aiohttp",
    "app.emulator",
    "app.provider.client",
    "app.store.read.certificates",
    "app.store.write.settlement",
    "arq",
    "asyncpg",
    "jinja2",
    "multiprocessing",
    "obstore",
    "pyarrow",
    "redis",
    "rich.progress",
}
PROGRAM = """
import json, sys
from app.cli.main import run
told = [(run(line.split()), sorted(sys.modules)) for line in sys.argv[1:]]
print(json.dumps(told), file=sys.stderr)
"""


def loaded_by(tmp_path: Path, *lines: str) -> list[set[str]]:
    """What is loaded after each of these command lines, one after the other in one process."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, *lines],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "HOME": str(tmp_path)},
        capture_output=True,
        check=True,
    )
    told = json.loads(ended.stderr.splitlines()[-1])
    assert [code for code, _ in told] == [0] * len(lines)
    return [set(modules) for _, modules in told]


def test_help_and_version_load_nothing_of_the_work(tmp_path: Path) -> None:
    version, root, command = loaded_by(tmp_path, "--version", "-h", "export --help")
    assert (version | root) & HELP_NEEDS_NONE_OF == set()
    # Typer loads pydantic by itself as soon as a command has options.
    assert command & HELP_NEEDS_NONE_OF <= {"pydantic"}


def test_a_look_at_the_runs_loads_no_client_of_anybody(tmp_path: Path) -> None:
    (loaded,) = loaded_by(tmp_path, "runs")
    assert loaded & LOOKING_NEEDS_NONE_OF == set()
