"""/v1/events: runs as they change, as server-sent events."""

import time
from collections.abc import Sequence

from pydantic import BaseModel

from app.api.live import Live, Shown
from app.api.native.runs import Run, run_model
from app.api.route import Call, Params, Route, Stream, Streamed
from app.domain.access import Scope
from app.store import Store

RUNS_MAX = 500
"""Open runs that are looked at, the newest ones."""
NEWEST = 50
"""Runs that are looked at whether they are over or not."""
ENDED_S = 60.0
"""A run that is over is looked at for so long."""


class RunsEvent(BaseModel):
    """The data of an event `runs`."""

    runs: list[Run]


class RunLooks:
    """Reads runs that are open, or were lately."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._open_s: dict[str, float] = {}
        """When each was last seen open."""

    async def look(self) -> Sequence[Shown]:
        """Each as /v1/runs/{run_id} shows it."""
        now_s = time.monotonic()
        self._open_s = {i: s for i, s in self._open_s.items() if now_s - s <= ENDED_S}
        found = await self._store.run_pages.live_runs(RUNS_MAX, NEWEST, self._open_s)
        progress = await self._store.queries.progress_of_runs([timed.run.id for timed in found])
        models = [run_model(timed, progress[timed.run.id]) for timed in found]
        self._open_s |= {run.id: now_s for run in models if run.state not in ("finished", "cancelled")}
        return [Shown(run.account, run.model_dump_json().encode()) for run in models]


async def listen(call: Call[Params, None]) -> Stream:
    """One look a second, shared by all who listen."""
    parts = call.parts
    live = parts.shared.get("live")
    if live is None:
        live = parts.shared["live"] = Live(RunLooks(parts.store).look, parts.stopping)
    last_event_id = call.headers.get("Last-Event-ID", "")
    return Stream("text/event-stream", live.events(call.caller.account, last_event_id))


ROUTES = (
    Route(
        "GET",
        "/v1/events",
        listen,
        "Listen to runs as they change",
        {
            200: Streamed(
                "text/event-stream", "Server-sent events; the data of `runs` is RunsEvent.", RunsEvent
            )
        },
        scope=Scope.READ,
        description="At first the open runs and the newest 50, then once a second those that changed; a "
        "comment every 15 s while none does. With `Last-Event-ID` of the last event, as EventSource sends "
        "it, only what changed since, from whichever process. Ends after 5 minutes and when the process "
        "ends: connect again.",
    ),
)
