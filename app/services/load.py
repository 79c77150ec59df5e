"""Loading: a source of prompts becomes a stored run. Keys and estimates stand in the rows before anything is
sent; a run in state loading is never sent, so a source that breaks off half way sends nothing.

Reading goes by chunks, each compared with what the run already holds. So reading the same source again for
the same run, after an interruption or in parallel with another producer, adds what is missing and nothing
else; a source that says something else is refused (SourceChanged).
"""

from collections.abc import AsyncIterable, Awaitable, Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

from app.domain import pricing
from app.domain.engines.rules import display
from app.domain.own_columns import BadLine, OwnColumns
from app.domain.relay.message import NewEndpoint
from app.domain.remarks import Remarks
from app.domain.task import TaskSpec, new_id
from app.domain.time_format import iso_day
from app.ports import Clock

if TYPE_CHECKING:
    from app.store import Store

CHUNK = 500
"""Tasks of one transaction: 500 rows of 1 KB are read, priced and committed in some 20 ms."""
DUPLICATES_KEPT = 20
Source = Iterable[TaskSpec | BadLine] | AsyncIterable[Iterable[TaskSpec | BadLine]]
"""Lines that are there, or that come a piece at a time."""


class Duplicates(StrEnum):
    """What to do with records that ask what an earlier one of the same source asks (S18)."""

    KEEP = "keep"  # each is a task of its own
    MERGE = "merge"  # only the first is a task
    ERROR = "error"  # nothing of the source is sent


@dataclass(frozen=True, slots=True)
class NewRun:
    """What a run is called, who pays for it, and what it may cost."""

    name: str
    source: str
    """Absolute path of the file, or - for stdin."""
    budget: Decimal | None = None
    """Credits; None: no limit."""
    strict: bool = False
    """One bad line refuses the whole source."""
    price_day: str = ""
    """ISO day whose price list the estimates follow; empty: today, UTC."""
    account: str = "default"
    batch_size: int | None = None
    """Tasks in one create call; None: one request for each task."""
    reuse_within_ms: int | None = None
    """An equal result of the account this young answers a prompt; None: every prompt is sent."""
    duplicates: Duplicates = Duplicates.KEEP
    pause_failing_engines: bool = False
    """Its tasks of an engine whose answers fail wait until they are usable again."""
    push_to: NewEndpoint | None = None
    """Where its results are posted to; None: nowhere."""
    is_name_new: bool = False
    """No other run may have the name."""


@dataclass(slots=True)
class Loaded:
    """What became of a source."""

    run_id: str
    """Empty: there is no run, because nothing of the source could be a task of one."""
    started: bool = False
    """False: nothing of it will be sent. Something was bad and refused all of it, or nothing was good."""
    tasks: int = 0
    bad_lines: int = 0
    bad: Remarks = field(default_factory=Remarks)
    """What is wrong with them."""
    estimate: Decimal = Decimal(0)
    reused: int = 0
    """Of the tasks: answered from an equal, recent result, for nothing."""
    duplicates: int = 0
    """Records that ask what an earlier one asks: kept, merged into it, or the reason for refusing all."""
    duplicates_named: list[tuple[int, int]] = field(default_factory=list)
    """Under `error` the first of them: (number, number of the earlier one)."""
    resumed_after: int = 0
    """Ordinal of the last task that the run held before; 0 for a run of its own."""
    resumed_record: int = 0
    """The record of that task."""
    repeated: int = 0
    """Records that ask for several samples."""
    samples: int = 0
    """Tasks of those."""
    last: int = 0
    """Ordinal of the last good record."""
    is_whole: bool = False
    """All of the source is stored, and nothing refuses it."""


class Seal(Protocol):
    """What is written with a run: in the transaction that makes it, and in the one that lets it begin."""

    def made(self, run_id: str) -> AbstractContextManager[None]:
        """Around the transaction that makes the run."""
        ...

    async def begun(self, loaded: Loaded) -> AbstractContextManager[None]:
        """Around the transaction that lets it begin, its source being read."""
        ...


async def load_run(
    store: "Store",
    source: Source,
    new: NewRun,
    *,
    sha256: Callable[[], str],
    clock: Clock,
    progress: Callable[[int], None] = lambda _: None,
    created: Callable[[str], None] = lambda _: None,
    resume: str | None = None,
    seal: Seal | None = None,
) -> "Loaded":
    """Store every good line of `source` as a task of a new run, or of the run `resume` that was made from it,
    and let the run begin.

    `sha256` is asked after the last line; `created` gets the run's id with its first tasks, `progress` the
    number of tasks stored so far; what `seal` writes is written with the run. A source that is refused leaves
    no run behind. Raises SourceChanged when `resume` was made from another source, NameTaken, and whatever
    `source` raises; then the run stays as far as it was read, so that it can be resumed or cancelled.
    """
    loaded = await store_source(
        store, source, new, clock=clock, progress=progress, created=created, resume=resume, seal=seal
    )
    if loaded.is_whole:
        with await seal.begun(loaded) if seal else nullcontext():
            loaded.started = await store.loading.finish_loading(
                loaded.run_id, sha256=sha256(), bad_lines=loaded.bad_lines, last=loaded.last
            )
    return loaded


