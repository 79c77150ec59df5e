"""What a small command does not load: imports are most of what it costs, and they come back one by one."""

import json
import os
import re
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
    "alembic",
    "app.emulator",
    "app.provider.client",
    "app.store.read.certificates",
    "app.store.write.settlement",
    "arq",
    "asyncpg",
    "htpy",
    "jinja2",
    "multiprocessing",
    "obstore",
    "pyarrow",
    "redis",
    "rich.pretty",
    "rich.progress",
    "rich.traceback",
    "sqlalchemy.dialects.postgresql",
    "sqlalchemy.orm",
    "structlog",
}
SMALL = (
    "runs",
    "status",
    "notices",
    "schedule list",
    "inbox list",
    "report",
    "verify",
    "migrate",
    "dispute",
    "pause a",
    "resume a",
)
"""Of those that do not need the provider."""
LOGS_FROM_ITS_FIRST_SECOND = ("app/web/", "app/api/", "app/page/", "app/log.py", "app/logger.py", "workers/")
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
    told = loaded_by(tmp_path, "--version", "-h", "export --help", "schedule add -h", "emulator --help")
    assert [modules & HELP_NEEDS_NONE_OF for modules in told[:-1]] == [set()] * 4
    assert "app.config" not in told[-1]


def test_small_commands_load_no_client_of_anybody(tmp_path: Path) -> None:
    (tmp_path / "p.csv").write_text("prompt,task_type,country\nwhere,GEMINI,GB\n")
    loaded_by(tmp_path, "submit p.csv --name a")
    for line, loaded in zip(SMALL, loaded_by(tmp_path, *SMALL), strict=True):
        needed = {"redis"} if line == "resume a" else set()
        assert loaded & LOOKING_NEEDS_NONE_OF <= needed, line


def test_whoever_a_small_command_may_load_loads_structlog_late() -> None:
    """Its modules, and what they import, are a fifth of such a command; see app/logger.py."""
    top = Path(__file__).parents[2]
    files = [path for room in ("app", "workers") for path in (top / room).rglob("*.py")]
    eager = {
        path.relative_to(top).as_posix()
        for path in files
        if re.search("^(import|from) structlog", path.read_text(), re.MULTILINE)
    }
    assert {path for path in eager if not path.startswith(LOGS_FROM_ITS_FIRST_SECOND)} == set()


def test_logs_that_are_put_off_come_with_the_first_line(tmp_path: Path) -> None:
    program = (
        "import logging; from app import log; from app.logger import configure_late, get_logger; "
        "configure_late('warning', lambda: log.configure('json', 'warning')); "
        "logging.getLogger('arq').info('no'); {0}; logging.getLogger('arq').warning('sk_live_0123456789')"
    )
    for first in (
        "pass",
        "get_logger('a').info('no')",
        "get_logger('a').warning('first_line', text='secret')",
    ):
        ended = subprocess.run(
            [sys.executable, "-c", program.format(first)], capture_output=True, check=True, text=True
        )
        lines = [json.loads(line) for line in ended.stderr.splitlines()]
        assert [line["event"] for line in lines][-1] == "sk_..."
        assert len(lines) == (2 if "first_line" in first else 1)
        assert ended.stdout == ""
        assert "secret" not in ended.stderr


def test_whoever_asks_sqlalchemy_for_more_than_the_store_needs_gets_all_of_it() -> None:
    program = (
        "import sys; from app.store.database import AsyncEngine; assert 'sqlalchemy.orm' not in sys.modules; "
        "import sqlalchemy.ext; assert not hasattr(sqlalchemy.ext.asyncio, 'nothing_of_it'); "
        "from sqlalchemy.ext.asyncio import AsyncEngine as same, AsyncSession, async_sessionmaker; "
        "assert same is AsyncEngine and sqlalchemy.ext.asyncio.AsyncSession is AsyncSession"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
