"""Trouble that is not a death: each begins, lasts for a while, and ends; every process goes on meanwhile.

What they have in common: nothing says so. Connections stay open, statuses look like answers, clocks lie.
"""

import asyncio
import fcntl
import os
import threading
from collections.abc import AsyncIterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path

import asyncpg  # type: ignore[import-untyped]
import sqlalchemy as sa

from app.provider.wire import read_answer
from app.store import Database, Store
from tests.e2e.chaos import Trouble
from tests.e2e.stack import Stack
from tests.servers.postgres import OTHERS_OFF, PostgresServer
from tests.servers.processes import ServerError
from tests.servers.proxy import Proxy
from tests.servers.valkey import ValkeyServer

PIPE_BYTES = 4096


@asynccontextmanager
async def gateway_pages(stack: Stack) -> AsyncIterator[None]:
    """Every call to the provider is answered by something in between: 404, 401, 403, 302, HTML, nothing."""
    await asyncio.to_thread(stack.change_faults, {"gateway": 1.0})
    try:
        yield
    finally:
        await asyncio.to_thread(stack.change_faults, {"gateway": 0.0})


@asynccontextmanager
async def demoted_database(admin_url: str, url: str) -> AsyncIterator[None]:
    """The database takes no writes, as a standby does; when it does again, the sessions of meanwhile still
    do not."""
    name = sa.make_url(url).database
    connection = await asyncpg.connect(admin_url, timeout=60)
    try:
        await connection.execute(f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
        await everybody_off(url)
        try:
            yield
        finally:
            await connection.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
    finally:
        await connection.close()


async def everybody_off(url: str) -> None:
    connection = await asyncpg.connect(url, timeout=60)
    try:
        await connection.execute(OTHERS_OFF)
    finally:
        await connection.close()


@asynccontextmanager
async def demoted_valkey(server: ValkeyServer) -> AsyncIterator[None]:
    """Valkey is a replica of nobody that answers: it refuses every write with READONLY."""
    with server.client() as client:
        client.replicaof("127.0.0.1", "1")
        try:
            yield
        finally:
            client.replicaof("NO", "ONE")


class LogPipe:
    """Takes a process's log through a pipe to a file; while `blocked`, nobody reads it and it fills up."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._flowing = threading.Event()
        self._flowing.set()
        self._read_end, self.write_end = os.pipe()
        fcntl.fcntl(self.write_end, fcntl.F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._copy, daemon=True)
        self._thread.start()

    @asynccontextmanager
    async def blocked(self) -> AsyncIterator[None]:
        """For the length of the `async with`."""
        self._flowing.clear()
        try:
            yield
        finally:
            self._flowing.set()

    def close(self) -> None:
        """Let go of our end for writing; the rest is copied when the last process has ended."""
        self._flowing.set()
        os.close(self.write_end)
        self._thread.join(timeout=60)

    def _copy(self) -> None:
        with self._path.open("ab", buffering=0) as log:
            while part := os.read(self._read_end, 65536):
                log.write(part)
                self._flowing.wait()
        os.close(self._read_end)


@asynccontextmanager
async def silent(proxy: Proxy) -> AsyncIterator[None]:
    """What is behind the proxy falls silent: connections stand and are accepted, nothing comes back."""
    proxy.silent = True
    try:
        yield
    finally:
        proxy.silent = False


def shifted_environment(offset_file: Path) -> dict[str, str]:
    """With this a Python process reads its clock by the offset that stands in the file, in seconds."""
    return {
        "PYTHONPATH": str(Path(__file__).with_name("shifted_clock")),
        "SHIFTED_CLOCK_FILE": str(offset_file),
    }


@asynccontextmanager
async def shifted(offset_file: Path, hours: float) -> AsyncIterator[None]:
    """The clock of the processes that read `offset_file` jumps, and jumps back."""
    await asyncio.to_thread(offset_file.write_text, str(hours * 3600))
    try:
        yield
    finally:
        await asyncio.to_thread(offset_file.write_text, "0")


@asynccontextmanager
async def troubled_stack(
    folder: Path,
    postgres: PostgresServer,
    url: str,
    valkey: ValkeyServer,
    *emulator_options: str,
    env: Mapping[str, str] | None = None,
) -> AsyncIterator[tuple[Stack, dict[str, Trouble]]]:
    """A running stack, and every trouble that it can be put to, by name."""
    address = sa.make_url(url)
    assert address.port is not None
    offset_file = folder / "clock_offset"
    await asyncio.to_thread(offset_file.write_text, "0")
    store = Store(Database(url), read_answer)
    with ExitStack() as stack_of:
        proxy = stack_of.enter_context(Proxy(address.port))
        behind = address.set(port=proxy.port).render_as_string(hide_password=False)
        stack = Stack(folder, store, behind, valkey.url)
        stack.is_forked = True
        pipe = LogPipe(folder / "piped.log")
        stack_of.callback(pipe.close)
        stack.log_to = {"web": pipe.write_end, "worker": pipe.write_end}
        stack.env_of = {"worker": shifted_environment(offset_file)}
        stack.env |= env or {}
        stack.emulator_options = list(emulator_options)
        try:
            stack.start("emulator", "web", "worker")
            yield (
                stack,
                {
                    "silent_database": lambda: silent(proxy),
                    "demoted_database": lambda: demoted_database(postgres.admin_url, url),
                    "demoted_valkey": lambda: demoted_valkey(valkey),
                    "blocked_log": pipe.blocked,
                    "clock_ahead": lambda: shifted(offset_file, 25),
                    "clock_behind": lambda: shifted(offset_file, -25),
                    "gateway_pages": lambda: gateway_pages(stack),
                },
            )
        except ServerError as error:
            raise AssertionError(stack.logs()) from error
        finally:
            stack.close()
            await store.close()
