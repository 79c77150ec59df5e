"""Fixtures: a receiver of notices on the test's clock."""

from collections.abc import AsyncIterator

import pytest

from tests.clock import SteppedClock
from tests.integration.notices.receiver import SECRET, Receiver, receiving


@pytest.fixture
async def receiver(clock: SteppedClock) -> AsyncIterator[Receiver]:
    async with receiving(SECRET, clock_s=lambda: clock() / 1000) as opened:
        yield opened
