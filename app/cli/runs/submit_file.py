"""From a file of prompts to a run that workers may send: what `submit` and `demo` share."""

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.markup import escape

from app.address import read_redis_address
from app.bootstrap import now_ms, open_queue
from app.cli.runs.choose import CANDIDATES_MAX, SHORT_ID_CHARS, shown_run
from app.cli.runs.prompt_file import refuse_if_not_a_file
from app.cli.store_access import trouble
from app.cli.streams import done
from app.cli.terminal import error_console
from app.config import Settings
from app.domain.source_change import SourceChanged
from app.domain.task import RunState
from app.domain.text import agreeing, counted, sanitize
from app.errors import USAGE, UserError, interrupted
from app.local.embedded import is_valkey_used, running_valkey
from app.ports import NameTaken
from app.prompts.reader import AS_IT_SAYS, DamagedError, Defaults, PromptReader, Reading, read_prompts
from app.services.load import Duplicates, Loaded, NewRun, load_run
from app.store import Store
from app.views.runs import Document
from app.views.submitted import bad_line_document, submitted_document, webhook_document
from app.views.workers import START_WORKER, workers_document

STEM_CHARS_MAX = 100
"""Of a file's name in the name of a run."""
OWN_SHOWN = 8


async def submit_file(
    store: Store,
    settings: Settings,
    path: Path | None,
    defaults: Defaults,
    new: NewRun,
    *,
    reading: Reading = AS_IT_SAYS,
    progress: Callable[[int], None] = lambda _: None,
    resume: str | None = None,
) -> Document:
    """Store the prompts of `path` (None: standard input) as a run and wake the workers; what was done.

    `resume`: the id of a run that was made from the same source; what it lacks is added. Raises UserError
    when nothing of it will be sent, with every bad line that was kept.
    """
    refuse_if_not_a_file(path)
    try:
        reader = read_prompts(path, defaults, reading)
    except ValueError as error:
        raise UserError("bad_option", str(error), exit_code=USAGE) from error
    unread = [] if resume or path is None else await store.loading.loading_runs(new.source)
    try:
        loaded = await _load(store, reader, new, progress=progress, resume=resume)
    finally:
        # Also of a file that is refused, for this may be why.
        if reader.remark:
            error_console().print(escape(reader.remark))
    refuse_if_not_started(loaded, new)
    done(stored(loaded.run_id))
    run = next(row for row in await store.queries.find_runs(loaded.run_id) if row.id == loaded.run_id)
    woken = await wake_workers(settings)
    worker = await seen_workers(store)
    steps = next_steps(loaded.run_id, settings, worker, woken=woken)
    hints = (resume_hint(run_id) for run_id in unread)
    own = reader.own_columns
    secret = await told_secret(store, loaded.run_id, new)
    then = [*what_became(loaded, new), *kept_columns(own), *steps, *hints]
    return submitted_document(
        run,
        loaded,
        own_columns=own,
        woken=woken,
        worker=worker,
        next_steps=then,
        read_as=reader.remark,
        webhook=webhook_document(new, secret),
    )


async def told_secret(store: Store, run_id: str, new: NewRun) -> str | None:
    """The secret that was made for a URL that had none; None: there is nothing new to tell."""
    if new.push_to is None or new.push_to.is_secret_given:
        return None
    secret = await store.relay.secret_of_run(run_id)
    return secret if secret == new.push_to.secret else None


async def _load(
    store: Store, reader: PromptReader, new: NewRun, *, progress: Callable[[int], None], resume: str | None
) -> Loaded:
    """Read the source into the database. Raises UserError, and reports what of it is stored all the same."""
    begun: list[str] = []
    try:
        return await load_run(
            store,
            reader,
            new,
            sha256=lambda: reader.sha256,
            clock=now_ms,
            progress=progress,
            created=begun.append,
            resume=resume,
        )
    except DamagedError as error:
        if begun and not resume:
            # No other reading of it can be gone on with.
            await store.runs.discard_run(begun[0])
        raise UserError(
            "unreadable", f"cannot read {new.source}: {error.strerror}", error.remedy, exit_code=USAGE
        ) from error
    except OSError as error:
        reason, remedy = error.strerror or str(error), _resume_remedy(begun)
        message = f"cannot read {new.source}: {reason}"
        raise UserError("unreadable", message, remedy, exit_code=USAGE) from error
    except SourceChanged as change:
        raise source_changed(change, new.source) from change
    except NameTaken:
        raise await name_taken(store, new.name) from None
    except asyncio.CancelledError:
        what = f"not all of {new.source} is stored, and nothing of it is sent"
        raise interrupted(what, _resume_remedy(begun)) from None
    except trouble():
        # Perhaps even whole, if only the database's last word was lost.
        for run_id in begun:
            done(
                f"run {run_id} is stored in part: submit the file with --resume {run_id}, and nothing of "
                "it is stored twice"
            )
        raise


