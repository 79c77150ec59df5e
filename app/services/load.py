"""Loading: a source of prompts becomes a stored run. Keys and estimates stand in the rows before anything is
sent; a run in state loading is never sent, so a source that breaks off half way sends nothing.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Generic, Protocol, TypeVar

from app.domain import pricing
from app.domain.task import TaskSpec
from app.ports import Clock

CHUNK = 500
"""Tasks of one transaction: 500 rows of 1 KB are read, priced and committed in some 20 ms."""
FAULTS_KEPT = 100
"""Bad lines are all counted; so many faults are kept to be shown."""


class BadRecord(Protocol):
    """Something wrong with a line of the source; several may be about one line."""

    @property
    def line(self) -> int: ...


Bad = TypeVar("Bad", bound=BadRecord)


class LoadStore(Protocol):
    """What loading needs of the store."""

    async def create_run(self, *, name: str, source: str, budget: Decimal | None, now_ms: int) -> str: ...

    async def add_tasks(
        self, run_id: str, specs: Sequence[tuple[TaskSpec, Decimal]], now_ms: int
    ) -> list[str]: ...

    async def start_run_if_loading(self, run_id: str, *, sha256: str, bad_lines: int) -> bool: ...

    async def cancel_run(self, run_id: str, reason: str) -> int: ...


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is called and what it may cost."""

    name: str
    source: str
    """File name, or - for stdin."""
    budget: Decimal | None = None
    """Credits; None: no limit."""
    strict: bool = False
    """One bad line refuses the whole source."""
    price_day: str = ""
    """ISO day whose price list the estimates follow; empty: today, UTC."""


@dataclass(slots=True)
class Loaded(Generic[Bad]):
    """What became of a source."""

    run_id: str
    started: bool = False
    """False: nothing of it will be sent. A line was bad under `strict`, or none was good."""
    tasks: int = 0
    bad_lines: int = 0
    bad: list[Bad] = field(default_factory=list)
    """What is wrong with the first of them."""
    estimate: Decimal = Decimal(0)


async def load_run(
    store: LoadStore,
    source: Iterable[TaskSpec | Bad],
    new: NewRun,
    *,
    sha256: Callable[[], str],
    clock: Clock,
    progress: Callable[[int], None] = lambda _: None,
) -> Loaded[Bad]:
    """Store every good line of `source` as a task of a new run, and let the run begin.

    `sha256` is asked after the last line; `progress` gets the number of tasks stored so far. Whatever
    `source` raises is raised again after the run is cancelled.
    """
    run_id = await store.create_run(name=new.name, source=new.source, budget=new.budget, now_ms=clock())
    loaded: Loaded[Bad] = Loaded(run_id)
    try:
        await _read(store, source, new, loaded, clock, progress)
    except BaseException:
        await store.cancel_run(run_id, "its source could not be read to the end")
        raise
    if new.strict and loaded.bad_lines:
        await store.cancel_run(run_id, "refused: a line is bad, and strict was asked for")
    elif not loaded.tasks:
        await store.cancel_run(run_id, "no prompt in its source")
    else:
        loaded.started = await store.start_run_if_loading(run_id, sha256=sha256(), bad_lines=loaded.bad_lines)
    return loaded


async def _read(
    store: LoadStore,
    source: Iterable[TaskSpec | Bad],
    new: NewRun,
    loaded: Loaded[Bad],
    clock: Clock,
    progress: Callable[[int], None],
) -> None:
    day = new.price_day or iso_day(clock())
    chunk: list[tuple[TaskSpec, Decimal]] = []
    bad_line: int | None = None

    async def store_chunk() -> None:
        await store.add_tasks(loaded.run_id, chunk, clock())
        loaded.tasks += len(chunk)
        loaded.estimate += sum(credits for _, credits in chunk)
        chunk.clear()
        progress(loaded.tasks)

    for line in source:
        if not isinstance(line, TaskSpec):
            loaded.bad_lines += line.line != bad_line
            bad_line = line.line
            if len(loaded.bad) < FAULTS_KEPT:
                loaded.bad.append(line)
        # Under strict the rest is read only to name its other bad lines.
        elif not (new.strict and loaded.bad_lines):
            chunk.append((line, pricing.estimate(line.task_type, line.payload, day)))
            if len(chunk) >= CHUNK:
                await store_chunk()
    if chunk and not (new.strict and loaded.bad_lines):
        await store_chunk()


def iso_day(now_ms: int) -> str:
    """The UTC day of a moment, as price lists are dated."""
    return datetime.fromtimestamp(now_ms / 1000, UTC).date().isoformat()
