"""An emulator process of the newest edition, which tells what became of its webhooks; a run on each store."""

import json
import subprocess
from collections.abc import Iterator

import pytest

from app.store import Store
from tests.clock import SteppedClock
from tests.e2e.stack import TALLYHOOK
from tests.integration.services.pipeline import Pipeline
from tests.servers.processes import end


@pytest.fixture(scope="session")
def emulator_url() -> Iterator[str]:
    """Where it listens. Its time runs a thousand times faster."""
    options = ["--edition", "2026", "--port", "0", "--json", "--seed", "7", "--time-scale", "1000"]
    process = subprocess.Popen(
        [TALLYHOOK, "emulator", *options, "--rate-limit", "0"],
        stdout=subprocess.PIPE,
        stdin=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        yield json.loads(process.stdout.readline())["url"]
    finally:
        end(process, ((15, 10.0), (9, 5.0)))
        process.stdout.close()


@pytest.fixture
def pipeline(store: Store, clock: SteppedClock) -> Pipeline:
    """No run yet: `await pipeline.start(tasks)`."""
    return Pipeline(store, clock)


@pytest.fixture
def sqlite_pipeline(sqlite_store: Store, clock: SteppedClock) -> Pipeline:
    """The same on SQLite alone, for what does not depend on the store."""
    return Pipeline(sqlite_store, clock)
