"""The short form of `make chaos`."""

import random
from pathlib import Path

import pytest

from tests.conftest import StartValkey
from tests.e2e.chaos import disturb_until_finished
from tests.e2e.stack import running_stack
from tests.e2e.troubles import troubled_stack
from tests.servers.postgres import PostgresServer

COUNT = 300
SEED = 20_261_121


async def test_random_kills_lose_and_double_nothing(
    tmp_path: Path, postgres_url: str, start_valkey: StartValkey
) -> None:
    valkey = start_valkey()

    def again() -> None:
        valkey.kill()
        valkey.start()

    options = ("--time-scale", "60", "--concurrency", "60", "--fail", "0.02", "--lose-response", "0.01")
    async with running_stack(tmp_path, postgres_url, valkey.url, *options) as stack:
        stack.seed = SEED
        await stack.submit(COUNT)
        kills = await disturb_until_finished(
            stack, {"valkey": again}, {}, every_s=1.0, rng=random.Random(SEED), for_s=12
        )
        assert all(kills.values()), f"seed {SEED}: the run was over before all had their turn: {kills}"
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)


@pytest.mark.timeout(400)
async def test_trouble_that_kills_nobody_loses_and_doubles_nothing(
    tmp_path: Path, postgres: PostgresServer, postgres_url: str, start_valkey: StartValkey
) -> None:
    """The database silent, or without writes; Valkey without writes; a log pipe that nobody reads; a clock a
    day ahead, or behind; a gateway before the provider."""
    options = ("--time-scale", "60", "--concurrency", "60", "--fail", "0.02", "--lose-response", "0.01")
    env = {
        "TALLYHOOK_RATE_PER_S": "15",
        "TALLYHOOK_DATABASE_TIMEOUT_S": "1",
        "TALLYHOOK_DATABASE_CONNECT_TIMEOUT_S": "1",
    }
    async with troubled_stack(tmp_path, postgres, postgres_url, start_valkey(), *options, env=env) as (
        stack,
        troubles,
    ):
        stack.seed = SEED
        await stack.submit(COUNT)
        met = await disturb_until_finished(
            stack,
            {},
            troubles,
            kill_processes=False,
            every_s=0.5,
            trouble_s=2.0,
            rng=random.Random(SEED),
            for_s=17,
        )
        assert all(met.values()), f"seed {SEED}: the run was over before all had their turn: {met}"
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)
        stack.assert_certified()
