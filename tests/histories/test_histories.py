"""The short form of `python -m tests.histories`: fewer histories, on dicts and on the real store."""

import asyncio
import os

import pytest

from app.provider.wire import read_answer
from app.store import Database, Store
from tests.histories.memory import MemoryBooks
from tests.histories.sabotage import SABOTAGES
from tests.histories.stored import StoredBooks
from tests.histories.tally import Tally, run_histories

SEED = int(os.environ.get("TALLYHOOK_HISTORIES_SEED", "1"))


def test_histories_end_with_the_emulators_books() -> None:
    tally = Tally()
    run_histories(40, SEED, MemoryBooks, tally)
    assert tally.histories >= 40
    assert tally.counts()["findings"]["conflict"], "the histories were too tame"


def test_histories_on_the_real_store(sqlite_url: str) -> None:
    with asyncio.Runner() as runner:
        store = Store(Database(sqlite_url), read_answer)
        try:
            run_histories(4, SEED, lambda: StoredBooks(runner, store), Tally())
        finally:
            runner.run(store.close())


@pytest.mark.parametrize("name", ["a second report posts again", "clusters are not explained"])
def test_a_protection_taken_out_shows(name: str) -> None:
    with SABOTAGES[name](), pytest.raises(AssertionError):
        run_histories(200, SEED, MemoryBooks, Tally(), shrink=False)
