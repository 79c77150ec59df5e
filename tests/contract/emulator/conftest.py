"""Fixtures: `emulate(...)` starts an emulator, `receiver` takes its webhooks; both end with the test."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from emulator_harness import Provider, Receiver, start_provider, stop_provider

from app.emulator.engine.faults import FaultRates
from app.emulator.engine.options import Options

Emulate = Callable[..., Awaitable[Provider]]


@pytest.fixture
async def emulate() -> AsyncIterator[Emulate]:
    """A factory: keyword arguments are Options; `scale` lets time run, `frozen_wall` stops the rate
    window."""
    started: list[Provider] = []

    async def start(*, scale: float = 0.0, frozen_wall: bool = False, **options: Any) -> Provider:
        # Internal retries are normal at the provider but noise in most tests.
        options.setdefault("faults", FaultRates(internal_retry=0.0))
        provider = await start_provider(Options(**options), scale=scale, frozen_wall=frozen_wall)
        started.append(provider)
        return provider

    yield start
    for provider in started:
        await stop_provider(provider)


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    """A webhook endpoint that records what arrives."""
    receiver = await Receiver().start()
    yield receiver
    await receiver.stop()
