"""What the doctor says of clocks, by how far they are apart and by how many agree."""

import pytest

from app.cli.doctor.check import Check
from app.cli.doctor.clocks import Clocks

NOW_MS = 1_700_000_000_000


def checks(**others_ms: float) -> dict[str, Check]:
    """Of clocks that differ from ours by so many ms, each asked with a round trip of 1 s."""
    seconds = iter(range(100))
    clocks = Clocks(wall=lambda: NOW_MS, monotonic=lambda: next(seconds))
    for whose, ms in others_ms.items():
        clocks.note(whose, NOW_MS + 500 + ms, clocks.ask())
    return {check.name: check for check in clocks.checks()}


@pytest.mark.parametrize(
    ("other_ms", "state", "words"),
    [
        (2_400, "ok", "agrees"),
        (-2_400, "ok", "agrees"),
        (2_600, "warning", "2.6 s behind"),
        (-2_600, "warning", "2.6 s ahead of"),
        (60_100, "fault", "60.1 s behind"),
        (-9_000_000, "fault", "2.5 h ahead of"),
        (400_000, "fault", "6.7 min behind"),
        (-864_000_000, "fault", "10.0 days ahead of"),
    ],
)
def test_f18_two_seconds_and_half_the_round_trip_are_no_difference(
    other_ms: float, state: str, words: str
) -> None:
    check = checks(database=other_ms)["database clock"]
    assert (check.state, words in check.detail) == (state, True), check


def test_f18_whose_clock_to_set() -> None:
    only = checks(database=90_000, redis=0, provider=100)
    assert [check.state for check in only.values()] == ["fault", "ok", "ok"]
    assert "set whichever is wrong" in only["database clock"].remedy
    every = checks(database=90_000, redis=90_000, provider=90_000)
    assert {check.remedy for check in every.values()} == {
        "set this machine's time, by NTP: no other that was asked agrees with it"
    }
    assert "this machine, and of the database's" in checks(redis=0, provider=-9_000)["provider clock"].remedy
    assert checks() == {}