def _resume_remedy(begun: list[str]) -> str:
    """What to do after reading broke off; `begun`: the run that has some of it, if any."""
    if not begun:
        return "no run was made of it: submit it anew"
    short = begun[0][-SHORT_ID_CHARS:]
    return f"submit FILE --resume {short} goes on with it, cancel {short} gives it up"


async def name_taken(store: Store, name: str) -> UserError:
    """What to say of a name that another run has."""
    runs = await store.queries.find_runs(name)
    loading = next((run for run in runs if run.state == RunState.LOADING), None)
    remedy = "give another --name, or add --again for one more run of this name"
    if loading is not None:
        remedy += f"; submit FILE --resume {loading.id[-SHORT_ID_CHARS:]} goes on with what was interrupted"
    details = [shown_run(run) for run in runs[:CANDIDATES_MAX]]
    message = f"there is a run of the name {name!r} already; nothing is stored"
    return UserError("name_taken", message, remedy, details=details, exit_code=USAGE)


async def free_name(store: Store, wanted: str) -> str:
    """A default name that no run has: two files of one name may be submitted in one second."""
    name, number = wanted, 1
    while await store.queries.find_runs(name):
        number += 1
        name = f"{wanted}-{number}"
    return name


def stored(run_id: str) -> str:
    """About a run that its workers have from now on."""
    return (
        f"run {run_id} is stored and will be sent; do not submit it again. tallyhook watch "
        f"{run_id[-SHORT_ID_CHARS:]} follows it"
    )


def source_changed(change: SourceChanged, source: str) -> UserError:
    """What to say when a run is to be resumed from a source that it was not made from."""
    return UserError(
        "source_changed",
        f"{source} is not what the run was made from: {change}",
        "give the file and the options as they were, or submit it without --resume as a run of its own",
    )


def what_became(loaded: Loaded, new: NewRun) -> list[str]:
    """What happened to records that are not simply sent."""
    notes = []
    if loaded.resumed_after:
        notes.append(f"resumed after record {loaded.resumed_record}; what was stored is what the file says")
    if loaded.repeated:
        what = f"{counted(loaded.repeated, 'record')} {agreeing(loaded.repeated, 'asks', 'ask')}"
        notes.append(
            f"{what} for several samples: {counted(loaded.samples, 'task')}, each asked and paid for"
        )
    if loaded.duplicates:
        merged = new.duplicates is Duplicates.MERGE
        what = "left out" if merged else "kept, each a task of its own (--duplicates merge leaves them out)"
        notes.append(
            f"{counted(loaded.duplicates, 'record')} "
            f"{agreeing(loaded.duplicates, 'repeats', 'repeat')} an earlier one: {what}"
        )
    if loaded.reused:
        one, many = "is answered from an equal, recent result", "are answered from equal, recent results"
        costs = agreeing(loaded.reused, f"{one} and costs", f"{many} and cost")
        notes.append(f"{loaded.reused:,} {costs} nothing")
    return notes


def kept_columns(own: Sequence[str]) -> list[str]:
    """What happened to columns that are not ours: whoever meant one of ours must see it."""
    if not own:
        return []
    more = f" and {len(own) - OWN_SHOWN} more" if len(own) > OWN_SHOWN else ""
    return [f"columns of your own, kept with each task and not sent: {', '.join(own[:OWN_SHOWN])}{more}"]


