"""The commands of schedules: a prompt file that runs every so often."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, WebhookSecretFile, WebhookUrl, settings_for, takes_run_options
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from rich.console import Console

    from app.domain.relay.message import NewEndpoint
    from app.run_options import RunOptions
    from app.store import Store
    from app.store.write.schedules import ScheduleRow
    from app.views.runs import Document

EVERY_MIN_MS = 60_000

schedule = typer.Typer(
    help="Run a prompt file every so often. Workers start the runs, each slot once.",
    no_args_is_help=True,
    context_settings={"help_option_names": ["-h", "--help"]},
)
Name = Annotated[str, typer.Argument(metavar="SCHEDULE", help="Name of a schedule.")]


@schedule.command()
@takes_run_options
def add(
    file: Annotated[str, typer.Argument(metavar="FILE", help="CSV or JSONL, where the workers can read it.")],
    every: Annotated[str, typer.Option(metavar="TIME", help="How often, such as 90m, 6h, 1d or 2h30m.")],
    name: Annotated[str, typer.Option(help="Name of the schedule; default: the file's name.")] = "",
    *,
    options: "RunOptions",
    webhook_url: WebhookUrl = "",
    webhook_secret_file: WebhookSecretFile = None,
    as_json: AsJson = False,
) -> None:
    """Run FILE every TIME, from now on, each time as a run of its own.

    The file is read anew for each run. Of the slots that come while no worker runs, only the latest is run.
    """
    from app.cli.runs.prompt_file import refuse_if_not_a_file
    from app.cli.runs.submit_file import printable_stem
    from app.cli.terminal import show
    from app.relay_options import endpoint_option
    from app.run_options import refuse_not_utf8, refuse_unknown_account, refuse_unusable_name
    from app.views.schedules import schedule_document

    settings = settings_for(log_level="warning")
    path = Path(file).absolute()
    every_ms = parse_every(every)
    refuse_if_not_a_file(path)
    refuse_unknown_account(settings, options.account)
    wanted = name or printable_stem(path)
    refuse_unusable_name("--name", wanted)
    refuse_not_utf8(str(path))
    options = replace(options, webhook_url=webhook_url)
    push_to = endpoint_option(webhook_url, webhook_secret_file, settings)
    refuse_wrong_options(options, path)

    async def work(store: "Store") -> None:
        await _add_schedule(store, wanted, path, options, every_ms, push_to)
        document = schedule_document(await choose_schedule(store, wanted))
        document["message"] = (
            f"{path.name} runs every {document['every']}, beginning as soon as a worker runs."
        )
        document["webhook"] = await _webhook(store, options.account, push_to)
        show(document, as_json=as_json, draw=draw_added)

    with_store(settings, work)


async def _add_schedule(
    store: "Store", name: str, path: Path, options: "RunOptions", every_ms: int, push_to: "NewEndpoint | None"
) -> None:
    """Store it, its first slot now. Raises UserError for a name that is taken."""
    from app.bootstrap import now_ms

    now = now_ms()
    schedule_id = await store.schedules.add_schedule(
        name=name,
        source=str(path),
        options=options.to_json(),
        every_ms=every_ms,
        next_at_ms=now,
        now_ms=now,
        push_to=None if push_to is None else (options.account, push_to),
    )
    if schedule_id is None:
        raise UserError("schedule_exists", f"there is a schedule {name!r} already", "give another --name")
    done(f"schedule {name} is stored")


async def _webhook(store: "Store", account: str, push_to: "NewEndpoint | None") -> "Document | None":
    """Where its runs' results are pushed to; of a new URL with the secret, told this once."""
    if push_to is None:
        return None
    is_new = await store.relay.secret_of_url(account, push_to.url) == push_to.secret
    told = push_to.secret if is_new and not push_to.is_secret_given else None
    return {"url": push_to.url, "secret": told, "secret_given": push_to.is_secret_given}


def draw_added(output: "Console", document: "Document") -> None:
    """What was stored, and the secret that is told this once."""
    from app.cli.runs.draw import draw_webhook
    from app.cli.terminal import draw_line

    draw_line(output, document)
    if document["webhook"] is not None:
        draw_webhook(output, document["webhook"])


