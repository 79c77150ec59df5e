"""Tasks that come one by one: a group in one round trip, what is left to the general way, groups of several
processes beside each other.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import pytest
import sqlalchemy as sa

from app.domain.standing import NewTask, Producer, Taking
from app.domain.task import RunState, new_id
from app.provider.wire import read_answer
from app.services.access import create_token
from app.store import Database, Store
from app.store.tables import (
    actions,
    relay_endpoints,
    relay_tasks,
    runs,
    standing_runs,
    task_keys,
    task_metadata,
    tasks,
)
from app.store.write.rollup import unkept_cells
from app.store.write.standing import StandingWrites

NOW_MS = 1_780_000_000_000
TOKEN = new_id(NOW_MS)
WHO = Producer(TOKEN, "shop", "default")


def taking(*keys: str | None, who: Producer = WHO, url: str | None = None) -> Taking:
    new = [
        NewTask(new_id(NOW_MS), "GEMINI", f'{{"prompt":"{key}"}}', 5, f"of {key}", Decimal("4.5"), key, url)
        for key in keys
    ]
    return Taking(who, new, "provider.task", "request-1")


async def producer(store: Store, name: str) -> Producer:
    """Whose token there is."""
    made = await create_token(store, name, "submit", None, now_ms=NOW_MS)
    assert made is not None
    return Producer(made[0].id, name, "default")


def ids(takings: Sequence[Taking]) -> list[str]:
    return [task.id for taking in takings for task in taking.tasks]


async def rows(store: Store, table: sa.Table) -> list[Any]:
    async with store.db.engine.connect() as connection:
        return list((await connection.execute(sa.select(table).order_by(*table.primary_key))).all())


async def take(store: Store, *takings: Taking) -> set[str]:
    return await store.standing.take_tasks(takings, NOW_MS)


@pytest.fixture
async def other(store: Store, store_url: str) -> AsyncIterator[Store]:
    """Another process's, on the same database."""
    opened = Store(Database(store_url), read_answer)
    yield opened
    await opened.close()


