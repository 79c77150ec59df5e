"""What the account has, what it has before it, and where it may ask (C-E.6, C-G.5, C-G.7)."""

from decimal import Decimal
from typing import Literal

from pydantic import Field

from app.api.dialects.provider.intake import account_of
from app.api.dialects.provider.models import (
    ProviderBalance,
    ProviderCountries,
    ProviderPriority,
    ProviderQueue,
    ProviderState,
    ProviderStates,
)
from app.api.problems import NOT_FOUND, Problem
from app.api.route import Call, Params
from app.domain.engines.places import COUNTRIES, STATE_NAMES, WITHOUT_OVERVIEW
from app.domain.engines.table import ENGINES
from app.domain.provider_task import number
from app.domain.time_format import iso_utc
from app.services.credit_room import balance_and_room


class CountriesParams(Params):
    """Of which engine."""

    model: (
        Literal["aimode", "aioverview", "chatgpt", "copilot", "gemini", "google", "grok", "perplexity"] | None
    ) = None


class StatesParams(Params):
    """Of which country."""

    # The provider wants it named; its own Python client names none.
    country: str = Field(default="US", pattern=r"^[A-Z]{2}$")


async def get_provider_queue(call: Call[Params, None]) -> ProviderQueue:
    """Counts of all open runs of the account, whoever brought them."""
    queued = await call.store.standing_tasks.queued(account_of(call.caller))
    return ProviderQueue(
        queuedTasks=queued.waiting,
        processingTasks=queued.accepted,
        priorityBreakdown=[
            ProviderPriority(priority=priority, count=count) for priority, count in queued.by_priority or ()
        ],
        concurrency=None,
    )


async def get_provider_balance(call: Call[Params, None]) -> ProviderBalance:
    """The balance that was reported last, less what is queued here."""
    balance, room = await balance_and_room(call.store, account_of(call.caller), call.parts.clock())
    if balance is None or room is None:
        # As an edition answers that has none.
        raise Problem(NOT_FOUND, "the provider's balance was not read here yet: a worker that sends reads it")
    return ProviderBalance(
        remaining=number(max(room, Decimal(0))),
        perCycle=None if balance.per_cycle is None else number(balance.per_cycle),
        cycleResetsAt=iso_utc(balance.resets_at_ms),
    )


async def list_provider_countries(call: Call[CountriesParams, None]) -> ProviderCountries:
    """Codes in alphabetical order."""
    model = call.params.model
    blocked = WITHOUT_OVERVIEW if model == "aioverview" else frozenset()
    if model is not None and model != "aioverview":
        blocked = ENGINES[model.upper()].blocked
    return ProviderCountries(sorted(COUNTRIES - blocked))


async def list_provider_states(call: Call[StatesParams, None]) -> ProviderStates:
    """Those of the US; other countries have none."""
    names = STATE_NAMES if call.params.country == "US" else {}
    return ProviderStates([ProviderState(code=code, name=name) for code, name in names.items()])
