"""Pausing, resuming and cancelling a run by hand, and sending one task again or never: what their states
allow, for commands and the API alike.
"""

from typing import TYPE_CHECKING

from app.domain.bulk_change import Aim, Figures, Verb
from app.domain.run_reason import BY_HAND
from app.domain.task import RunState
from app.domain.task_filter import TaskFilter

if TYPE_CHECKING:
    from app.store import Store
    from app.store.read.runs import RunRow

CANCELLED_BY_HAND = "cancelled by hand"


class NotAllowed(Exception):  # noqa: N818 - a state of the run; nothing has failed
    """The state of a run or a task does not allow it. `code` is for programs; the text goes on behind its
    name."""

    def __init__(self, code: str, what: str) -> None:
        super().__init__(what)
        self.code = code


async def pause(store: "Store", run: "RunRow") -> None:
    """Send nothing more of a running run until it is resumed. Raises NotAllowed."""
    if not await store.runs.halt_run_if_running(run.id, RunState.PAUSED, BY_HAND):
        raise NotAllowed("not_running", f"is {run.state}, not running")


async def resume(store: "Store", run: "RunRow", *, restored: bool = False) -> None:
    """Let a paused or stopped run go on; a `restored` one may be running. Raises NotAllowed."""
    goes_on = store.runs.resume_restored_run if restored else store.runs.resume_run_if_halted
    if not await goes_on(run.id):
        what = "over, or not loaded yet" if restored else "neither paused nor stopped"
        raise NotAllowed("not_halted", f"is {run.state}, {what}")


async def cancel(store: "Store", run: "RunRow") -> int:
    """Never send what was not sent yet; how many tasks those are. Raises NotAllowed for a run that is over.
    To be done once more, by `cancel_rest`."""
    is_over = run.state != RunState.LOADING and (await store.queries.progress(run.id)).open == 0
    if run.state == RunState.CANCELLED or is_over:
        over = "cancelled already" if run.state == RunState.CANCELLED else "finished"
        raise NotAllowed("not_open", f"is {over}; there is nothing to cancel")
    return await store.runs.cancel_run(run.id, CANCELLED_BY_HAND)


async def cancel_rest(store: "Store", run_id: str) -> int:
    """What a sender gave back while the run was being cancelled."""
    return await store.runs.cancel_run(run_id, CANCELLED_BY_HAND)


async def retry_task(
    store: "Store", run_id: str, ordinal: int, *, now_ms: int, even_if_held: bool = False
) -> Figures:
    """Send one task again under a new key. Raises NotAllowed, also where it may be paid for twice."""
    aim = Aim(Verb.RETRY, TaskFilter(), even_if_held)
    done = await store.bulk_changes.change_task(aim, run_id, ordinal, now_ms)
    if done.left_held:
        raise NotAllowed(
            "may_be_charged", "may still be charged for its last attempt: even_if_held pays twice"
        )
    if done.left_answered:
        raise NotAllowed("answered", "was answered late: there is nothing to send again")
    if not done.matched:
        raise NotAllowed("not_retryable", "is not failed, expired or rejected, or its run is over or loading")
    return done


async def cancel_task(store: "Store", run_id: str, ordinal: int, *, now_ms: int) -> Figures:
    """Never send one task. Raises NotAllowed for one that the provider has, or may have."""
    done = await store.bulk_changes.change_task(Aim(Verb.CANCEL, TaskFilter()), run_id, ordinal, now_ms)
    if done.left_held:
        raise NotAllowed("sent", "is with the provider, or may be: it goes on, and is settled as it ends")
    if not done.matched:
        raise NotAllowed("not_open", "is over, or its run is over or loading: there is nothing to cancel")
    return done
