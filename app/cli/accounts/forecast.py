"""The command forecast: when credits run out and when runs end, with what that was computed from."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import Account, AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from app.config import Settings
    from app.services.forecast import AccountForecast
    from app.store import Store


def forecast(
    run: Annotated[
        str,
        typer.Argument(metavar="[RUN]", help="Name or id of a run, or [b]latest[/b]; none: all open runs."),
    ] = "",
    account: Account = "",
    as_json: AsJson = False,
) -> None:
    """Show when the credits run out and when the runs end, as a range, and what there is to warn of.

    Measured: how fast tasks finished in the last hours of work, what they were charged beside our estimate,
    how the balance fell. The provider is asked for its slots, if it answers.
    """
    from app.bootstrap import now_ms
    from app.cli.accounts.draw import draw_forecast
    from app.cli.runs.choose import choose_run
    from app.cli.terminal import show
    from app.config import DEFAULT_ACCOUNT
    from app.run_options import refuse_unknown_account
    from app.views.forecast import forecast_document

    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        chosen = await choose_run(store, run) if run else None
        if chosen and account and account != chosen.account:
            text = f"run {chosen.name} is of account {chosen.account}, not {account}"
            raise UserError("bad_option", text, "leave --account out", exit_code=USAGE)
        name = chosen.account if chosen else account or DEFAULT_ACCOUNT
        refuse_unknown_account(settings, name)
        seen = await _look(settings, store, name, now_ms())
        document = forecast_document(seen, chosen)
        show(document, as_json=as_json, draw=draw_forecast)

    with_store(settings, work)


async def _look(settings: "Settings", store: "Store", account: str, now_ms: int) -> "AccountForecast":
    from app.bootstrap import open_provider
    from app.services.forecast import look_ahead

    async with open_provider(settings, account) as provider:
        rate_per_s = settings.all_accounts()[account].rate_per_s
        return await look_ahead(store, account, provider=provider, rate_per_s=rate_per_s, now_ms=now_ms)


FORECAST_EXAMPLES = examples("tallyhook forecast", "tallyhook forecast monday --json | jq .runs[0].ends")
