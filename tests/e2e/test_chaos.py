"""The short form of `make chaos`."""

import random
from pathlib import Path

from tests.conftest import StartValkey
from tests.e2e.chaos import kill_until_finished
from tests.e2e.stack import running_stack

COUNT = 400
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
        kills = await kill_until_finished(
            stack, {"valkey": again}, every_s=1.0, rng=random.Random(SEED), for_s=20
        )
        assert sum(kills.values()) > 3, f"seed {SEED}: the run was over before anything was killed"
        await stack.until_finished()
        await stack.assert_books_equal(COUNT)
