"""The table of verdicts: one row for each, and the words of a row take the figures of a finding."""

import pytest

from app.domain.verdicts import VERDICTS, Verdict


def test_every_verdict_has_one_row() -> None:
    assert list(VERDICTS) == list(Verdict)


@pytest.mark.parametrize("verdict", Verdict)
def test_the_words_of_a_verdict_take_the_figures_of_a_finding(verdict: Verdict) -> None:
    row = VERDICTS[verdict]
    text = row.words.format(expected=4, actual=5, detail="a detail")
    assert text and "{" not in text
    assert not (row.is_quiet and row.is_alongside), "a quiet verdict is no finding"
