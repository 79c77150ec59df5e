"""When a run came into a state: said by the statement that brings it there, in the database's time."""

from typing import Any

from app.domain.task import RunState
from app.store.database import Database
from app.store.write.health import database_now

_COLUMNS = {
    RunState.RUNNING: "started_at_ms",
    RunState.PAUSED: "paused_at_ms",
    RunState.STOPPED: "stopped_at_ms",
    RunState.CANCELLED: "cancelled_at_ms",
}


def entering(db: Database, state: RunState) -> dict[str, Any]:
    """What an update sets; RUNNING is for a run that begins, not for one that goes on."""
    return {"state": state, _COLUMNS[state]: database_now(db)}