def resume_hint(run_id: str) -> str:
    """About a run of the same file whose reading did not come to its end."""
    short = run_id[-SHORT_ID_CHARS:]
    return (
        f"run {short} of the same file is still being read, or was interrupted: submit FILE --resume {short} "
        f"goes on with it, cancel {short} gives it up; this is a run of its own"
    )


def refuse_if_not_started(loaded: Loaded, new: NewRun) -> None:
    """Raises UserError when the run was not let to begin."""
    if loaded.started:
        return
    bad = [bad_line_document(remark) for remark in loaded.bad.kept]
    if loaded.bad_lines and new.strict:
        remedy = "correct them, or leave out --strict to send the rest"
        raise UserError(
            "bad_lines",
            f"{new.source} has {loaded.bad_lines} bad lines; nothing is sent",
            remedy,
            details=bad,
        )
    if loaded.duplicates_named:
        raise UserError(
            "duplicates",
            f"{new.source} has {counted(loaded.duplicates, 'record')} that "
            f"{agreeing(loaded.duplicates, 'repeats', 'repeat')} an earlier one; nothing is sent",
            "take them out, or leave out --duplicates error",
            details=[f"record {n} repeats record {first}" for n, first in loaded.duplicates_named],
        )
    if loaded.tasks:
        raise UserError("cancelled", f"run {loaded.run_id} was cancelled; nothing of it is sent")
    remedy = "correct that; tallyhook submit --help says what a file needs"
    raise UserError("no_prompts", f"{new.source} has no prompt that can be sent", remedy, details=bad)


def default_name(path: Path | None, at_ms: int) -> str:
    """The file's name and the second: a file submitted twice makes two runs that can be distinguished."""
    stem = printable_stem(path) if path is not None else "stdin"
    return f"{stem}-{datetime.fromtimestamp(at_ms / 1000, UTC):%Y%m%d-%H%M%S}"


def printable_stem(path: Path) -> str:
    """The file's name without its endings, as it may be shown anywhere."""
    plain = path.stem if path.suffix.lower() != ".gz" else Path(path.stem).stem
    return " ".join(sanitize(plain).split())[:STEM_CHARS_MAX]


async def wake_workers(settings: Settings) -> bool:
    """Tell the workers that there is something to send; False when no queue was reached. Then the next
    sweep of a worker finds it."""
    url = running_valkey(settings)
    if url is None:
        return False
    try:
        queue = open_queue(url, settings)
        queue.is_logged = False
        try:
            is_woken = await queue.wake_submit()
            if settings.redis_url and not is_woken:
                _say_not_reached(settings.redis_url, queue.trouble.rstrip("."))
            return is_woken
        finally:
            await queue.close()
    except Exception:
        # Whatever is wrong with the queue: what was stored is stored, and the caller must hear of that.
        return False


def _say_not_reached(url: str, trouble: str) -> None:
    """On standard error: what was asked for is done, and only its speed is at stake."""
    address = escape(read_redis_address(url).display)
    error_console().print(
        f"[yellow]Warning:[/yellow] Redis at {address} was not reached ({escape(trouble)}): check REDIS_URL; "
        "tallyhook doctor looks at it. Nothing is lost: a worker finds what there is to send within seconds."
    )


async def seen_workers(store: Store) -> Document | None:
    """None: the database does not tell. What was stored is stored, and the caller must hear of that."""
    try:
        return await workers_document(store)
    except Exception:
        return None


def next_steps(run_id: str, settings: Settings, worker: Document | None, *, woken: bool) -> list[str]:
    """What to do now. `worker`: as workers_document has it."""
    steps = [f"tallyhook watch {run_id[-SHORT_ID_CHARS:]}   follows it; closing this terminal stops nothing"]
    if worker is not None and not worker["running"]:
        steps.append(f"{worker['message']}: {START_WORKER}; nothing is sent before")
    if not woken and not settings.redis_url and is_valkey_used(settings):
        steps.append(
            "the embedded Valkey does not answer; web and worker start it again, and a worker that runs "
            "finds the run within seconds by itself"
        )
    elif not woken and settings.redis_url:
        steps.append(
            "Redis was not reached: check REDIS_URL; a worker finds the run within seconds by itself"
        )
    elif not woken and (worker is None or worker["running"]):
        steps.append("the queue was not reached; a worker that runs finds the run within seconds by itself")
    return steps
