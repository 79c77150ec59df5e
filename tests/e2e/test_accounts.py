"""Two accounts in real processes: each with its own provider, key, address and secret; one set of books."""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.provider.wire import read_answer
from app.store import Database, Store
from tests.books import check_books, read_books
from tests.clock import SteppedClock
from tests.e2e.stack import Stack, running_emulator
from tests.integration.loading.reading import load, write_prompts

EU_KEY = "sk_live_" + "fedcba9876543210" * 2
EU_SECRET = "whsec_test_of_the_other_account_00000000"
PROMPTS = 30


@pytest.fixture
def eu_url(tmp_path: Path) -> Iterator[str]:
    """The other account's provider."""
    with running_emulator(tmp_path / "eu.log", "--key", EU_KEY, "--webhook-secret", EU_SECRET) as url:
        yield url


async def test_each_account_is_sent_received_and_settled_by_itself(
    store_url: str, valkey_url: str, tmp_path: Path, eu_url: str, clock: SteppedClock
) -> None:
    store = Store(Database(store_url), read_answer)
    stack = Stack(tmp_path, store, store_url, valkey_url)
    stack.is_forked = True
    stack.emulator_options = ["--time-scale", "2000"]
    account = {"api_key": EU_KEY, "webhook_secret": EU_SECRET, "base_url": eu_url}
    stack.env["TALLYHOOK_ACCOUNTS"] = json.dumps({"eu": account})
    stack.env["TALLYHOOK_POLL_AFTER_S"] = "600"
    path = write_prompts(tmp_path / "p.csv", [f"question {n}" for n in range(PROMPTS)])
    try:
        stack.start("emulator", "web", "worker")
        ids = [(await load(store, path, clock, account=name)).run_id for name in ("default", "eu")]

        async def settled() -> bool:
            return not sum([(await store.queries.progress(run_id)).open for run_id in ids])

        async def taken() -> bool:
            # What is late on a busy machine is polled for besides; its delivery must be taken all the same.
            rows = (await read_books(store)).deliveries
            whose = {(row["task_id"], row["account"]) for row in rows if row["source"] == "delivery"}
            return Counter(account for _, account in whose) == {"default": PROMPTS, "eu": PROMPTS}

        await stack.until(settled, "both runs settled")
        await stack.until(taken, "a delivery for each task")
        assert len(stack.books()["tasks"]) == PROMPTS
        books = await read_books(store)
        check_books(books)
        assert [row for row in books.findings if row["verdict"] == "unmatched"] == []
    finally:
        stack.close()
        await store.close()
