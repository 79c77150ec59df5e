"""The command submit: a file becomes a run."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, WebhookSecretFile, WebhookUrl, examples, settings_for, takes_run_options
from app.cli.runs.commands import exit_if_halted, with_store
from app.errors import STORED, USAGE, UserError

if TYPE_CHECKING:
    from app.run_options import RunOptions
    from app.store import Store
    from app.views.runs import Document


PromptFile = Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSONL, also gzip; - reads stdin.")]
NewName = Annotated[
    str | None, typer.Option(help="Name of the run, new.", show_default="the file's name and the time")
]
Resumed = Annotated[
    str | None,
    typer.Option(
        metavar="RUN",
        help="Go on with RUN, whose submit of this file was interrupted, or with the [b]latest[/b] such.",
    ),
]


@takes_run_options
def submit(
    file: PromptFile,
    name: NewName = None,
    again: Annotated[bool, typer.Option("--again", help="Another run may have the --name already.")] = False,
    *,
    options: "RunOptions",
    resume: Resumed = None,
    webhook_url: WebhookUrl = "",
    webhook_secret_file: WebhookSecretFile = None,
    watch: Annotated[bool, typer.Option("--watch", help="Stay and show the progress.")] = False,
    as_json: AsJson = False,
) -> None:
    """Store the prompts of FILE as a run; workers send them.

    CSV needs a header row with the column prompt (or query); task_type, country, priority, include, state,
    pages and the like are optional and override the options below. Bad lines are reported with the remedy;
    the rest goes on. The command may end, or the terminal be closed: the run does not need it.

    The same file again is a run of its own. A file that is refused leaves no run behind; where reading it was
    interrupted, --resume goes on: nothing is stored twice, and a file that changed since is refused.

    Ends with 0 once the run is stored, also where its output cannot be written: standard error then names the
    run. 3: the run is stored, but --watch saw it halt or could not go on; 1 and 2: nothing will be sent. So
    whoever tries again after 1 or 2 pays nothing twice.
    """
    from app.bootstrap import now_ms
    from app.cli.runs.choose import choose_loading_run
    from app.cli.runs.draw import draw_submitted
    from app.cli.runs.submit_file import default_name, free_name, submit_file
    from app.cli.terminal import show
    from app.relay_options import endpoint_option
    from app.run_options import refuse_not_utf8, refuse_unknown_account, refuse_unusable_name

    settings = settings_for(log_level="warning")
    refuse_unknown_account(settings, options.account)
    if name is not None:
        refuse_unusable_name("--name", name)
    elif again:
        raise UserError("bad_option", "--again goes with --name", "name the run", exit_code=USAGE)
    if resume is not None:
        refuse_with_resume(name, options, webhook_url)
    push_to = endpoint_option(webhook_url, webhook_secret_file, settings)
    path = None if file == "-" else Path(file)
    refuse_not_utf8(str(path.absolute()) if path else "")

    async def work(store: "Store") -> None:
        source = file if path is None else str(path.absolute())
        own_name = name or await free_name(store, default_name(path, now_ms()))
        new = replace(options.new_run(own_name, source), is_name_new=not again, push_to=push_to)
        resumed = None if resume is None else (await choose_loading_run(store, resume, source)).id
        document = await submit_file(
            store, settings, path, options.defaults(), new, reading=options.reading(), resume=resumed
        )
        if watch:
            await _watch_submitted(store, document, as_json=as_json)
        else:
            show(document, as_json=as_json, draw=draw_submitted)

    with_store(settings, work)


async def _watch_submitted(store: "Store", document: "Document", *, as_json: bool) -> None:
    """Follow the stored run; as JSON its end and its status are one document."""
    from app.cli.runs.draw import draw_status, draw_submitted
    from app.cli.runs.watch import follow
    from app.cli.terminal import show
    from app.views.runs import status_document

    if not as_json:
        show(document, as_json=False, draw=draw_submitted)
    run, progress = await follow(store, document["run"]["id"])
    document["status"] = status_document(run, progress)
    show(document if as_json else document["status"], as_json=as_json, draw=draw_status)
    # Not 1: who then tries again would pay twice.
    exit_if_halted(run, progress, code=STORED)


def refuse_with_resume(name: str | None, options: "RunOptions", webhook_url: str) -> None:
    """Raises UserError for an option that belongs to the run, which is there already."""
    given = {
        "--name": name,
        "--budget": options.budget,
        "--batch": options.batch,
        "--reuse-within": options.reuse_within,
        "--pause-failing-engines": options.pause_failing_engines,
        "--webhook-url": webhook_url,
        "--account": options.account.removeprefix("default"),
    }
    if wrong := [option for option, value in given.items() if value]:
        raise UserError(
            "bad_option",
            f"{', '.join(wrong)} belongs to the run and cannot be given with --resume",
            "leave it out; the options for lines that name none must be given as before",
            exit_code=USAGE,
        )


SUBMIT_EXAMPLES = examples(
    "tallyhook submit prompts.csv --budget 5000 --watch",
    "tallyhook submit prompts.jsonl --task-type CHATGPT --country DE --include markdown",
    "cat prompts.csv | tallyhook submit - --name monday --strict --json",
    "tallyhook submit prompts.csv --name monday --again",
    "tallyhook submit prompts.csv --reuse-within 24h --duplicates merge",
    "tallyhook submit prompts.csv --webhook-url https://example.com/results",
    "tallyhook submit prompts.csv --resume latest",
)
