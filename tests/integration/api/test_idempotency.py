"""Idempotency keys in the store: in whatever order requests come, stop and wake up, a key makes one run; and
what nobody goes on with is cleared away.
"""

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from hypothesis import example, given, settings
from hypothesis import strategies as st

from app.config import Settings
from app.domain.task import new_id
from app.domain.time_format import DAY_MS
from app.ports import KeyLost
from app.provider.wire import read_answer
from app.store import Database, Store
from app.store.part import in_its_transaction
from app.store.tables import idempotency_keys, metadata, runs
from app.store.write.idempotency import KeyId, noted
from tests.clock import SteppedClock
from tests.integration.api.asking import Api
from workers.duties.idempotency import LEFT_MS, clean_keys

LEASE_MS = 15_000
STEPS = st.lists(
    st.tuples(st.sampled_from(["take", "make", "begin", "die", "wait"]), st.integers(0, 2)), max_size=24
)


class Requests:
    """Three requests with one key, each of which may stop anywhere, and may go on long after its lease."""

    def __init__(self, store: Store, clock: SteppedClock, token_id: str) -> None:
        self.store, self.clock = store, clock
        self.token_id = token_id
        self.runs: list[str | None] = [None] * 3
        self.made: set[str] = set()
        self.keys = [KeyId(token_id, "k", f"request {n}") for n in range(3)]
        self.holds: list[bool] = [False] * 3

    async def take(self, n: int) -> None:
        row = await self.store.idempotency.take(
            self.keys[n], target="t", content=None, now_ms=self.clock(), lease_ms=LEASE_MS
        )
        self.holds[n] = row.status is None and row.owner == self.keys[n].owner
        if self.holds[n] and row.run_id is not None:
            await self.store.runs.discard_run(row.run_id)

    async def make(self, n: int) -> None:
        run_id = new_id(self.clock())
        with in_its_transaction(noted(self.keys[n], lambda _: {"run_id": run_id})):
            await self.store.runs.create_run(
                run_id=run_id, name=f"r {n}", source="api", budget=None, now_ms=self.clock()
            )
        self.runs[n] = run_id
        self.made.add(run_id)

    async def begin(self, n: int) -> None:
        run_id = cast(str, self.runs[n])
        done = {"status": 201, "headers": "{}", "body": run_id}
        with in_its_transaction(noted(self.keys[n], lambda begun: done if begun else None)):
            await self.store.runs.start_run_if_loading(run_id, sha256="0", bad_lines=0)

    async def step(self, what: str, n: int) -> None:
        if what == "wait":
            self.clock.advance(LEASE_MS + 1)
        elif what == "die":
            self.holds[n], self.runs[n] = False, None
        elif what == "take":
            self.runs[n] = None
            await self.take(n)
        elif what == "make" and self.holds[n] and self.runs[n] is None:
            await self._lost(n, self.make(n))
        elif what == "begin" and self.runs[n] is not None:
            await self._lost(n, self.begin(n))

    async def _lost(self, n: int, work: Any) -> None:
        try:
            await work
        except KeyLost:
            self.holds[n], self.runs[n] = False, None


@pytest.fixture(scope="module")
def database_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One file for all examples, each of which has a token of its own."""
    path = tmp_path_factory.mktemp("keys") / "tallyhook.db"
    metadata.create_all(sa.create_engine(f"sqlite:///{path}"))
    return f"sqlite:///{path}"


@settings(max_examples=40)
@given(steps=STEPS)
# One stands still before it makes its run, and wakes up after another has made one.
@example(steps=[("take", 0), ("wait", 0), ("take", 1), ("make", 0), ("make", 1), ("begin", 0), ("begin", 1)])
# The same before it lets its run begin.
@example(steps=[("take", 0), ("make", 0), ("wait", 0), ("take", 1), ("make", 1), ("begin", 0), ("begin", 1)])
def test_a_key_makes_one_run_whatever_dies_and_whoever_comes_late(
    database_url: str, steps: list[tuple[str, int]]
) -> None:
    asyncio.run(_interleave(database_url, steps))


async def _interleave(database_url: str, steps: list[tuple[str, int]]) -> None:
    db = Database(database_url)
    store = Store(db, read_answer)
    try:
        requests = Requests(store, SteppedClock(), new_id(1))
        answers: set[str] = set()
        for what, n in steps:
            await requests.step(what, n)
            async with db.engine.connect() as connection:
                of_ours = runs.c.id.in_(requests.made), runs.c.state == "running"
                begun = set(await connection.scalars(sa.select(runs.c.id).where(*of_ours)))
                answered = idempotency_keys.c.token_id == requests.token_id, idempotency_keys.c.status == 201
                answers |= set(await connection.scalars(sa.select(idempotency_keys.c.body).where(*answered)))
            # An answer stands once, and is that of the only run that has begun.
            assert len(begun) <= 1
            assert answers == begun
    finally:
        await store.close()


async def test_what_nobody_goes_on_with_is_cleared_away(api: Api) -> None:
    store, clock = api.store, api.clock
    requests = Requests(store, clock, new_id(clock()))
    await requests.take(0)
    await requests.make(0)
    done = KeyId(requests.token_id, "done", "request")
    await store.idempotency.take(done, target="t", content=None, now_ms=clock(), lease_ms=LEASE_MS)
    assert await store.idempotency.answer(done, 200, {}, "{}")
    settings = Settings(_env_file=None, api_idempotency_days=3)
    context: Any = SimpleNamespace(store=store, clock=clock, stopping=asyncio.Event(), settings=settings)

    async def left() -> tuple[int, int]:
        async with store.db.engine.connect() as connection:
            of_keys = sa.select(sa.func.count()).select_from(idempotency_keys)
            of_runs = sa.select(sa.func.count()).select_from(runs)
            return await connection.scalar(of_keys) or 0, await connection.scalar(of_runs) or 0

    clock.advance(LEFT_MS)
    await clean_keys(context, "worker")
    assert await left() == (2, 1)
    clock.advance(LEASE_MS + 1)
    await clean_keys(context, "worker")
    assert await left() == (1, 0)
    with pytest.raises(KeyLost):  # the request wakes up
        await requests.make(0)
    clock.advance(2 * DAY_MS)
    await clean_keys(context, "worker")
    assert await left() == (1, 0)
    clock.advance(DAY_MS)
    await clean_keys(context, "worker")
    assert await left() == (0, 0)
