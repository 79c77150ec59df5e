"""The command relay: where results are pushed to, how that goes, and what a person can do about it."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import LISTED_MAX, AsJson, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.store import Store
    from app.store.read.relay import EndpointRow

SHOWN = 20
SHORT_CHARS = 8

relay = typer.Typer(
    help="Results that are pushed: list where to and how it goes, try again, change a secret.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Endpoint = Annotated[
    str,
    typer.Argument(metavar="ENDPOINT", help="Id of an endpoint, its end, or its URL; [b]all[/b] of them."),
]


@relay.command(name="list", epilog=examples("tallyhook relay list", "tallyhook relay list --run monday"))
def list_(
    run: Annotated[str, typer.Option(metavar="RUN", help="Only where results of RUN go.")] = "",
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=LISTED_MAX)] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """List where results are pushed to, how many were taken, how many wait, and why.

    One that takes nothing for TALLYHOOK_RELAY_FAILING_S is set aside; its results wait for relay retry.
    """
    from app.cli.runs.choose import choose_run
    from app.cli.terminal import show
    from app.views.relay import endpoint_document

    async def work(store: "Store") -> None:
        run_id = (await choose_run(store, run)).id if run else None
        rows = await store.relay.endpoints(run_id=run_id, limit=limit)
        show({"endpoints": [endpoint_document(row) for row in rows]}, as_json=as_json, draw=draw_endpoints)

    with_store(settings_for(log_level="warning"), work)


@relay.command(epilog=examples("tallyhook relay retry 5f0c2b1a", "tallyhook relay retry all"))
def retry(endpoint: Endpoint, as_json: AsJson = False) -> None:
    """Post again, from now on, what was given up or waits, also to an endpoint that was set aside."""
    from app.bootstrap import now_ms
    from app.cli.streams import done
    from app.cli.terminal import draw_line, show

    async def work(store: "Store") -> None:
        chosen = await choose_endpoints(store, endpoint)
        count = await store.relay_endpoints.put_back([row.id for row in chosen], now_ms())
        done(f"{count} messages are due at once")
        many = f"{count:,} messages are" if count != 1 else "1 message is"
        where = "endpoint" if len(chosen) == 1 else "endpoints"
        document = {
            "endpoints": [row.id for row in chosen],
            "messages": count,
            "message": f"{many} due at once, for {len(chosen)} {where}; a running worker posts them.",
        }
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


@relay.command(epilog=examples("tallyhook relay rotate 5f0c2b1a"))
def rotate(endpoint: Endpoint, as_json: AsJson = False) -> None:
    """Make a new secret for an endpoint, and show it this once.

    For a day each message is signed with both, so that the receiver may change over at any time in it.
    """
    from app.bootstrap import now_ms
    from app.cli.streams import done
    from app.cli.terminal import show
    from app.domain.relay.message import new_secret

    async def work(store: "Store") -> None:
        chosen = await choose_endpoints(store, endpoint)
        if len(chosen) > 1:
            raise UserError("ambiguous", "that names several endpoints", "name one", exit_code=USAGE)
        secret = new_secret()
        await store.relay_endpoints.change_secret(chosen[0].id, secret, now_ms())
        done(f"endpoint {chosen[0].id} has a new secret")
        document = {"endpoint": chosen[0].id, "url": chosen[0].url, "secret": secret}
        show(document, as_json=as_json, draw=draw_secret)

    with_store(settings_for(log_level="warning"), work)


async def choose_endpoints(store: "Store", given: str) -> "list[EndpointRow]":
    """What a person means. Raises UserError for none, or for several that they cannot have meant."""
    rows = await store.relay.endpoints(limit=LISTED_MAX)
    if given == "all":
        chosen = [row for row in rows if row.state != "closed"]
    else:
        chosen = [row for row in rows if given and (row.id.endswith(given) or row.url == given)]
    if not chosen:
        what = "there is no endpoint" if given == "all" else f"there is no endpoint {given[:80]!r}"
        raise UserError("no_endpoint", what, "tallyhook relay list shows them", exit_code=USAGE)
    if len(chosen) > 1 and given != "all" and any(row.url != given for row in chosen):
        details = [f"{row.id}  {row.url}" for row in chosen[:SHOWN]]
        raise UserError(
            "ambiguous", "several endpoints fit", "give more of its id", details=details, exit_code=USAGE
        )
    return chosen


def draw_endpoints(output: "Console", document: dict[str, Any]) -> None:
    """Two lines for each."""
    if not document["endpoints"]:
        output.print("Results are pushed nowhere: tallyhook submit FILE --webhook-url URL has them posted.")
    for row in document["endpoints"]:
        _draw_endpoint(output, row)


def _draw_endpoint(output: "Console", row: dict[str, Any]) -> None:
    from rich.markup import escape

    from app.cli.terminal import second

    is_failing = row["failing_since"] is not None
    style, word = {"set_aside": ("red", "set aside"), "closed": ("dim", "closed")}.get(
        row["state"], ("yellow", "failing") if is_failing else ("green", "active")
    )
    output.print(f"[bold]{row['id'][-SHORT_CHARS:]}[/bold] [{style}]{word}[/{style}] {escape(row['url'])}")
    figures = [f"{row['taken']:,} taken", f"{_or_more(row['waiting'])} waiting"]
    if row["given_up"]:
        figures.append(f"[red]{_or_more(row['given_up'])} given up[/red]")
    if row["runs"]:
        figures.append(f"of {escape(', '.join(row['runs']))}")
    output.print(f"  {', '.join(figures)}")
    if row["error"]:
        since = second(row["failing_since"]) if is_failing else "lately"
        output.print(f"  [yellow]not taken since {since}: {escape(row['error'])}[/yellow]")
        if row["next_try_at"]:
            output.print(f"  next try at {second(row['next_try_at'])}")
    if row["state"] == "set_aside" or row["given_up"]:
        output.print(f"  tallyhook relay retry {row['id'][-SHORT_CHARS:]} posts again what waits")


def _or_more(count: int) -> str:
    from app.store.read.relay import COUNTED_MAX

    return f"{count:,} or more" if count >= COUNTED_MAX else f"{count:,}"


def draw_secret(output: "Console", document: dict[str, Any]) -> None:
    """The secret, on a line that can be copied."""
    from rich.markup import escape

    output.print(f"Messages to {escape(document['url'])} are signed with a new secret, shown this once:")
    output.print(f"  [bold]{document['secret']}[/bold]", soft_wrap=True, highlight=False)
    output.print("  For a day the one before signs too.")
