"""Files of prompts, and loading them as a producer does."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from app.domain.task import TaskSpec
from app.prompts.reader import BadLine, Defaults, read_prompts
from app.services.load import Loaded, NewRun, load_run
from app.store import Store
from tests.books import read_books
from tests.clock import SteppedClock

COUNTRY = "DE"


def write_prompts(path: Path, prompts: Sequence[str], *, country: str = COUNTRY) -> Path:
    """A CSV file of CHATGPT prompts, one a line."""
    lines = ["task_type,country,prompt", *(f"CHATGPT,{country},{prompt}" for prompt in prompts)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


@dataclass
class Interrupted:
    """A source that breaks off after so many records, as a killed process would see it."""

    records: Iterator[TaskSpec | BadLine]
    after: int

    def __iter__(self) -> Iterator[TaskSpec | BadLine]:
        for n, record in enumerate(self.records):
            if n == self.after:
                raise InterruptedError("killed")
            yield record


async def load(
    store: Store,
    path: Path,
    clock: SteppedClock,
    *,
    resume: str | None = None,
    after: int | None = None,
    **new: Any,
) -> Loaded:
    """Load a file, for `after` records only if that is given."""
    reader = read_prompts(path, Defaults())
    source = reader if after is None else Interrupted(iter(reader), after)
    return await load_run(
        store,
        source,
        NewRun("run", str(path), **new),
        sha256=lambda: reader.sha256,
        clock=clock,
        resume=resume,
    )


async def stored_prompts(store: Store, run_id: str) -> list[tuple[int, str]]:
    """(ordinal, prompt) of every task of a run."""
    return [(row["ordinal"], row["payload"]["prompt"]) async for row in store.exports.export(run_id)]


async def run_state(store: Store, run_id: str) -> str:
    return str(next(row["state"] for row in (await read_books(store)).runs if row["id"] == run_id))
