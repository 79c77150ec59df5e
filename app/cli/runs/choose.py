"""Which run a person means: by name, id, the beginning or end of an id, or `latest`."""

from typing import TYPE_CHECKING

from app.errors import UserError
from app.store.read.runs import RunRow

if TYPE_CHECKING:
    from app.store import Store

CANDIDATES_MAX = 10
SHORT_ID_CHARS = 8
"""Of the end of a run's id, where it is shown to be typed again."""


async def choose_run(store: "Store", wanted: str) -> RunRow:
    """The one run that is meant. Raises UserError, with candidates, when there is none or more than one."""
    if wanted == "latest":
        newest = await store.queries.list_runs(1)
        if not newest:
            raise UserError("run_not_found", "there is no run yet", "tallyhook submit FILE makes one")
        return newest[0]
    found = await store.queries.find_runs(wanted)
    exact = [run for run in found if run.id == wanted.lower()]
    if len(found) == 1 or exact:
        return (exact or found)[0]
    if not found:
        raise UserError(
            "run_not_found",
            f"no run has the name {wanted!r} or an id that begins or ends with it",
            "tallyhook runs lists them; four characters of an id are enough",
            details=[_shown(run) for run in await store.queries.list_runs(CANDIDATES_MAX)],
        )
    raise UserError(
        "run_ambiguous",
        f"{len(found)} runs fit {wanted!r}",
        "give more of the id",
        details=[_shown(run) for run in found[:CANDIDATES_MAX]],
    )


def _shown(run: RunRow) -> dict[str, object]:
    return {"id": run.id, "name": run.name, "state": str(run.state)}