async def store_source(
    store: "Store",
    source: Source,
    new: NewRun,
    *,
    clock: Clock,
    progress: Callable[[int], None] = lambda _: None,
    created: Callable[[str], None] = lambda _: None,
    resume: str | None = None,
    seal: Seal | None = None,
) -> "Loaded":
    """The same, and the run does not begin: it stays loading."""

    async def begin() -> str:
        run_id = new_id(clock())
        with seal.made(run_id) if seal else nullcontext():
            await create_new_run(store, run_id, new, clock())
        created(run_id)
        return run_id

    loaded: Loaded = Loaded(
        resume or "", resumed_after=await store.loading.last_ordinal(resume) if resume else 0
    )
    if resume:
        created(resume)
    await _read(store, source, new, loaded, begin, clock, progress)
    loaded.bad.kept.sort(key=lambda remark: remark.line)
    if not loaded.run_id:
        return loaded
    loaded.is_whole = not await _is_refused(store, new, loaded)
    if not loaded.is_whole and not resume:
        await store.runs.discard_run(loaded.run_id)
    return loaded


async def create_new_run(store: "Store", run_id: str, new: NewRun, now_ms: int) -> None:
    """The run itself, without tasks. Raises NameTaken."""
    await store.runs.create_run(
        run_id=run_id,
        name=new.name,
        source=new.source,
        budget=new.budget,
        now_ms=now_ms,
        account=new.account,
        batch_size=new.batch_size,
        reuse_within_ms=new.reuse_within_ms,
        pause_failing_engines=new.pause_failing_engines,
        is_name_new=new.is_name_new,
        push_to=new.push_to,
    )


async def _is_refused(store: "Store", new: NewRun, loaded: "Loaded") -> bool:
    """Whether nothing of the source is sent."""
    if (new.strict and loaded.bad_lines) or not loaded.tasks:
        return True
    if new.duplicates is Duplicates.MERGE:
        return False
    named = DUPLICATES_KEPT if new.duplicates is Duplicates.ERROR else 0
    loaded.duplicates, loaded.duplicates_named = await store.loading.duplicates(loaded.run_id, named)
    return bool(named and loaded.duplicates)


class _Whole:
    """A source that is there, as one piece."""

    def __init__(self, lines: Iterable[TaskSpec | BadLine]) -> None:
        self._pieces = iter((lines,))

    def __aiter__(self) -> "_Whole":
        return self

    async def __anext__(self) -> Iterable[TaskSpec | BadLine]:
        for piece in self._pieces:
            return piece
        raise StopAsyncIteration


async def _read(
    store: "Store",
    source: Source,
    new: NewRun,
    loaded: "Loaded",
    begin: Callable[[], Awaitable[str]],
    clock: Clock,
    progress: Callable[[int], None],
) -> None:
    day = new.price_day or iso_day(clock())
    chunk: list[tuple[TaskSpec, Decimal]] = []
    bad_line: int | None = None
    async for piece in source if isinstance(source, AsyncIterable) else _Whole(source):
        for line in piece:
            if not isinstance(line, TaskSpec):
                _note_bad(loaded, line, is_new=line.line != bad_line)
                bad_line = line.line
            # Under strict the rest is read only to name its other bad lines.
            elif not (new.strict and loaded.bad_lines):
                if line.ordinal <= loaded.resumed_after:
                    loaded.resumed_record = line.record or line.ordinal
                chunk.append((line, pricing.estimate(line.task_type, line.payload, day)))
                if len(chunk) >= CHUNK:
                    loaded.run_id = loaded.run_id or await begin()
                    await _store_chunk(store, chunk, new, loaded, clock())
                    progress(loaded.tasks)
                    chunk.clear()
    if chunk and not (new.strict and loaded.bad_lines):
        loaded.run_id = loaded.run_id or await begin()
        await _store_chunk(store, chunk, new, loaded, clock())
        progress(loaded.tasks)


def _note_bad(loaded: "Loaded", bad: BadLine, *, is_new: bool) -> None:
    loaded.bad_lines += is_new
    loaded.bad.add(*bad)


async def _take_repeated_ids_out(
    store: "Store", chunk: Sequence[tuple[TaskSpec, Decimal]], loaded: "Loaded"
) -> list[tuple[TaskSpec, Decimal]]:
    """A chunk without the records whose custom_id an earlier one has: those are bad lines."""
    ids = {spec.own.custom_id for spec, _ in chunk if spec.own is not None} - {None}
    if not ids:
        return list(chunk)
    known = [custom_id for custom_id in ids if custom_id is not None]
    lines = await store.loading.lines_of_custom_ids(loaded.run_id, known, through=loaded.last)
    kept = []
    for spec, estimate in chunk:
        own, custom_id = spec.own, None if spec.own is None else spec.own.custom_id
        first_line = None if custom_id is None else lines.get(custom_id)
        if own is None or first_line is None or (spec.sample > 1 and first_line == own.line):
            kept.append((spec, estimate))
        elif spec.sample == 1:
            _note_bad(loaded, repeated_id(own, first_line), is_new=True)
        if own is not None and custom_id is not None:
            lines.setdefault(custom_id, own.line)
    return kept


def repeated_id(own: OwnColumns, first_line: int) -> BadLine:
    problem = f"{display(own.custom_id)} is the custom_id of line {first_line} too"
    return BadLine(own.line, "custom_id", problem, "give each record one of its own, or leave it blank")


async def _store_chunk(
    store: "Store", read: Sequence[tuple[TaskSpec, Decimal]], new: NewRun, loaded: "Loaded", now_ms: int
) -> None:
    chunk = await _take_repeated_ids_out(store, read, loaded)
    if not chunk:
        return
    stored = await store.loading.store_chunk(
        loaded.run_id,
        chunk,
        after=loaded.last,
        known_to=loaded.resumed_after,
        merge=new.duplicates is Duplicates.MERGE,
        now_ms=now_ms,
    )
    loaded.last = chunk[-1][0].ordinal
    loaded.tasks += stored.kept
    loaded.estimate += stored.estimate
    loaded.reused += stored.reused
    loaded.duplicates += stored.merged
    loaded.repeated += stored.repeated
    loaded.samples += stored.samples
