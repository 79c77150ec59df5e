"""A run, on SQLite; `on_either` on each kind of store, for what differs between them."""

import pytest

from app.store import Store
from tests.clock import SteppedClock
from tests.integration.services.pipeline import Pipeline


@pytest.fixture
def pipeline(sqlite_store: Store, clock: SteppedClock) -> Pipeline:
    """No run yet: `await pipeline.start(tasks)`."""
    return Pipeline(sqlite_store, clock)


@pytest.fixture
def on_either(store: Store, clock: SteppedClock) -> Pipeline:
    """The same on each kind of store."""
    return Pipeline(store, clock)
