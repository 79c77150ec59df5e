"""Files that a person uploads: stored as a run that does not begin, shown with what it has and may cost, and
let begin once, or thrown away.
"""

import asyncio
import json
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from decimal import Decimal
from typing import TYPE_CHECKING

from app.ports import Clock
from app.services.access import Asker
from app.services.load import Loaded, NewRun, Source, store_source

if TYPE_CHECKING:
    from app.store import Store

WAITS_MS = 3_600_000
"""How long one waits for its person; then it is cleared away, within an hour more."""
FAULTS_SHOWN = 100
_KEY = " upload {}"
"""No key that a client gives has a blank."""


@dataclass(frozen=True, slots=True)
class Fault:
    """Something that is wrong with records of the file."""

    where: str
    """Lines and field, in words."""
    problem: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Found:
    """What an upload has."""

    name: str
    file: str
    account: str
    sha256: str
    tasks: int
    estimated: str
    """Credits, exact."""
    duplicates: int
    samples: int
    repeated: int
    reused: int
    bad_records: int
    faults: tuple[Fault, ...]
    faults_unnamed: int
    own_columns: tuple[str, ...]
    read_as: str | None

    @property
    def credits(self) -> Decimal:
        """What it may cost."""
        return Decimal(self.estimated)


@dataclass(frozen=True, slots=True)
class Waiting:
    """An upload that its person can look at."""

    id: str
    run_id: str | None
    found: Found
    has_begun: bool
    lapses_at_ms: int


@dataclass(frozen=True, slots=True)
class Reader:
    """What is known of a file once it was read."""

    sha256: Callable[[], str]
    own_columns: Callable[[], list[str]]
    read_as: Callable[[], str | None]


async def receive(
    store: "Store",
    source: Source,
    new: NewRun,
    reader: Reader,
    *,
    token_id: str,
    upload_id: str,
    clock: Clock,
) -> Waiting:
    """Store a file as it comes. What is refused, and what breaks off, leaves no run. Raises NameTaken, and
    whatever `source` does."""
    key = key_of(upload_id)
    await store.uploads.take_upload(token_id, key, now_ms=clock(), until_ms=clock() + WAITS_MS)
    try:
        loaded = await store_source(store, source, new, clock=clock, seal=_Seal(store, token_id, key))
        found, until_ms = _found(new, loaded, reader), clock() + WAITS_MS
        await store.uploads.keep_found(token_id, key, json.dumps(asdict(found)), until_ms)
    except BaseException:
        await asyncio.shield(store.uploads.discard_upload(token_id, key))
        raise
    if not loaded.is_whole:
        await store.uploads.discard_upload(token_id, key)
    return Waiting(upload_id, loaded.run_id if loaded.is_whole else None, found, False, until_ms)


async def find(store: "Store", token_id: str, upload_id: str, now_ms: int) -> Waiting | None:
    """One of this token's that waits or has begun; None: there is none, or it is late."""
    row = await store.uploads.find_upload(token_id, key_of(upload_id))
    if row is None or row.found is None or (not row.has_begun and row.lapses_at_ms <= now_ms):
        return None
    values = json.loads(row.found)
    faults = tuple(Fault(**fault) for fault in values["faults"])
    found = Found(**values | {"faults": faults, "own_columns": tuple(values["own_columns"])})
    return Waiting(upload_id, row.run_id, found, row.has_begun, row.lapses_at_ms)


async def begin(store: "Store", waiting: Waiting, asker: Asker, now_ms: int) -> bool:
    """Let its run begin; asked twice, it does so once. False: it has begun already, or is gone."""
    if waiting.run_id is None:
        return False
    return await store.uploads.begin_upload(
        asker.token_id or "",
        key_of(waiting.id),
        waiting.run_id,
        sha256=waiting.found.sha256,
        bad_lines=waiting.found.bad_records,
        action=asker.action("run.create", waiting.run_id, now_ms),
    )


async def discard(store: "Store", token_id: str, upload_id: str) -> bool:
    """Throw one away that has not begun."""
    return await store.uploads.discard_upload(token_id, key_of(upload_id))


def key_of(upload_id: str) -> str:
    """Under which an upload is kept."""
    return _KEY.format(upload_id)


class _Seal:
    """Says with the run whose it is, so that it is found whatever dies."""

    def __init__(self, store: "Store", token_id: str, key: str) -> None:
        self._store, self._token_id, self._key = store, token_id, key

    def made(self, run_id: str) -> AbstractContextManager[None]:
        return self._store.uploads.with_run(self._token_id, self._key, run_id)

    async def begun(self, loaded: Loaded) -> AbstractContextManager[None]:
        return nullcontext()  # it does not begin by itself


def _found(new: NewRun, loaded: Loaded, reader: Reader) -> Found:
    kept = loaded.bad.kept[:FAULTS_SHOWN]
    return Found(
        name=new.name,
        file=new.source,
        account=new.account,
        sha256=reader.sha256(),
        tasks=loaded.tasks,
        estimated=str(loaded.estimate),
        duplicates=loaded.duplicates,
        samples=loaded.samples,
        repeated=loaded.repeated,
        reused=loaded.reused,
        bad_records=loaded.bad_lines,
        faults=tuple(Fault(remark.where, remark.problem, remark.remedy) for remark in kept),
        faults_unnamed=loaded.bad.others + sum(remark.count for remark in loaded.bad.kept[FAULTS_SHOWN:]),
        own_columns=tuple(reader.own_columns()),
        read_as=reader.read_as(),
    )
