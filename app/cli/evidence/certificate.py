"""The command certificate: inputs, ends, sums and hashes of a run, and whether it is complete."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, RunArgument, examples, settings_for
from app.cli.runs.commands import with_store
from app.errors import FAILED

if TYPE_CHECKING:
    from app.store import Store


def certificate(
    run: RunArgument = "latest",
    output: Annotated[
        str, typer.Option("--output", "-o", metavar="FILE", help="File to write. Default: standard output.")
    ] = "",
    as_json: AsJson = False,
) -> None:
    """Certify RUN: what went in, how each prompt ended, what it cost, with hashes of all of it.

    It says in one sentence whether the run is complete. Ends with 0 when it is, and with 1 when it is not.
    """
    from app.bootstrap import now_ms
    from app.cli.runs.choose import choose_run
    from app.cli.terminal import write_json, write_text
    from app.domain.evidence.completeness import certificate_text
    from app.domain.text import json_text, sanitize
    from app.files.atomic_file import atomic_file
    from app.services.certify import certify

    complete = False

    async def work(store: "Store") -> None:
        nonlocal complete
        row = await choose_run(store, run)
        document = await certify(store, row.id, clock=now_ms)
        complete = document["complete"]
        if as_json and not output:
            write_json(document)
            return
        text = sanitize(certificate_text(document))
        if as_json:
            text = json_text(document, "utf-8", indent=2) + "\n"
        if not output:
            write_text(text)
            return
        with atomic_file(Path(output)) as file:
            file.write(text.encode())
        write_text(f"{document['statement']}\n")

    with_store(settings_for(log_level="warning"), work)
    if not complete:
        raise typer.Exit(FAILED)


CERTIFICATE_EXAMPLES = examples(
    "tallyhook certificate monday", "tallyhook certificate monday --json -o monday.json && echo complete"
)
