"""`tallyhook migrate`, and the migration that a process does before it starts."""

import os
import re
import signal
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated

import typer

from app.cli.options import AsJson, settings_for
from app.cli.streams import done
from app.stop_signals import ending_signals

if TYPE_CHECKING:
    from app.config import Settings

OF_A_RUNNER = re.compile(r"[\w-]+\.\d+")
"""How runners of a Procfile name a process: release.1."""


def migrate(
    finish: Annotated[
        bool,
        typer.Option(
            "--finish",
            help="Also do what the version before could not live with: when none of its processes is left.",
        ),
    ] = False,
    procfile: Annotated[
        bool,
        typer.Option(
            "--procfile",
            help="As a line of a Procfile: where a runner such as honcho ends all processes when one ends, "
            "wait to be ended.",
        ),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Bring the database to the schema that this version needs.

    For DATABASE_URL, as a release step before web and worker are started; several at once do no harm. With
    DATABASE_DIRECT_URL it goes there instead, past a pooler, to the same database. The embedded
    SQLite file is migrated by whichever command comes first. `tallyhook doctor` says when --finish is due.
    """
    import asyncio

    from app.cli.terminal import announce_line, draw_line, show

    settings = past_the_pooler(settings_for(log_level="warning"))
    show(asyncio.run(migrated(settings, finished=finish)), as_json=as_json, draw=draw_line)
    if procfile and is_under_runner(os.environ):
        announce_line("Waiting for the end of the others: who runs this Procfile ends all when one ends.")
        wait_for_end()


def past_the_pooler(settings: "Settings") -> "Settings":
    """A migration may wait longer for its locks than a pooler lets a client wait."""
    if not (settings.database_url and settings.database_direct_url):
        return settings
    return settings.model_copy(update={"database_url": settings.database_direct_url})


def is_under_runner(environment: Mapping[str, str]) -> bool:
    """Whether honcho (HONCHO_PROCESS_NAME), foreman or one like it (PS) has started us beside others. On
    Heroku, which has had PS too, DYNO is set, and a release phase must end."""
    if environment.get("DYNO"):
        return False
    named = environment.get("HONCHO_PROCESS_NAME") or environment.get("PS", "")
    return OF_A_RUNNER.fullmatch(named) is not None


def wait_for_end() -> None:
    """Until a signal, which is an orderly end."""

    def end(_number: int, _frame: object) -> None:
        raise SystemExit(0)

    for number in ending_signals():
        signal.signal(number, end)
    while True:
        signal.pause()


async def bring_to_schema(settings: "Settings") -> None:
    """Migrate a database of the user's own before a process starts on it; those that do so at the same time
    wait for one another. Raises UserError."""
    from app.cli.store_access import reachable_store, upgrade

    if not settings.database_url:
        return  # the embedded one is migrated by whoever opens it
    settings = past_the_pooler(settings)
    store = await reachable_store(settings)
    try:
        await upgrade(store, settings)
    finally:
        await store.close()


async def migrated(settings: "Settings", *, finished: bool = False) -> dict[str, object]:
    """Migrate, and finish it where that is asked; from which revision to which, and which steps were done."""
    from app.cli.store_access import answered, display_url, reachable_store, upgrade
    from app.store.finish import finish

    store = await reachable_store(settings)
    try:
        before = await answered(store.queries.schema_revision(), settings)
        await upgrade(store, settings)
        done("every table is as this version needs it")
        after = await answered(store.queries.schema_revision(), settings)
        steps = [step.name for step in await answered(finish(store.db), settings)] if finished else []
    finally:
        await store.close()
    what = "was already at" if before == after else "is now at"
    message = f"{display_url(settings)} {what} revision {after}."
    if finished:
        message += f" Finished: {'; '.join(steps) or 'nothing was left to do'}."
    return {
        "database": display_url(settings),
        "from": before,
        "to": after,
        "finished": steps,
        "message": message,
    }
