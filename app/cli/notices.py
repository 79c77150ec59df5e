"""The command notices: what was told, and whether it arrived; and a test of the receiver."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import LISTED_MAX, AsJson, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.errors import FAILED, USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.store import Store

NOTICES_SHOWN = 20

notices = typer.Typer(
    help="List what was told lately, newest first, and whether it arrived.",
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@notices.callback()
def list_(
    context: typer.Context,
    limit: Annotated[
        int, typer.Option(help="How many, newest first.", min=1, max=LISTED_MAX)
    ] = NOTICES_SHOWN,
    as_json: AsJson = False,
) -> None:
    """List what was told lately, newest first, and whether it arrived.

    Notices go to the log of the worker, and to TALLYHOOK_NOTICE_URL, signed with TALLYHOOK_NOTICE_SECRET by
    Standard Webhooks.
    """
    from app.cli.terminal import show
    from app.views.notices import notice_document

    if context.invoked_subcommand is not None:
        return

    async def work(store: "Store") -> None:
        rows = [notice_document(row) for row in await store.notices.list_notices(limit)]
        show({"notices": rows}, as_json=as_json, draw=draw_notices)

    with_store(settings_for(log_level="warning"), work)


@notices.command()
def test(as_json: AsJson = False) -> None:
    """Send a test notice to TALLYHOOK_NOTICE_URL now, and say what the receiver answered."""
    import asyncio

    from app.bootstrap import now_ms
    from app.cli.terminal import draw_line, show
    from app.domain.notices.notice import Answered, Notice, NoticeKind
    from app.domain.task import new_id
    from app.notice_client import open_notice_client

    client = open_notice_client(settings_for(log_level="warning"))
    if client is None:
        raise UserError(
            "no_receiver",
            "TALLYHOOK_NOTICE_URL is not set, so notices go to the log only",
            "set it, and TALLYHOOK_NOTICE_SECRET",
            exit_code=USAGE,
        )
    now = now_ms()
    notice_id = new_id(now)
    notice = Notice(NoticeKind.TEST, "default", notice_id, "A test notice: nothing has happened.", now)

    async def send() -> Answered:
        async with client:
            return await client.post(notice_id, now // 1000, notice.body().encode())

    answered = asyncio.run(send())
    done(f"notice {notice_id} was posted")
    taken = answered.status is not None and 200 <= answered.status < 300
    outcome = f"HTTP {answered.status}" if answered.status else f"no answer ({answered.error})"
    document = {
        "id": notice_id,
        "taken": taken,
        "status": answered.status,
        "error": answered.error,
        "message": f"The receiver {'took' if taken else 'did not take'} the test notice: {outcome}.",
    }
    show(document, as_json=as_json, draw=draw_line)
    if not taken:
        raise typer.Exit(FAILED)


def draw_notices(output: "Console", document: dict[str, Any]) -> None:
    """One line for each, and under it why it did not arrive."""
    from rich.markup import escape

    from app.cli.terminal import second

    if not document["notices"]:
        output.print("Nothing was told yet. Workers tell of runs, budgets, discrepancies and drift.")
    for row in document["notices"]:
        style = {"sent": "green", "failed": "red", "new": "yellow"}.get(row["state"], "dim")
        state = f"[{style}]{row['state']:>6}[/{style}]"
        output.print(f"{second(row['at'])} {state} {row['kind']:<17}", end=" ")
        output.print(escape(row["data"]["message"]))
        if row["error"]:
            output.print(f"{'':27}after {row['tries']} tries: {escape(row['error'])}")