@schedule.command("list")
def list_(as_json: AsJson = False) -> None:
    """List the schedules, with what went wrong at their last slot."""
    from app.cli.terminal import show
    from app.views.schedules import schedule_document

    async def work(store: "Store") -> None:
        found = [schedule_document(row) for row in await store.schedules.list_schedules()]
        show({"schedules": found}, as_json=as_json, draw=draw_schedules)

    with_store(settings_for(log_level="warning"), work)


@schedule.command()
def remove(name: Name, as_json: AsJson = False) -> None:
    """Forget SCHEDULE. Its runs stay, and those that have begun go on."""
    from app.cli.terminal import draw_line, show
    from app.views.schedules import schedule_document

    async def work(store: "Store") -> None:
        row = await choose_schedule(store, name)
        await store.schedules.remove_schedule(row.id)
        done(f"schedule {row.name} is removed")
        document = schedule_document(row) | {"message": f"Schedule {row.name} is removed; its runs stay."}
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


@schedule.command()
def pause(name: Name, as_json: AsJson = False) -> None:
    """Start no runs of SCHEDULE until it is resumed. Runs that have begun go on."""
    _enable(name, enabled=False, as_json=as_json)


@schedule.command()
def resume(name: Name, as_json: AsJson = False) -> None:
    """Let SCHEDULE go on, with its next slot to come; what came meanwhile is not caught up on."""
    _enable(name, enabled=True, as_json=as_json)


def _enable(name: str, *, enabled: bool, as_json: bool) -> None:
    from app.cli.terminal import draw_line, show
    from app.views.schedules import schedule_document

    async def work(store: "Store") -> None:
        from app.bootstrap import now_ms
        from app.domain.schedule_slots import next_slot

        row = await choose_schedule(store, name)
        if row.enabled == enabled:
            raise UserError(
                "unchanged", f"schedule {row.name} is {'not paused' if enabled else 'paused already'}"
            )
        next_ms = next_slot(row.next_at_ms, row.every_ms, now_ms()) if enabled else row.next_at_ms
        await store.schedules.enable_schedule(row.id, enabled=enabled, next_at_ms=next_ms)
        done(f"schedule {row.name} {'goes on' if enabled else 'is paused'}")
        document = schedule_document(await choose_schedule(store, name))
        then = f"goes on at {document['next_at']}" if enabled else "is paused"
        show(document | {"message": f"Schedule {row.name} {then}."}, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


def draw_schedules(output: "Console", document: "Document") -> None:
    """One line for each schedule, and under it what went wrong last."""
    from rich.markup import escape

    from app.cli.terminal import second, table

    if not document["schedules"]:
        output.print("No schedule yet. tallyhook schedule add FILE --every 6h makes one.")
        return
    rows = table("name", "every", "state", "next", "file", "last trouble")
    for row in document["schedules"]:
        rows.add_row(
            escape(row["name"]),
            row["every"],
            row["state"],
            second(row["next_at"]),
            escape(row["source"]),
            escape(row["last_error"] or ""),
        )
    output.print(rows)


async def choose_schedule(store: "Store", name: str) -> "ScheduleRow":
    """The schedule of that name. Raises UserError, with the names there are."""
    known = await store.schedules.list_schedules()
    for row in known:
        if row.name == name:
            return row
    raise UserError(
        "schedule_not_found",
        f"there is no schedule {name!r}",
        "tallyhook schedule list shows them",
        details=[row.name for row in known],
    )


def parse_every(text: str) -> int:
    """Milliseconds between two slots. Raises UserError."""
    from app.run_options import duration_option

    every_ms = duration_option("--every", text) or 0
    if every_ms < EVERY_MIN_MS:
        raise UserError("bad_option", f"--every {text!r} is less than a minute", exit_code=USAGE)
    return every_ms


def refuse_wrong_options(options: "RunOptions", path: Path) -> None:
    """Raises UserError now for what would fail at each slot."""
    from app.prompts.reader import read_prompts

    options.new_run("", str(path))
    try:
        read_prompts(path, options.defaults(), options.reading())
    except ValueError as error:
        raise UserError("bad_option", str(error), exit_code=USAGE) from error
