"""The command dispute: every discrepancy of a run in one archive, for the provider's support."""

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, RunArgument, examples, settings_for
from app.cli.runs.commands import with_store

if TYPE_CHECKING:
    from app.store import Store


ZIP_YEARS = 1981, 2106
"""A year less than the format at both ends, whatever the zone."""


def dispute(
    run: RunArgument = "latest",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="A .zip or a .tar.gz. Default: a .zip here.")
    ] = "",
    made_at: Annotated[
        str, typer.Option(metavar="TIME", help="ISO 8601, for the files' dates: the same archive again.")
    ] = "",
    with_metadata: Annotated[
        bool, typer.Option("--with-metadata", help="Put columns of your own into it too.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Write every discrepancy of RUN into one archive for the provider's support.

    For each one: the request, every answer with its request id, the signed deliveries byte for byte, the
    polls, and the arithmetic. Prompts and answers are in it of necessity; API keys and secrets are not. Each
    has its custom_id; columns of your own stay with you unless you ask for them.
    """
    from app.bootstrap import now_ms
    from app.cli.runs.choose import choose_run
    from app.cli.runs.missing import exit_if_missing, pruned_note
    from app.cli.terminal import draw_line, show
    from app.files.archive import suffix_of
    from app.files.dispute_file import dispute_document, write_dispute

    if output:
        suffix_of(Path(output))
    at_ms = _moment_ms(made_at) if made_at else now_ms()
    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        path = Path(output or f"dispute-{row.id[-8:]}.zip")
        done = await write_dispute(store, settings, row, path, at_ms, with_metadata=with_metadata)
        show(dispute_document(row, done, path), as_json=as_json, draw=draw_line)
        exit_if_missing("reports", done.deliveries, Counter(map(pruned_note, done.pruned_at_ms)))

    with_store(settings, work)


def _moment_ms(text: str) -> int:
    from datetime import UTC, datetime

    try:
        parsed = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(
            f"{text!r} is no time such as 2026-11-21T12:00:00Z", param_hint="--made-at"
        ) from error
    if not ZIP_YEARS[0] <= parsed.year <= ZIP_YEARS[1]:
        text = f"{text!r} is not between {ZIP_YEARS[0]} and {ZIP_YEARS[1]}, which a .zip can say"
        raise typer.BadParameter(text, param_hint="--made-at")
    return round((parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp() * 1000)


DISPUTE_EXAMPLES = examples(
    "tallyhook dispute monday -o monday.zip",
    "python examples/verify_dispute.py monday.zip --secret-env CLORO_WEBHOOK_SECRET",
)
