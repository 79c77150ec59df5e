"""What every process needs runs out, or goes away and comes back elsewhere, in the middle of a run: nothing
is lost or bought twice, somebody is told what to do, and all goes on by itself."""

import asyncio
import json
import os
import shutil
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import redis

from tests.conftest import StartValkey, _migrate
from tests.e2e.stack import Stack, running_stack
from tests.e2e.troubles import everybody_off
from tests.servers.disks import filled, small_disk
from tests.servers.postgres import PostgresServer, run_apart
from tests.servers.valkey import ValkeyServer

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(400),
    pytest.mark.skipif(os.geteuid() != 0, reason="disks of their own need root"),
]
COUNT = 400
# A slow trickle: some 15 s, so that whatever runs out finds work at every stage.
EMULATOR = ("--time-scale", "60", "--concurrency", "25", "--shuffle", "0.5", "--fail", "0.03")


def reasons(stack: Stack) -> str:
    """Why `web` is not ready; empty when it is."""
    try:
        with urllib.request.urlopen(f"{stack.web_url}/readyz", timeout=20):
            return ""
    except urllib.error.HTTPError as answer:
        assert answer.code == 503
        return answer.read().decode()


def check_of(stack: Stack, name: str) -> dict[str, str]:
    """The worst that the doctor says of something."""
    checks = json.loads(stack.tallyhook("doctor", "--json").stdout)["checks"]
    order = ["fault", "warning", "ok", "skipped"]
    found: dict[str, str] = min(
        (check for check in checks if check["name"] == name), key=lambda check: order.index(check["state"])
    )
    return found


def said(stack: Stack, name: str) -> dict[str, int]:
    """Warnings and errors of a process's log, with how often each came. Each line is one event."""
    events: dict[str, int] = {}
    for line in (stack.folder / f"{name}.log").read_text().splitlines():
        if line.startswith("Listening on"):
            continue
        entry = json.loads(line)
        if entry["level"] != "info":
            assert entry["event"].replace("_", "a").isalnum(), f"no id of an event: {line[:500]}"
            events[entry["event"]] = events.get(entry["event"], 0) + 1
    return events


async def until_refused(stack: Stack, at_least: int = 10) -> None:
    """Wait until the provider had no 2xx for some deliveries."""

    def open_ones() -> int:
        totals = stack.books(tasks=False)["totals"]
        return int(totals["deliveries_sent"] - totals["deliveries_acked"])

    before = open_ones()

    async def refused() -> bool:
        return await asyncio.to_thread(open_ones) >= before + at_least

    await stack.until(refused, "deliveries that are refused")


async def until_not_ready(stack: Stack, why: str) -> None:
    async def told() -> bool:
        return why in await asyncio.to_thread(reasons, stack)

    await stack.until(told, f"not ready: {why}")


