"""`tallyhook up` as a command: its options, and what it says when everything runs."""

import json
import shlex
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import examples
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.config import Settings
    from app.views.runs import Document


def up(
    emulator: Annotated[
        str,
        typer.Option(
            metavar="OPTIONS",
            help="Options for the emulator, as of [b]tallyhook emulator[/b], such as '--fail 0.05'.",
        ),
    ] = "",
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON line when everything runs; logs go to stderr.")
    ] = False,
) -> None:
    """Run all that one machine needs, until Ctrl-C: web, api, a worker, Valkey, and without a key the
    emulator.

    Needs nothing: in an empty directory it makes its database and its queue in .tallyhook. Every other
    command finds it from the same directory. Ports in use are passed over, unless PORT asks for one. Ctrl-C
    or SIGTERM ends all in order, the worker first, which finishes what it holds; another one, all at once.
    """
    import asyncio

    from app.cli.options import settings_for
    from app.cli.terminal import announce_line, console
    from app.cli.up.lines import Lines
    from app.cli.up.up import Up, needs_emulator, run_up
    from app.log_sink import guard_standard_streams

    settings = settings_for()
    try:
        options = shlex.split(emulator)
    except ValueError as error:
        raise UserError(
            "bad_option", f"--emulator cannot be read: {error}", "close the quote", exit_code=USAGE
        ) from None
    if options and not needs_emulator(settings):
        raise UserError(
            "bad_option",
            "--emulator is of no use: CLORO_API_KEY or CLORO_BASE_URL names another provider",
            "leave it out, or unset them",
            exit_code=USAGE,
        )
    guard_standard_streams()
    screen = console()
    log_as_json = settings.log_format == "json"

    def announce(document: "Document") -> None:
        if as_json:
            announce_line(json.dumps(document))
        else:
            draw_ready(screen, document, settings)

    asyncio.run(run_up(Up(settings, options, Lines(sys.stderr, as_json=log_as_json), announce)))


def draw_ready(output: "Console", document: "Document", settings: "Settings") -> None:
    """Where everything is, and what to do now."""
    from rich.markup import escape

    provider = f"[b]{document['provider']}[/b]"
    if document["emulator"]:
        provider += "  the emulator: no CLORO_API_KEY is set, nothing is paid"
    rows = [
        ("provider", provider),
        ("web", f"[b]{document['web']}[/b]  takes deliveries at {document['webhook_url']}"),
        ("page", f"[b]{document['api']}/[/b]  see every task and every credit; sign in with the token"),
        ("api", f"[b]{document['api']}[/b]  {document['api']}/openapi.json describes it"),
        ("token", _token_of(document)),
        ("data", escape(document["data_dir"]) if not settings.database_url else "as DATABASE_URL says"),
    ]
    output.print("\n[green]Everything runs.[/green]\n")
    for name, text in rows:
        output.print(f"  {name:<9} {text}")
    if document["emulator"]:
        output.print(f"  {'books':<9} {document['emulator']}/_emulator/", end="")
        output.print(f"#{document['control_token']}" if document["control_token"] else "", highlight=False)
    if not document["emulator"] and not settings.public_url:
        output.print(
            "\n[yellow]PUBLIC_URL is not set:[/yellow] the provider cannot reach this machine, so results "
            f"come by poll, {settings.poll_after_s:g} s after they were sent for. A tunnel to web helps."
        )
    output.print("\nIn a second terminal, in this directory:")
    output.print('  [cyan]tallyhook ask "Is Monzo safe?" --engine gemini --country GB[/cyan]')
    output.print("  [cyan]tallyhook submit prompts.csv --watch[/cyan]")
    output.print("Ctrl-C ends all of it.\n")


def _token_of(document: "Document") -> str:
    """Of the API: that of this start, or how one is made."""
    token = document["api_token"]
    return f"[b]{token}[/b]" if token else "[cyan]tallyhook token create NAME --scope submit[/cyan]"


UP_EXAMPLES = examples(
    "tallyhook up", "tallyhook up --emulator '--fail 0.05 --duplicate 0.02'", "PORT=9000 tallyhook up"
)
