"""Pausing, resuming and cancelling a run by hand: what its state allows, for commands and the API alike."""

from typing import TYPE_CHECKING

from app.domain.run_reason import BY_HAND
from app.domain.task import RunState

if TYPE_CHECKING:
    from app.store import Store
    from app.store.read.runs import RunRow

CANCELLED_BY_HAND = "cancelled by hand"


class NotAllowed(Exception):  # noqa: N818 - a state of the run; nothing has failed
    """The run's state does not allow it. `code` is for programs; the text goes on behind its name."""

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
