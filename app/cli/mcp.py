"""The command mcp: tools for an agent that starts it."""

from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import examples, not_empty, settings_for
from app.domain.access import Scope
from app.errors import UserError

if TYPE_CHECKING:
    from app.config import Settings


def mcp(
    scope: Annotated[
        Scope, typer.Option(help="What it may do: read, submit (spend credits), or operate (retry too).")
    ] = Scope.OPERATE,
    account: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="See and spend this account only.",
            show_default="all of them",
            callback=not_empty,
        ),
    ] = "",
) -> None:
    """Serve tools to the agent that starts this, by standard input and output.

    An agent's own configuration names this command; nobody types it. Agents elsewhere use /mcp of
    tallyhook api, with a token. Needs the extra: pip install 'tallyhook\\[mcp]'.
    """
    import asyncio

    from app.run_options import refuse_unknown_account

    settings = settings_for(log_level="warning")
    if account:
        refuse_unknown_account(settings, account)
    asyncio.run(_serve(settings, scope, account or None))


async def _serve(settings: "Settings", scope: Scope, account: str | None) -> None:
    import asyncio

    from app.api.dispatch import Dispatcher
    from app.api.route import Caller, Parts
    from app.bootstrap import now_ms
    from app.cli.store_access import opened_store
    from app.cli.wake import Waker
    from app.services.access import COMMAND_LINE, COMMAND_LINE_ID
    from app.web.server import stop_signals

    try:
        from app.api.mcp.stdio import serve_stdio
    except ModuleNotFoundError as error:
        raise UserError(
            "not_installed", "tools for agents need the extra mcp", "pip install 'tallyhook[mcp]'"
        ) from error
    caller, stop = Caller(COMMAND_LINE_ID, COMMAND_LINE, scope, account), asyncio.Event()
    async with opened_store(settings) as store:
        waker = Waker(settings)
        parts = Parts(store, settings, now_ms, stopping=stop, wake=waker.wake)
        dispatcher = Dispatcher((), parts, settings, in_flight_max=settings.api_in_flight)
        with stop_signals(stop):
            try:
                await serve_stdio(dispatcher.perform, caller, now_ms, stop)
            finally:
                await dispatcher.close()
                await waker.close()


MCP_EXAMPLES = examples(
    "claude mcp add tallyhook -- tallyhook mcp", "tallyhook mcp --scope read", "tallyhook mcp --account eu"
)