@contextmanager
def sqlite_on_a_small_disk(disk: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """A file on it."""
    url = f"sqlite:///{disk}/tallyhook.db"
    run_apart(_migrate(url))
    yield url, lambda: None


@contextmanager
def tablespace_on_a_small_disk(disk: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """PostgreSQL writes its log elsewhere, and refuses."""
    server = PostgresServer(settings={"synchronous_commit": "on"})
    server.start()
    try:
        shutil.chown(disk, "nobody")
        server.execute(f"CREATE TABLESPACE small LOCATION '{disk}'")
        server.execute("ALTER DATABASE template1 SET TABLESPACE small")
        url = server.create_database("template1")
        run_apart(_migrate(url))
        yield url, lambda: None
    finally:
        server.stop()


@contextmanager
def all_on_a_small_disk(disk: Path) -> Iterator[tuple[str, Callable[[], None]]]:
    """PostgreSQL cannot write its log: it ends, and somebody starts it again."""
    server = PostgresServer(settings={"synchronous_commit": "on", "max_wal_size": "48MB"}, folder=disk.parent)
    server.start()
    try:
        url = server.create_database()
        run_apart(_migrate(url))

        def restarted() -> None:
            server.kill()
            server.recover()

        yield url, restarted
    finally:
        server.stop()


@contextmanager
def open_folder() -> Iterator[Path]:
    """PostgreSQL runs as nobody, who may not look into the tests' own."""
    with TemporaryDirectory(prefix="tallyhook-disk-") as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


@pytest.mark.parametrize(
    "database", [sqlite_on_a_small_disk, tablespace_on_a_small_disk, all_on_a_small_disk]
)
async def test_w7_the_database_s_disk_is_full(
    database: Callable[[Path], AbstractContextManager[tuple[str, Callable[[], None]]]],
    tmp_path: Path,
    start_valkey: StartValkey,
) -> None:
    with ExitStack() as parts:
        top = parts.enter_context(open_folder())
        disk = parts.enter_context(small_disk(top / "data", "200m", "0700"))
        url, cured = parts.enter_context(database(disk))
        async with running_stack(tmp_path, url, start_valkey().url, *EMULATOR) as stack:
            await stack.submit(COUNT)
            await stack.until_settled(40)
            with filled(disk):
                await until_refused(stack)
                await until_not_ready(stack, "its disk is full")
                check = await asyncio.to_thread(check_of, stack, "database")
                assert check["state"] == "fault"
                assert "its disk is full" in check["detail"]
                assert "make room on the disk" in check["remedy"]
            cured()
            await stack.until_finished()
            await stack.assert_books_equal(COUNT)
            stack.assert_certified()
            assert said(stack, "web").keys() <= {"deliveries_not_committed", "delivery_refused"}
            assert said(stack, "worker").keys() <= {"store_unavailable", "job_retried"}


async def test_r18_redis_s_memory_is_full(tmp_path: Path, sqlite_url: str, start_valkey: StartValkey) -> None:
    """It refuses every job and every turn of the shared rate; the database alone carries the run."""
    valkey = start_valkey(appendonly=False, maxmemory="8mb")
    async with running_stack(tmp_path, sqlite_url, valkey.url, *EMULATOR) as stack:
        await stack.submit(COUNT)
        await stack.until_settled(40)
        with no_memory_left(valkey):
            await stack.until_settled(200)
            check = await asyncio.to_thread(check_of, stack, "redis")
            assert check["state"] in ("fault", "warning")
            assert "raise maxmemory" in check["remedy"]
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)
        stack.assert_certified()
        assert said(stack, "web").keys() <= {"wake_failed", "wakes_not_taken"}
        assert said(stack, "worker").keys() <= {"wake_failed", "queue_lost"}


@contextmanager
def no_memory_left(valkey: ValkeyServer) -> Iterator[None]:
    """Something else in it takes all that it may use, and what becomes free."""
    done = threading.Event()

    def fill() -> None:
        with valkey.client() as client:
            while not done.is_set():
                for size in (2**16, 2**10, 2**4):
                    with suppress(redis.exceptions.OutOfMemoryError):
                        while True:
                            client.rpush("filler", bytes(size))
                done.wait(0.01)
            client.delete("filler")

    thread = threading.Thread(target=fill)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


@pytest.mark.parametrize("name", ["web", "worker"])
async def test_few_descriptors(
    tmp_path: Path, store_url: str, start_valkey: StartValkey, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Begun with `ulimit -n 64`, while strangers hold all connections that `web` may have."""
    url = start_valkey().url
    async with running_stack(tmp_path, store_url, url, *EMULATOR, is_forked=False) as stack:
        command = stack.command

        def limited(of: str) -> list[str]:
            return [*(["prlimit", "--nofile=64:64"] if of == name else []), *command(of)]

        monkeypatch.setattr(stack, "command", limited)
        stack.end(name)
        stack.start(name)
        await stack.submit(COUNT)
        await stack.until_settled(40)
        port = int(stack.web_url.rpartition(":")[2])
        with ExitStack() as strangers:
            for _ in range(100):
                strangers.enter_context(socket.create_connection(("127.0.0.1", port), timeout=20))
            await stack.until_finished()
        await stack.assert_books_equal(COUNT)
        stack.assert_certified()
        assert said(stack, name)["descriptors_short"] == 1


async def test_f16_the_database_s_name_leads_elsewhere(
    tmp_path: Path, start_valkey: StartValkey, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is unknown for a while, and then is that of another address; what stands is cut off."""
    server = PostgresServer(settings={"synchronous_commit": "on", "listen_addresses": "127.0.0.1,127.0.0.2"})
    server.start()
    try:
        server.execute("COPY (SELECT 'host all all 127.0.0.2/32 trust') TO PROGRAM 'cat >> pg_hba.conf'")
        server.execute("SELECT pg_reload_conf()")
        url = server.create_database()
        run_apart(_migrate(url))
        hosts = tmp_path / "hosts"
        hosts.write_text("127.0.0.1 localhost database.test\n")
        named = url.replace("127.0.0.1", "database.test")
        async with running_stack(tmp_path, url, start_valkey().url, *EMULATOR, is_forked=False) as stack:
            command = stack.command

            def with_names(of: str) -> list[str]:
                mounted = f'mount --bind {hosts} /etc/hosts && exec "$@"'
                return ["unshare", "--mount", "sh", "-c", mounted, "sh", *command(of)]

            monkeypatch.setattr(stack, "command", with_names)
            stack.env["DATABASE_URL"] = named
            for name in ("web", "worker"):
                stack.end(name)
                stack.start(name)
            await stack.submit(COUNT)
            await stack.until_settled(40)
            hosts.write_text("127.0.0.1 localhost\n")
            run_apart(everybody_off(url))
            await until_refused(stack)
            hosts.write_text("127.0.0.1 localhost\n127.0.0.2 database.test\n")
            await stack.until_finished()
            stack.env["DATABASE_URL"] = url
            await stack.assert_books_equal(COUNT)
            stack.assert_certified()
            assert said(stack, "web").keys() <= {"deliveries_not_committed", "delivery_refused"}
            assert said(stack, "worker").keys() <= {"store_unavailable", "job_retried"}
    finally:
        server.stop()
