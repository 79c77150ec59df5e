"""The short form of `python -m tests.histories`: fewer histories."""

import os

import pytest

from tests.histories.sabotage import SABOTAGES
from tests.histories.stored import stored_books
from tests.histories.tally import Tally, run_histories

SEED = int(os.environ.get("TALLYHOOK_HISTORIES_SEED", "1"))


def test_histories_end_with_the_emulators_books() -> None:
    tally = Tally()
    with stored_books() as books:
        run_histories(40, SEED, books, tally)
    assert tally.histories >= 40
    assert tally.counts()["findings"]["conflict"], "the histories were too tame"


@pytest.mark.parametrize("name", ["a second report posts again", "clusters are not explained"])
def test_a_protection_taken_out_shows(name: str) -> None:
    with SABOTAGES[name](), stored_books() as books, pytest.raises(AssertionError):
        run_histories(200, SEED, books, Tally(), shrink=False)
