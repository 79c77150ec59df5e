"""Commands that change what a run may do: pause, resume, cancel, retry."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from app.cli.options import AsJson, RunArgument, examples, settings_for
from app.cli.runs.commands import with_store
from app.cli.streams import done
from app.domain.text import agreeing, counted
from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from app.domain.task import TaskState
    from app.store import Store
    from app.store.read.runs import RunRow

Restored = Annotated[
    bool,
    typer.Option(
        "--restored",
        help="The database is a restored backup, and there is no other copy of it: a key that the provider "
        "knows was sent by us after the backup.",
    ),
]


def pause(run: RunArgument, as_json: AsJson = False) -> None:
    """Send nothing more of RUN until it is resumed.

    What is on its way or with the provider goes on, is received and settled.
    """
    from app.cli.runs.choose import choose_run
    from app.cli.terminal import draw_line, show
    from app.services import control
    from app.views.runs import run_document

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        with _said_of(row):
            await control.pause(store, row)
        done(f"run {row.id} is paused")
        progress = await store.queries.progress(row.id)
        unsent = progress.states.get("pending", 0)
        out = progress.open - unsent
        document = {
            "run": run_document(await choose_run(store, row.id)),
            "unsent": unsent,
            "open": progress.open,
            "message": f"Run {row.name} is paused: {counted(unsent, 'task')} "
            f"{agreeing(unsent, 'waits', 'wait')} to be sent, "
            f"{out:,} {agreeing(out, 'is on its way', 'are on their way')} or with the provider and "
            f"{agreeing(out, 'goes', 'go')} on.",
        }
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


def resume(run: RunArgument, restored: Restored = False, as_json: AsJson = False) -> None:
    """Let a paused or stopped RUN go on.

    A run is paused by hand or when credits or its budget run out, and stopped when the provider refuses the
    API key, or knows a key that was never sent from here. Remove the cause first; what was sent before is not
    sent again. With --restored the run may be running, too.
    """
    from app.cli.runs.choose import choose_run
    from app.cli.runs.submit_file import wake_workers
    from app.cli.terminal import draw_line, show
    from app.services import control
    from app.views.runs import run_document

    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        row = await choose_run(store, run)
        with _said_of(row):
            await control.resume(store, row, restored=restored)
        done(f"run {row.id} goes on")
        woken = await wake_workers(settings)
        resumed = await choose_run(store, row.id)
        how = ", as one of a restored backup" if resumed.restored else ""
        message = f"Run {row.name} goes on{how}."
        document = {"run": run_document(resumed), "woken": woken, "message": message}
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings, work)


def cancel(run: RunArgument, as_json: AsJson = False) -> None:
    """Never send what RUN has not sent yet.

    What the provider has taken goes on, because it cannot be taken back task by task; its results are still
    received, settled and charged. A cancelled run cannot be resumed.
    """
    from app.cli.terminal import draw_line, show

    async def work(store: "Store") -> None:
        show(await cancelled(store, run), as_json=as_json, draw=draw_line)

    with_store(settings_for(log_level="warning"), work)


async def cancelled(store: "Store", run: str) -> dict[str, Any]:
    """Cancel a run; what became of its tasks. Raises UserError for one that is over."""
    from app.cli.runs.choose import choose_run
    from app.services import control
    from app.views.runs import run_document

    row = await choose_run(store, run)
    with _said_of(row):
        count = await control.cancel(store, row)
    done(f"run {row.id} is cancelled")
    count += await control.cancel_rest(store, row.id)
    progress = await store.queries.progress(row.id)
    message = f"Run {row.name} is cancelled: {counted(count, 'task')} will not be sent."
    if progress.open:
        one = "is running at the provider, or may be: it goes on, and is settled and charged as it ends"
        many = "are running at the provider, or may be: they go on, and are settled and charged as they end"
        message += f" {progress.open:,} {agreeing(progress.open, one, many)}."
    document = run_document(await choose_run(store, row.id))
    return {"run": document, "cancelled": count, "still_running": progress.open, "message": message}


def retry(
    run: RunArgument,
    state: Annotated[
        list[str] | None,
        typer.Option(help="Only tasks in this state: failed, expired or rejected; may be repeated."),
    ] = None,
    even_if_held: Annotated[
        bool,
        typer.Option("--even-if-held", help="Also where the old attempt may still be charged: pay twice."),
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Send failed, expired and rejected tasks of RUN again, each under a new key.

    A task whose old attempt may still be charged is left alone, because it would be paid for twice; so is one
    whose answer came after all. Where none is left to send, it says so and ends with 1, as pause, resume and
    cancel do.
    """
    from app.cli.runs.submit_file import wake_workers
    from app.cli.terminal import draw_line, show
    from app.domain.credits import to_json_number
    from app.domain.task import RETRYABLE_STATES, TaskState

    known = sorted(state.value for state in RETRYABLE_STATES)
    if wrong := [name for name in state or () if name not in known]:
        raise UserError(
            "bad_option", f"--state {wrong[0]} cannot be retried", f"use {', '.join(known)}", exit_code=USAGE
        )
    states = [TaskState(name) for name in state or known]
    settings = settings_for(log_level="warning")

    async def work(store: "Store") -> None:
        document = await retried(store, run, states, even_if_held=even_if_held)
        document["woken"] = bool(document["retried"]) and await wake_workers(settings)
        document["credits"] = {"estimate": to_json_number(document.pop("estimate"))}
        show(document, as_json=as_json, draw=draw_line)

    with_store(settings, work)


