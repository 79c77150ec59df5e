"""What the demo runs: its directory, its settings, its processes and their environment."""

import asyncio
import contextlib
import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import aiohttp

from app.config import Settings, load_settings
from app.errors import USAGE, UserError
from app.local.processes import Process, Processes, own_command, plain_environment
from app.views.runs import Document

EMULATOR_OPTIONS = (
    # The newest edition, as our price list is, with the engine that it has switched off.
    "--edition",
    "2026",
    "--grok",
    "--plan",
    "enterprise-5k",
    # 30 to 60 s of an engine become 0.3 to 0.6 s; 255 slots then finish some 500 tasks a second.
    "--time-scale",
    "100",
    "--fail",
    "0.03",
    "--duplicate",
    "0.01",
    "--drop",
    "0.02",
    "--shuffle",
    "0.5",
    "--wrong-charge",
    "0.005",
    "--lose-response",
    "0.01",
)
START_TIMEOUT_S = 30.0
OURS_BARE = frozenset(
    (
        *("DATABASE_URL", "DATABASE_DIRECT_URL", "DATABASE_READ_URL", "REDIS_URL"),
        *("PORT", "PUBLIC_URL", "HTTP_PROXY", "HTTPS_PROXY"),
    )
)


class Emulator:
    """The books of a running emulator."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self._http = http
        self.url = url

    async def books(self, *, tasks: bool = True) -> Document:
        async with self._http.get(
            f"{self.url}/_emulator/books", params={} if tasks else {"tasks": "0"}
        ) as response:
            response.raise_for_status()
            return dict(await response.json())

    async def is_quiet(self) -> bool:
        """It has nothing to do and nothing to deliver."""
        books = await self.books(tasks=False)
        return bool(books["active_tasks"] == 0 and books["pending_deliveries"] == 0)


def settings_of(directory: Path) -> Settings:
    """The demo's own settings, whatever the environment and .env say."""
    blank = dict.fromkeys((*OURS_BARE, "CLORO_API_KEY"), "") | {"PORT": "0"}
    return load_settings(
        _env_file=None,
        **blank,
        CLORO_WEBHOOK_SECRET="",
        CLORO_BASE_URL="",
        host="127.0.0.1",
        data_dir=directory.absolute() / "data",
    )


def environment(settings: Settings | None = None, **more: str) -> dict[str, str]:
    """The environment of a process: what any program needs, and the demo's own settings."""
    kept = plain_environment()
    if settings is None:
        return kept
    return kept | {
        "REDIS_URL": settings.redis_url,
        "PORT": "0",
        "TALLYHOOK_DATA_DIR": str(settings.data_dir),
        "TALLYHOOK_LOG_FORMAT": "json",
        **more,
    }


def emulator_command(seed: int) -> list[str]:
    """The emulator, misbehaving as the demo wants it."""
    return own_command(
        "app.cli.main", "emulator", "--port", "0", "--json", "--seed", str(seed), *EMULATOR_OPTIONS
    )


async def ready(process: Process) -> Document:
    """The line that a process prints when it listens. Raises UserError."""
    until = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < until and process.running:
        for line in process.log.read_text(errors="replace").splitlines(keepends=True):
            if line.endswith("\n") and line.startswith('{"event":') and '"ready"' in line:
                return dict(json.loads(line))
        await asyncio.sleep(0.02)
    raise UserError("demo_failed", f"{process.name} does not start", details=[process.log_tail()])


def failed(problem: str, processes: Processes) -> UserError:
    """The demo could not be run to its end; with the end of every log."""
    tails = [f"--- {process.name}\n{process.log_tail()}" for process in processes.started]
    return UserError("demo_failed", problem, details=tails)


@contextlib.contextmanager
def directory_for(keep: Path | None) -> Iterator[Path]:
    """A directory of the demo's own, removed at the end unless it is to be kept."""
    if keep is not None:
        if keep.exists() and (not keep.is_dir() or any(keep.iterdir())):
            raise UserError("not_empty", f"{keep} is not an empty directory", exit_code=USAGE)
        keep.mkdir(mode=0o700, parents=True, exist_ok=True)
        yield keep.absolute()
        return
    directory = Path(tempfile.mkdtemp(prefix="tallyhook-demo-"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)
