"""The commands about who may use the API, and what was done with it."""

from functools import partial
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import LISTED_MAX, AsJson, examples, not_empty, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.store import Store
    from app.views.runs import Document

SCOPES = "read, submit or operate"
SHOWN = 20

token = typer.Typer(
    help="Who may use the API: make tokens, list them, revoke one.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@token.command(
    epilog=examples(
        "tallyhook token create airflow --scope submit --account eu --expires 90d",
        "tallyhook token create shop --scope submit --webhook-url https://example.com/results",
        "export TALLYHOOK_TOKEN=$(tallyhook token create ci --scope read --json | jq -r .token)",
    )
)
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who will use it.")],
    scope: Annotated[
        str,
        typer.Option(
            metavar="read|submit|operate",
            help="What it may do: read all; submit runs and tasks too; operate (pause, cancel, retry) too.",
        ),
    ],
    account: Annotated[
        str,
        typer.Option(
            help="It sees and spends this account's only; default: all of them.", callback=not_empty
        ),
    ] = "",
    expires: Annotated[
        str,
        typer.Option(
            metavar="TIME", help="It ends after this, such as 90d; default: never.", callback=not_empty
        ),
    ] = "",
    webhook_url: Annotated[
        str,
        typer.Option(
            metavar="URL", help="Post results of all that it brings there, unless a run says where."
        ),
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Make a token for the API and print it, once: only a hash of it is kept.

    Clients send it as Authorization: Bearer TOKEN. Its webhook secret, which signs what is posted for it, is
    made of it and printed with it.
    """
    from app.bootstrap import now_ms
    from app.cli.terminal import show
    from app.domain.access import webhook_secret
    from app.relay_options import endpoint_option
    from app.run_options import refuse_unknown_account, refuse_unusable_name
    from app.services.access import create_token
    from app.views.access import token_document

    settings = settings_for(log_level="warning")
    refuse_unusable_name("NAME", name)
    if account:
        refuse_unknown_account(settings, account)
    endpoint_option(webhook_url, None, settings)
    if _scope(scope) == "read" and webhook_url:
        what, remedy = "--webhook-url goes with a token that brings runs", "give --scope submit or operate"
        raise UserError("bad_option", what, remedy, exit_code=USAGE)
    make = partial(create_token, lasts_ms=_lasts_ms(expires), webhook_url=webhook_url or None)

    async def work(store: "Store") -> None:
        made = await make(store, name, scope, account or None, now_ms=now_ms())
        if made is None:
            what, remedy = f"there is a valid token called {name}", "choose another name, or revoke it"
            raise UserError("name_taken", what, f"{remedy}: tallyhook token revoke {name}")
        row, text = made
        done(f"token {row.prefix} was made")
        shown = {"token": text, "webhook_secret": webhook_secret(row.sha256)}
        show(token_document(row, now_ms()) | shown, as_json=as_json, draw=draw_created)

    with_store(settings, work)


def _lasts_ms(expires: str) -> int | None:
    from app.domain.time_format import DurationError, parse_duration

    try:
        return parse_duration(expires) if expires else None
    except DurationError as error:
        raise UserError("bad_option", f"--expires: {error}", exit_code=USAGE) from None


def _scope(text: str) -> str:
    if text not in ("read", "submit", "operate"):
        raise typer.BadParameter(f"{text!r} is not one of: {SCOPES}", param_hint="--scope")
    return text


@token.command(name="list")
def list_(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=LISTED_MAX)] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """List tokens, newest first: what each may do, and when it was last used."""
    from app.bootstrap import now_ms
    from app.cli.terminal import show
    from app.views.access import token_document

    async def work(store: "Store") -> None:
        rows = [token_document(row, now_ms()) for row in await store.access.list_tokens(limit)]
        show({"tokens": rows}, as_json=as_json, draw=draw_tokens)

    with_store(settings_for(log_level="warning"), work)


@token.command()
def revoke(
    name: Annotated[str, typer.Argument(metavar="TOKEN", help="Its name, or its beginning (thk_…).")],
    as_json: AsJson = False,
) -> None:
    """Revoke a token: it is refused from now on, by processes that run within two seconds."""
    from app.bootstrap import now_ms
    from app.cli.terminal import draw_line, show
    from app.services.access import revoke_token
    from app.views.access import token_document

    async def work(store: "Store") -> None:
        row = await revoke_token(store, name, now_ms=now_ms())
        if row is None:
            raise UserError(
                "no_such_token", f"there is no valid token {name}", "tallyhook token list shows them"
            )
        done(f"token {row.prefix} was revoked")
        document = token_document(row, now_ms()) | {"state": "revoked"}
        document["message"] = f"The token {row.name} ({row.prefix}…) is revoked."
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


def actions(
    limit: Annotated[int, typer.Option(help="How many, newest first.", min=1, max=LISTED_MAX)] = SHOWN,
    as_json: AsJson = False,
) -> None:
    """List what was changed through the API, newest first: who, what, when, and to what."""
    from app.cli.terminal import show
    from app.views.access import action_document

    async def work(store: "Store") -> None:
        rows = [action_document(row) for row in (await store.access.actions_before(None, limit))[0]]
        show({"actions": rows}, as_json=as_json, draw=draw_actions)

    with_store(settings_for(log_level="warning"), work)


def draw_created(output: "Console", document: "Document") -> None:
    """The token, and that it is not shown again."""
    from rich.markup import escape

    whose = f"account {document['account']}" if document["account"] else "all accounts"
    until = f"until {document['expires_at'][:10]}" if document["expires_at"] else "until it is revoked"
    output.print(f"{escape(document['name'])} may [b]{document['scope']}[/b], {escape(whose)}, {until}:\n")
    output.print(f"  [b]{document['token']}[/b]\n", soft_wrap=True)
    output.print("It is shown this once. Clients send: [cyan]Authorization: Bearer TOKEN[/cyan]")
    if document["webhook_url"]:
        output.print(f"Results of all that it brings are posted to {escape(document['webhook_url'])},")
        output.print("unless a run says where; they are signed with its own secret:\n")
    else:
        output.print("Webhooks that single tasks ask for are signed with its own secret:\n")
    output.print(f"  {document['webhook_secret']}", soft_wrap=True, highlight=False)


def draw_tokens(output: "Console", document: "Document") -> None:
    """A row for each."""
    from rich.markup import escape

    from app.cli.terminal import minute, table

    if not document["tokens"]:
        output.print("There is no token yet: tallyhook token create NAME --scope read")
        return
    rows = table("token", "name", "scope", "account", "state", "created", "last used")
    for row in document["tokens"]:
        style = {"valid": "green", "expired": "yellow"}.get(row["state"], "dim")
        rows.add_row(
            f"{row['prefix']}…",
            escape(row["name"]),
            row["scope"],
            escape(row["account"] or "all"),
            f"[{style}]{row['state']}[/{style}]",
            minute(row["created_at"]),
            minute(row["last_used_at"]) if row["last_used_at"] else "never",
        )
    output.print(rows)


def draw_actions(output: "Console", document: "Document") -> None:
    """A row for each."""
    from rich.markup import escape

    from app.cli.terminal import second, table

    if not document["actions"]:
        output.print("Nothing was changed yet, through the API or with tokens.")
        return
    rows = table("at", "who", "action", "subject", "outcome", "request")
    for row in document["actions"]:
        status = row["status"]
        outcome = "unknown" if status is None else f"{'done' if status < 400 else 'refused'} ({status})"
        rows.add_row(
            second(row["at"]),
            escape(row["actor"]),
            row["action"],
            escape(row["subject"] or "-"),
            "done" if row["token_id"] is None else outcome,
            escape(row["request_id"] or "-"),
        )
    output.print(rows)
