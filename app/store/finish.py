"""The second half of an upgrade: what processes of the version before could not live with.

`tallyhook migrate` leaves a database that both versions can work on. When no process of the version before is
left, a person runs `tallyhook migrate --finish`; a database that was just made is finished at once.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from app.store.database import Database
from app.store.finish_results import drop_response, has_response
from app.store.hash_indexes import has_wide_indexes, narrow_indexes
from app.store.partitioning import is_unpartitioned, partition_deliveries


@dataclass(frozen=True, slots=True)
class FinishStep:
    """One thing to do to a migrated database. Both calls begin transactions of their own."""

    name: str
    """For people: what it does, as in "drop the column response of results"."""
    is_due: Callable[[Database], Awaitable[bool]]
    """Quick; false once it is done."""
    run: Callable[[Database], Awaitable[None]]
    """Idempotent, and goes on where a killed one ended. Several may call it at once."""


STEPS: tuple[FinishStep, ...] = (
    FinishStep("divide deliveries into a partition for each day", is_unpartitioned, partition_deliveries),
    FinishStep("index keys and fingerprints of tasks by hashes", has_wide_indexes, narrow_indexes),
    FinishStep("drop the column response of results", has_response, drop_response),
)
"""In their order."""


async def steps_due(db: Database) -> list[FinishStep]:
    """What is still to be done to a database that is migrated."""
    return [step for step in STEPS if await step.is_due(db)]


async def finish(db: Database) -> list[FinishStep]:
    """Run the steps that are due; which they were. Raises as `Database.write` does."""
    due = await steps_due(db)
    for step in due:
        await step.run(db)
    return due
