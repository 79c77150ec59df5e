"""What is billed for AI Mode product clusters is what the answer shows (C-E.2)."""

import json

import pytest

from app.emulator.answers.compose import Answers, clusters_returned
from app.emulator.data.editions import EDITIONS

PAYLOAD = {"prompt": "best running shoes", "country": "US", "include": {"expandProducts": True}}


@pytest.mark.parametrize("edition", sorted(EDITIONS))
def test_clusters_counted_are_clusters_shown_refusals_too(edition: str) -> None:
    seed, answers = 5, Answers(5)
    counted, shown = [], []
    for number in range(600):
        answer = json.loads(answers.compose("AIMODE", EDITIONS[edition], PAYLOAD, number, "link"))
        counted.append(clusters_returned(seed, number, "AIMODE", PAYLOAD))
        shown.append(len(answer.get("productResults", answer.get("product_results", []))))
    assert counted == shown
    assert {0, 6} <= set(counted)