@pytest.fixture
def general(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of the groups that went the general way."""
    sizes: list[int] = []
    take_tasks = StandingWrites._take_tasks

    async def noting(self: StandingWrites, takings: Sequence[Taking], now_ms: int) -> set[str]:
        sizes.append(sum(len(taking.tasks) for taking in takings))
        return await take_tasks(self, takings, now_ms)

    monkeypatch.setattr(StandingWrites, "_take_tasks", noting)
    return sizes


async def test_a_group_is_stored_in_one_round_trip(store: Store, general: list[int]) -> None:
    first, group = [taking("a")], [taking("b"), taking(None), taking("c", "d"), taking(None)]
    assert await take(store, *first) == set()
    assert general == [1], "the first of a day makes its run"
    assert await take(store, *group) == set()
    assert general == [1]
    (run,) = await rows(store, runs)
    stored = {row.id: row for row in await rows(store, tasks)}
    in_order = [stored[each] for each in ids([*first, *group])]
    assert [row.ordinal for row in in_order] == [1, 2, 3, 4, 5, 6]
    of_general, at_once = in_order[:2]
    for name in (column.name for column in tasks.c):
        if name not in ("id", "ordinal", "payload", "fingerprint", "idempotency_key"):
            assert getattr(of_general, name) == getattr(at_once, name), name
    assert at_once.idempotency_key == f"{at_once.id}.1"
    assert (at_once.payload, at_once.fingerprint) == ('{"prompt":"b"}', "of b")
    own = {row.ordinal: (row.custom_id, row.line) for row in await rows(store, task_metadata)}
    assert own == {1: ("a", 0), 2: ("b", 0), 4: ("c", 0), 5: ("d", 0)}
    assert {row.key for row in await rows(store, task_keys)} == {"a", "b", "c", "d"}
    assert [row.last_ordinal for row in await rows(store, standing_runs)] == [6]
    noted = {row.id: (row.subject, row.actor, row.token_id, row.status) for row in await rows(store, actions)}
    assert len(noted) == 2
    assert noted[group[0].tasks[0].id] == ("5 tasks", "shop", TOKEN, 200)
    async with store.db.engine.connect() as connection:
        assert (await connection.execute(unkept_cells([run.id]))).all() == []


async def test_of_a_group_only_what_has_the_key_of_another_is_left_out(store: Store) -> None:
    await take(store, taking("a"))
    again, twice, new = taking("a"), [taking("b"), taking("b")], taking("c", None)
    known = await take(store, again, *twice, new)
    assert known == {again.tasks[0].id, twice[1].tasks[0].id}
    assert sorted(row.ordinal for row in await rows(store, tasks)) == [1, 2, 3, 4]
    assert {row.task_id for row in await rows(store, task_keys)}.isdisjoint(known)


async def test_a_write_that_is_repeated_finds_its_own(store: Store) -> None:
    await take(store, taking("a"))
    group = [taking("b"), taking(None)]
    assert await take(store, *group) == set()
    assert await take(store, *group) == set(), "its answer was lost on the way"
    assert len(await rows(store, tasks)) == 3


@pytest.mark.parametrize("state", [RunState.CANCELLED, RunState.FINISHED])
async def test_a_run_that_is_over_gets_nothing_at_once(
    store: Store, general: list[int], state: RunState
) -> None:
    await take(store, taking("a"))
    (run,) = await rows(store, runs)
    async with store.db.engine.begin() as connection:
        ended = sa.update(runs).values(state=state, finished_at_ms=NOW_MS)
        await connection.execute(ended)
    assert await take(store, taking("b")) == set()
    assert general == [1, 1]
    (row,) = [row for row in await rows(store, tasks) if row.ordinal > 0 and row.payload == '{"prompt":"b"}']
    if state is RunState.CANCELLED:
        assert row.run_id != run.id
    else:
        assert [(each.id, each.state) for each in await rows(store, runs)] == [(run.id, RunState.RUNNING)]
    assert await take(store, taking("c")) == set()
    assert general == [1, 1], "and then at once again"


async def test_tasks_of_several_tokens_go_the_general_way(store: Store, general: list[int]) -> None:
    another = Producer(new_id(NOW_MS), "lab", "default")
    await take(store, taking("a"), taking("a", who=another))
    await take(store, taking("b"), taking("b", who=another))
    assert general == [2, 2]
    assert len(await rows(store, tasks)) == 4


async def test_who_is_to_be_told_of_an_end_is_known_at_once_but_for_a_new_url(
    store: Store, general: list[int]
) -> None:
    one, two = "https://one.example/hooks", "https://two.example/hooks"
    shop, lab = [await producer(store, name) for name in ("shop", "lab")]
    groups = [
        [taking("a", url=one, who=shop)],
        [taking("b", url=one, who=shop), taking("c", who=shop), taking(None, url=one, who=shop)],
        [taking("d", url=two, who=shop), taking("e", url=one, who=shop)],
        [taking("f", url=two, who=shop), taking("g", url=one, who=shop)],
        [taking("h", url=one, who=lab)],
    ]
    for group in groups:
        assert await take(store, *group) == set()
    # The first of all, then what has a URL that is new: on SQLite its whole group.
    assert general == [1, 2 if store.db.is_sqlite else 1, 1]
    urls = {row.id: row.url for row in await rows(store, relay_endpoints)}
    assert sorted(urls.values()) == [one, one, two], "an endpoint is its token's"
    told = {row.task_id: urls[row.endpoint_id] for row in await rows(store, relay_tasks)}
    each = [task for group in groups for taken in group for task in taken.tasks]
    assert told == {task.id: task.webhook_url for task in each if task.webhook_url}
    assert len(await rows(store, tasks)) == len(each)


async def test_two_processes_beside_each_other_share_keys_and_places(store: Store, other: Store) -> None:
    await take(store, taking("first"))
    groups = [[taking(f"{n % 7}-{k}") for k in range(6)] for n in range(28)]
    lone = Producer(new_id(NOW_MS), "lab", "default")
    for group in groups[::9]:
        group.append(taking("x", who=lone))  # some go the general way
    known = await asyncio.gather(
        *((store, other)[n % 2].standing.take_tasks(group, NOW_MS) for n, group in enumerate(groups))
    )
    stored = {row.id: row for row in await rows(store, tasks)}
    by_key: dict[tuple[str, str | None], list[bool]] = {}
    for group, left_out in zip(groups, known, strict=True):
        for each in group:
            (task,) = each.tasks
            assert (task.id in stored) != (task.id in left_out)
            by_key.setdefault((each.producer.token_id, task.key), []).append(task.id in stored)
    assert all(sum(stood) == 1 for stood in by_key.values()), "each key is one task"
    places = {row.run_id: row.last_ordinal for row in await rows(store, standing_runs)}
    for run_id, last in places.items():
        ordinals = sorted(row.ordinal for row in stored.values() if row.run_id == run_id)
        assert ordinals == list(range(1, last + 1))
    assert len(stored) == len(by_key) + 1
