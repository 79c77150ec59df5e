"""Looks ahead for an account: the forecast from the books, the limits as they are used now, the warnings."""

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from app.domain.accounting.forecast import Forecast, forecast
from app.domain.accounting.warnings import LimitUsage, LimitWarning, warnings_of
from app.ports import Slots

if TYPE_CHECKING:
    from app.store import Store

SLOTS_WAIT_S = 5.0
"""A provider that answers slower is forecast without its slots."""


class SlotsOf(Protocol):
    """The provider, as far as this needs it."""

    async def slots(self) -> Slots | None: ...


@dataclass(frozen=True, slots=True)
class AccountForecast:
    """What lies ahead of one account."""

    forecast: Forecast
    use: LimitUsage
    warnings: list[LimitWarning]


async def look_ahead(
    store: "Store", account: str, *, provider: SlotsOf | None, rate_per_s: float | None, now_ms: int
) -> AccountForecast:
    """`provider` is asked for its slots; None, or no answer: they are not known. `rate_per_s`: the account's
    limit of requests."""
    slots = None if provider is None else await _slots(provider)
    inputs = await store.forecasts.forecast_input(account, now_ms, slots=slots.concurrency if slots else None)
    use = LimitUsage(
        slots.concurrency if slots else None,
        slots.used if slots else None,
        rate_per_s,
        await store.forecasts.busiest_second(account, now_ms),
    )
    found = forecast(inputs)
    return AccountForecast(found, use, warnings_of(found, use))


async def _slots(provider: SlotsOf) -> Slots | None:
    try:
        async with asyncio.timeout(SLOTS_WAIT_S):
            return await provider.slots()
    except TimeoutError:
        return None
