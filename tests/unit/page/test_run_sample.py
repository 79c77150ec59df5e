"""Which tasks of a long run are drawn: as many everywhere, of every engine, on few pages of the table."""

from collections import Counter

import pytest

from app.store.read.run_samples import SAMPLED, STRETCH, places_of


@pytest.mark.parametrize("last", [SAMPLED + 1, SAMPLED + 7, 3 * (SAMPLED - 1) + 1, 500_000, 5_000_000])
def test_a_sample_is_spread_evenly_whatever_goes_round_in_its_source(last: int) -> None:
    places = places_of(last)
    assert (len(set(places)), places[0], places[-1]) == (SAMPLED, 1, last)
    for engines in (2, 3, 5):
        counted = Counter(place % engines for place in places)
        assert max(counted.values()) <= 1.1 * SAMPLED / engines, engines
    tenths = Counter((place - 1) * 10 // last for place in places)
    assert all(abs(n - SAMPLED / 10) <= 2 * STRETCH for n in tenths.values()), tenths
    assert len({place // 50 for place in places}) <= 2 * SAMPLED // STRETCH
