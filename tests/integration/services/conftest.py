"""A run on each kind of store."""

import pytest

from app.store import Store
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline


@pytest.fixture
def pipeline(store: Store, clock: SteppedClock) -> Pipeline:
    """No run yet: `await pipeline.start(tasks)`."""
    return Pipeline(store, clock)