async def retried(
    store: "Store", run: str, states: Sequence["TaskState"], *, even_if_held: bool
) -> dict[str, Any]:
    """Retry the tasks of a run; how many, what they may cost, and which were left alone. Raises UserError."""
    from app.bootstrap import now_ms
    from app.cli.runs.choose import choose_run
    from app.domain.credits import to_json_number
    from app.services.retry import retry_run
    from app.views.runs import run_document

    row = await choose_run(store, run)
    if row.state in ("loading", "cancelled"):
        remedy = "submit FILE --resume RUN goes on with it" if row.state == "loading" else "submit it anew"
        raise UserError("not_retryable", f"run {row.name} is {row.state}", remedy)
    found = await retry_run(
        store,
        row.id,
        states,
        clock=now_ms,
        even_if_held=even_if_held,
        on_chunk=lambda count: done(f"{counted(count, 'task')} of run {row.id} {agreeing(count)} sent again"),
    )
    count, held = found.tasks, found.held
    left = _left_alone(held, found.answered)
    if not count:
        tasks = f"{', '.join(states[:-1])}{' or ' * bool(states[:-1])}{states[-1]}"
        raise UserError(
            "nothing_to_retry",
            f"no task of run {row.name} that is {tasks} can be sent again{': ' * bool(left)}{left}",
            "--even-if-held sends them all the same, and may pay twice" if held else "",
        )
    row = await choose_run(store, row.id)
    message = (
        f"{counted(count, 'task')} of {row.name} "
        f"{agreeing(count, 'is sent again under a new key; it', 'are sent again under new keys; they')} "
        f"may cost {counted(to_json_number(found.estimate), 'credit')} by our estimate."
    )
    message += f" {left}." if left else ""
    if row.state != "running":
        message += f" The run is {row.state}: {agreeing(count, 'it waits', 'they wait')} until it is resumed."
    return {
        "run": run_document(row),
        "retried": count,
        "estimate": found.estimate,
        "left_held": held,
        "left_answered": found.answered,
        "message": message,
    }


@contextlib.contextmanager
def _said_of(run: "RunRow") -> Iterator[None]:
    """What the run's state does not allow, as a UserError."""
    from app.services.control import NotAllowed

    try:
        yield
    except NotAllowed as error:
        raise UserError(error.code, f"run {run.name} {error}") from None


def _left_alone(held: int, answered: int) -> str:
    """Which tasks were not sent again, and why."""
    parts = []
    if held:
        parts.append(
            f"{held:,} {agreeing(held)} left alone, because the old attempt may still be charged "
            "(--even-if-held)"
        )
    if answered:
        parts.append(f"{answered:,} {agreeing(answered)} left alone, because an answer came late")
    return "; ".join(parts)


RETRY_EXAMPLES = examples("tallyhook retry latest", "tallyhook retry monday --state failed")
