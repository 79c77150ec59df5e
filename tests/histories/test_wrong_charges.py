"""The short form of `python -m tests.histories.wrong_charges`: one seed, and one that cannot be perfect."""

from unittest.mock import patch

import pytest

from app.domain.settlement import Circumstances
from app.domain.verdicts import Verdict
from tests.histories import wrong_charges
from tests.histories.stored import stored_books
from tests.histories.wrong_charges import is_perfect, measure, run_scene


@pytest.mark.parametrize("seeds", [1, pytest.param(3, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_every_wrong_charge_is_found_and_nothing_else(seeds: int) -> None:
    with stored_books() as books:
        result = measure(seeds, books)
    assert set(result) == {
        "overcharged",
        "undercharged",
        "charged_failure",
        "repriced",
        "double_charged",
        "unknown",
        "conflict",
        "unmatched",
    }
    for verdict, figures in result.items():
        assert figures["wrong"] == seeds * wrong_charges.WRONG, verdict
        assert is_perfect(figures), f"{verdict}: {figures}"


def test_a_new_price_that_is_not_explained_looks_like_a_wrong_charge() -> None:
    """The right ones among the thousand are there to be taken for wrong."""
    with (
        stored_books() as books,
        patch("app.services.settle.Circumstances", lambda *_, **__: Circumstances()),
    ):
        due, found, _ = run_scene(Verdict.OVERCHARGED, 0, books)
    assert found > due
