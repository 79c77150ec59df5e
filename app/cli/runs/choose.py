"""Which run a person means: by name, id, the beginning or end of an id, or `latest`, the newest that has sent
something or will."""

from typing import TYPE_CHECKING

from app.errors import USAGE, UserError

if TYPE_CHECKING:
    from app.store import Store
    from app.store.read.runs import RunRow

LATEST = "latest"
CANDIDATES_MAX = 10
SHORT_ID_CHARS = 8
"""Of the end of a run's id, where it is shown to be typed again."""


async def choose_run(store: "Store", wanted: str) -> "RunRow":
    """The one run that is meant. Raises UserError, with candidates, when there is none or more than one."""
    if wanted == LATEST:
        latest = await store.queries.latest_run()
        if latest is None:
            raise await _no_latest(store)
        return latest
    if not wanted:
        raise UserError(
            "run_not_found", "no name or id was given", "tallyhook runs lists them", exit_code=USAGE
        )
    found = await store.queries.find_runs(wanted)
    exact = [run for run in found if run.id == wanted.lower()]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if not found:
        raise UserError(
            "run_not_found",
            f"no run has the name {wanted!r} or an id that begins or ends with it",
            "tallyhook runs lists them; four characters of an id are enough",
            details=[shown_run(run) for run in await store.queries.list_runs(CANDIDATES_MAX)],
        )
    raise UserError(
        "run_ambiguous",
        f"{len(found)} runs fit {wanted!r}",
        "give more of the id",
        details=[shown_run(run) for run in found[:CANDIDATES_MAX]],
    )


async def choose_loading_run(store: "Store", wanted: str, source: str) -> "RunRow":
    """The run to go on with reading: as choose_run, but `latest` is the newest one that was not read to its
    end, of `source` first."""
    if wanted != LATEST:
        return await choose_run(store, wanted)
    interrupted = await store.queries.loading_run(source)
    if interrupted is None:
        remedy = "submit it without --resume; or name the run, to compare it with the file"
        raise UserError("run_not_found", "no run was interrupted while it was read", remedy)
    return interrupted


async def _no_latest(store: "Store") -> UserError:
    loading = await store.queries.loading_run("")
    if loading is None:
        return UserError("run_not_found", "there is no run yet", "tallyhook submit FILE makes one")
    return UserError(
        "run_not_found",
        f"no run has sent anything yet: {loading.name} is still being read, or was interrupted",
        f"tallyhook submit FILE --resume {loading.id[-SHORT_ID_CHARS:]} goes on with it",
    )


def shown_run(run: "RunRow") -> dict[str, object]:
    """A run as one to choose from."""
    return {"id": run.id, "name": run.name, "state": str(run.state)}
