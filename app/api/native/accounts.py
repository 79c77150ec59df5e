"""/v1/balance and /v1/forecast: what an account has, and when that runs out."""

from typing import Annotated, Any

from pydantic import BaseModel, Field

from app.api.fields import Credits, Time
from app.api.native.forecast_model import AccountForecast
from app.api.native.visible import visible_account
from app.api.route import Call, Params, Route
from app.config import ACCOUNT_NAME
from app.domain.access import Scope
from app.services.forecast import look_ahead
from app.views.forecast import forecast_document


class AccountParams(Params):
    """Which account."""

    account: Annotated[
        str | None, Field(pattern=ACCOUNT_NAME, description="Default: the token's own, or `default`.")
    ] = None


class Balance(BaseModel):
    """As the provider last told it, up to a minute late; null: it never did."""

    account: str
    remaining: Credits | None
    per_cycle: Credits | None = Field(description="null: no subscription.")
    resets_at: Time | None
    read_at: Time | None = Field(description="When it was read.")


async def get_balance(call: Call[AccountParams, None]) -> Balance:
    """What is stored; the provider is not asked."""
    account = visible_account(call, call.params.account)
    found = await call.store.audits.last_snapshot(account, call.parts.clock())
    return Balance(
        account=account,
        remaining=found.remaining if found else None,
        per_cycle=found.per_cycle if found else None,
        resets_at=found.resets_at_ms if found else None,
        read_at=found.at_ms if found else None,
    )


async def get_forecast(call: Call[AccountParams, None]) -> AccountForecast:
    """From what is stored: the provider is not asked for its slots."""
    return await account_forecast(call, visible_account(call, call.params.account))


async def account_forecast(call: Call[Any, Any], account: str) -> AccountForecast:
    """What lies ahead of an account that the caller may see."""
    rate_per_s = call.parts.settings.all_accounts()[account].rate_per_s
    now_ms = call.parts.clock()
    seen = await look_ahead(call.store, account, provider=None, rate_per_s=rate_per_s, now_ms=now_ms)
    return AccountForecast.model_validate(forecast_document(seen, None))


ROUTES = (
    Route(
        "GET",
        "/v1/balance",
        get_balance,
        "Show what an account has",
        {200: Balance},
        scope=Scope.READ,
        group="accounts",
        params=AccountParams,
        problems=(404,),
    ),
    Route(
        "GET",
        "/v1/forecast",
        get_forecast,
        "Show when credits run out and runs end, as ranges",
        {200: AccountForecast},
        scope=Scope.READ,
        group="accounts",
        params=AccountParams,
        problems=(404,),
        is_long=True,
        of_the_moment={"at": True, "runs_out": True, "runs": {"__all__": {"ends"}}},
    ),
)
