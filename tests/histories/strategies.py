"""Random histories, for Hypothesis to shrink."""

from hypothesis import strategies as st

from tests.histories.history import VERBS
from tests.histories.provider import Setting

STEPS_MIN, STEPS_MAX = 12, 40

settings_of_a_provider = st.builds(
    Setting,
    seed=st.integers(0, 2**20),
    reprices_after_h=st.integers(1, 23),
    resets_after_h=st.sampled_from([400, 26, 60, 100]),
    credits=st.sampled_from([10_000, 60, 25]),
    wrong_charge=st.sampled_from([0.0, 0.3]),
    fail=st.sampled_from([0.0, 0.3]),
)
common = ["wait", "submit", "deliver", "wait", "submit", "deliver", "poll", "look", "look"]
steps = st.tuples(st.sampled_from([*common, *VERBS]), st.integers(0, 2**14))
histories = st.tuples(settings_of_a_provider, st.lists(steps, min_size=STEPS_MIN, max_size=STEPS_MAX))
