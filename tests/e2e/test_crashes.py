"""Processes are killed, stopped and flushed in the middle of a run: every task ends settled once, and our
ledger equals the emulator's own books."""

from pathlib import Path

import pytest

from tests.conftest import StartValkey
from tests.e2e.stack import KILL, running_stack

COUNT = 240
# 60 s of the provider pass in one; a slow trickle, so that a crash finds work at every stage.
EMULATOR = (
    "--time-scale",
    "60",
    "--concurrency",
    "80",
    "--shuffle",
    "0.5",
    "--fail",
    "0.03",
    "--duplicate",
    "0.02",
    "--lose-response",
    "0.02",
    "--wrong-charge",
    "0.01",
)
# Not where the worker is killed: an accepted task whose answer died with the worker and whose delivery never
# comes cannot be asked for (S4); it stays open until the provider's retention is over.
DROPS = ("--drop", "0.02")


# In make test, test_chaos.py kills workers.
@pytest.mark.slow
async def test_worker_killed_in_the_middle(tmp_path: Path, store_url: str, start_valkey: StartValkey) -> None:
    """W1, S1, S2: kill -9 while it is sending, and twice while it is settling."""
    async with running_stack(tmp_path, store_url, start_valkey().url, *EMULATOR) as stack:
        await stack.submit(COUNT)

        async def sending() -> bool:
            return (await stack.store.queries.progress(stack.run_id)).states.get("submitted", 0) > 20

        await stack.until(sending, "some submitted tasks")
        for settled in (0, 50, 120):
            await stack.until_settled(settled)
            assert stack.end("worker", KILL) == -9
            stack.start("worker")
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)


async def test_valkey_stopped_and_flushed_in_the_middle(
    tmp_path: Path, store_url: str, start_valkey: StartValkey
) -> None:
    """W3, R18: receiving, submitting and settling go on without Redis, and after it forgot everything."""
    valkey = start_valkey()
    async with running_stack(tmp_path, store_url, valkey.url, *EMULATOR, *DROPS) as stack:
        await stack.submit(COUNT)
        await stack.until_settled(20)
        valkey.stop()
        await stack.until_settled(80)  # by the sweep alone
        valkey.start()
        valkey.flush()
        await stack.until_settled(140)
        valkey.flush()
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)


async def test_valkey_hung_in_the_middle(tmp_path: Path, sqlite_url: str, start_valkey: StartValkey) -> None:
    """R19, A12: a Redis that accepts and never answers holds nobody up."""
    valkey = start_valkey()
    async with running_stack(tmp_path, sqlite_url, valkey.url, *EMULATOR, *DROPS) as stack:
        await stack.submit(COUNT)
        await stack.until_settled(20)
        valkey.pause()
        try:
            await stack.until_settled(90)
        finally:
            valkey.resume()
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)


# In make test, test_chaos.py kills web.
@pytest.mark.slow
async def test_web_stopped_for_a_while(tmp_path: Path, store_url: str, start_valkey: StartValkey) -> None:
    """R16, R17: what the provider could not deliver comes by its own retries, or by the sweep's polls."""
    async with running_stack(tmp_path, store_url, start_valkey().url, *EMULATOR, *DROPS) as stack:
        await stack.submit(COUNT)
        await stack.until_settled(40)
        assert stack.end("web") == 0, stack.logs()

        async def refused() -> bool:
            totals = stack.books(tasks=False)["totals"]
            return bool(totals["deliveries_sent"] - totals["deliveries_acked"] > 30)

        await stack.until(refused, "30 deliveries refused")
        stack.start("web")
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)


# In the short form killing at random is test_chaos's.
# In make test, test_ending.py ends each process in order, and test_chaos.py kills them.
@pytest.mark.slow
@pytest.mark.parametrize("how", ["SIGTERM", "SIGKILL"])
async def test_every_process_restarted(
    tmp_path: Path, sqlite_url: str, start_valkey: StartValkey, how: str
) -> None:
    """R13, R14, R24, A9: web and worker end and come back over and over."""
    async with running_stack(tmp_path, sqlite_url, start_valkey().url, *EMULATOR) as stack:
        await stack.submit(COUNT)
        for starts, settled in enumerate((20, 70, 120), 1):
            await stack.until_settled(settled)
            if how == "SIGTERM":
                await stack.until_workers_started(starts)
            for name in ("web", "worker"):
                code = stack.end(name, KILL) if how == "SIGKILL" else stack.end(name)
                assert code == (-9 if how == "SIGKILL" else 0), stack.logs()
                stack.start(name)
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)
