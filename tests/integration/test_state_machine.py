"""Whatever happens, in whatever order: the rules 1, 2, 5 and 7 of docs/architecture.md hold after every step,
and in the end the ledger is the provider's bill (docs/failure-catalogue.md, 3.4).

The services and the store are the real ones. The model is plain dicts: what the provider has accepted, what
it bills, what it has told us, and which retries were asked for.
"""

import asyncio
import random
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, TypeVar

import hypothesis
import pytest
from hypothesis import HealthCheck
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule
from hypothesis.stateful import run_state_machine_as_test as run_machine

from app.domain.send_outcome import RETRIED, Answer, backoff_s
from app.domain.submission import ClaimedTask, Submission
from app.domain.task import RETRYABLE_STATES, idempotency_key
from app.limits import to_ms
from app.ports import CreateAnswer, PollAnswer
from app.provider.wire import read_answer
from app.store import Database, Store
from tests.books import Books
from tests.clock import SteppedClock
from tests.database import delete_all_rows
from tests.integration.services.pipeline import HOUR_MS, LIMITS, Pipeline
from tests.scripted_provider import LOSE, Accepted, ScriptedProvider

T = TypeVar("T")

STEPS = 25
SQLITE_SHARE = 5
POSTGRES_SHARE = 15
TASKS = 3

answer_kinds = st.sampled_from(
    [
        None,
        None,
        None,
        LOSE,
        LOSE,
        Answer.LOST,
        Answer.RATE_LIMITED,
        Answer.UNAVAILABLE,
        Answer.QUEUE_FULL,
        Answer.NO_CREDITS,
        Answer.REJECTED,
    ]
)
picks = st.integers(0, 2**16)


@dataclass(slots=True)
class World:
    """One database for all examples, emptied before each."""

    runner: asyncio.Runner
    store: Store

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    async def clear(self) -> None:
        await self.store.db.write(delete_all_rows)


class TellingProvider(ScriptedProvider):
    """Notes down which keys it has told the charge of."""

    def __init__(self) -> None:
        super().__init__()
        self.reported: set[str] = set()

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        answer = await ScriptedProvider.poll(self, task_id_or_key)
        if answer.finished:
            self.reported |= {key for key, [task] in self.accepted.items() if task.id == task_id_or_key}
        return answer


class PipelineMachine(RuleBasedStateMachine):
    """Every rule is something that may happen; every invariant reads the tables."""

    world: World

    @initialize()
    def begin(self) -> None:
        self.world.run(self.world.clear())
        self.clock = SteppedClock()
        self.provider = TellingProvider()
        self.pipeline = Pipeline(self.world.store, self.clock, self.provider)
        self.late: list[Submission] = []
        self.retries: Counter[str] = Counter()
        self.settled: dict[str, tuple[str, Decimal | None]] = {}
        self.books = Books()
        self.run(self.pipeline.start(TASKS))

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        self.clock.advance(1)
        return self.world.run(work)

    # What we do.

    @rule(
        answers=st.lists(answer_kinds, max_size=TASKS), in_flight=st.integers(1, 3), overtaken=st.booleans()
    )
    def submit(self, answers: list[Any], in_flight: int, overtaken: bool) -> None:
        """One submit job; `overtaken`: each accepted task is reported before its create call is answered."""
        self.provider.script.clear()
        self.provider.tell(*answers)
        self.provider.before_answer = self._report_first if overtaken else None
        self.run(self._submit_and_resume(in_flight))
        self.provider.script.clear()
        self.provider.before_answer = None

    async def _submit_and_resume(self, in_flight: int) -> None:
        await self.pipeline.submit(submit_in_flight=in_flight)
        await self.world.store.runs.resume_run_if_halted(self.pipeline.run_id)

    async def _report_first(self, task: ClaimedTask) -> None:
        for accepted in self.provider.accepted.get(task.idempotency_key, []):
            if accepted.status == "QUEUED":
                await self._deliver(self.provider.finish(accepted.key))

    @rule(limit=st.integers(1, TASKS))
    def crash_before_sending(self, limit: int) -> None:
        self.run(self._claim(limit))

    @rule(
        limit=st.integers(1, TASKS),
        recorded=st.integers(0, TASKS),
        answers=st.lists(answer_kinds, max_size=TASKS),
    )
    def crash_after_sending(self, limit: int, recorded: int, answers: list[Any]) -> None:
        """Some answers were recorded; the others may still come, from a process that only stood still."""

        async def work() -> None:
            self.provider.script.clear()
            self.provider.tell(*answers)
            ended = []
            for task in await self._claim(limit):
                if task.first_sent_at_ms > self.clock() - to_ms(LIMITS.safe_resend_s):
                    ended.append(self._ended(task, await self.provider.create(task)))
            await self.world.store.submissions.record_submissions(ended[:recorded])
            self.late += ended[recorded:]

        self.run(work())
        self.provider.script.clear()

    async def _claim(self, limit: int) -> list[ClaimedTask]:
        now = self.clock()
        return await self.world.store.submissions.claim_pending(
            account="default",
            limit=limit,
            claim=f"dead-{now}",
            now_ms=now,
            lease_until_ms=now + to_ms(LIMITS.claim_lease_s),
        )

    def _ended(self, task: ClaimedTask, answer: CreateAnswer) -> Submission:
        now = self.clock()
        wait_ms = round(1000 * backoff_s(task.sends, 0.5)) if answer.answer in RETRIED else 0
        return Submission(
            task,
            answer.answer,
            now,
            not_before_ms=now + wait_ms,
            next_poll_at_ms=now + to_ms(LIMITS.poll_after_s),
            http_status=answer.http_status,
            code=answer.code,
            provider_task_id=answer.provider_task_id,
            credits_to_charge=answer.credits_to_charge,
        )

    @precondition(lambda self: self.late)
    @rule(pick=picks)
    def late_response(self, pick: int) -> None:
        one = self.late.pop(pick % len(self.late))
        self.run(self.world.store.submissions.record_submissions([one]))

    @rule(seconds=st.sampled_from([2, 61, 61, 601, 1_200]))
    def wait_and_sweep(self, seconds: int) -> None:
        """Leases run out, deliveries and polls fall due."""
        self.clock.advance(1_000 * seconds)
        self.run(self.pipeline.sweep())

    @rule(submit_first=st.booleans())
    def a_day_without_us(self, submit_first: bool) -> None:
        """The provider deletes what it had; whichever of our jobs comes first, none may buy it again."""
        self.clock.advance(25 * HOUR_MS)
        self.provider.forget(list(self.provider.bound))
        if submit_first:
            self.run(self.pipeline.submit())
        self.run(self.pipeline.sweep())

    @rule(pick=picks)
    def retry(self, pick: int) -> None:
        closed = [row["id"] for row in self.books.tasks if row["state"] in RETRYABLE_STATES]
        chosen = closed[pick % len(closed) :] if closed else []
        assert self.run(self.world.store.retries.retry_tasks_if_closed(chosen, self.clock())) == len(chosen)
        self.retries.update(chosen)

    # What the provider does.

    def _accepted(self, *, finished: bool) -> list[Accepted]:
        every = [task for tasks in self.provider.accepted.values() for task in tasks]
        return [task for task in every if (task.status != "QUEUED") is finished]

    @precondition(lambda self: self._accepted(finished=False))
    @rule(
        pick=picks,
        status=st.sampled_from(["COMPLETED", "COMPLETED", "FAILED"]),
        wrong=st.sampled_from([0, 0, 0, 1, 7]),
    )
    def finish(self, pick: int, status: str, wrong: int) -> None:
        """`wrong`: charged that much more than is due."""
        unfinished = self._accepted(finished=False)
        task = unfinished[pick % len(unfinished)]
        due = task.to_charge if status == "COMPLETED" else Decimal(0)
        self.provider.finish(task.key, status, charged=due + wrong)

    @precondition(lambda self: self._accepted(finished=True))
    @rule(chosen=st.lists(picks, min_size=1, max_size=5))
    def deliver(self, chosen: list[int]) -> None:
        """In any order, any of them any number of times, in one batch."""
        finished = self._accepted(finished=True)
        self.run(self._deliver(*(finished[pick % len(finished)] for pick in chosen)))

    async def _deliver(self, *tasks: Accepted) -> None:
        await self.pipeline.deliver(*tasks)
        self.provider.reported |= {task.key for task in tasks}

    @precondition(lambda self: self._accepted(finished=True))
    @rule(pick=picks)
    def deliver_without_charge(self, pick: int) -> None:
        finished = self._accepted(finished=True)
        self.run(self.pipeline.deliver(finished[pick % len(finished)].body(creditsCharged=None)))

    @rule(pick=picks)
    def lose_wakes(self, pick: int) -> None:
        """Received and committed, but no job was told; the sweep will find it."""
        finished = self._accepted(finished=True)
        if finished:
            task = finished[pick % len(finished)]
            self.run(self.pipeline.receive(task))
            self.provider.reported.add(task.key)

    @precondition(lambda self: self._known())
    @rule(
        pick=picks,
        change=st.sampled_from(
            [{"status": "FAILED"}, {"creditsCharged": 99}, {"response": {"text": "other"}}]
        ),
    )
    def contradict(self, pick: int, change: dict[str, Any]) -> None:
        """A second, different report of a task whose charge is known already."""
        known = self._known()
        self.run(self.pipeline.deliver(known[pick % len(known)].body(**change)))

    def _known(self) -> list[Accepted]:
        posted = self.books.posted()
        return [task for task in self._accepted(finished=True) if task.key in posted]

    @rule()
    def a_stranger_is_delivered(self) -> None:
        unknown_report = Accepted("pt-foreign", "somebody.else", Decimal(5), "COMPLETED", Decimal(5), {})
        self.run(self.pipeline.deliver(unknown_report))

    # What must hold after each of these.

    @invariant()
    def everything_agrees(self) -> None:
        self.books = self.world.run(self.pipeline.books())
        self.the_ledger_is_the_bill()
        self.no_attempt_is_two_tasks()
        self.what_is_settled_stays_settled()

    def the_ledger_is_the_bill(self) -> None:
        bill = self.provider.bill()
        for key, credits in self.books.posted().items():
            assert key in self.provider.reported, f"nobody said what {key} cost"
            assert credits == bill[key]

    def no_attempt_is_two_tasks(self) -> None:
        assert {len(tasks) for tasks in self.provider.accepted.values()} <= {1}
        allowed = {
            idempotency_key(task_id, n)
            for task_id in self.pipeline.task_ids
            for n in range(1, self.retries[task_id] + 2)
        }
        assert set(self.provider.sends) <= allowed, "a new key without a recorded retry"
        assert {row["id"]: row["attempt"] for row in self.books.tasks} == {
            task_id: self.retries[task_id] + 1 for task_id in self.pipeline.task_ids
        }

    def what_is_settled_stays_settled(self) -> None:
        for row in self.books.every_attempt():
            if row["reported"] is None:
                continue
            key = idempotency_key(row["task_id"], row["attempt"])
            reported, charged = self.settled.setdefault(key, (row["reported"], row["credits_charged"]))
            assert row["reported"] == reported
            assert charged is None or row["credits_charged"] == charged
            self.settled[key] = reported, row["credits_charged"]

    def teardown(self) -> None:
        """Everything arrives in the end."""
        if not hasattr(self, "pipeline"):
            return
        for task in self._accepted(finished=False):
            self.provider.finish(task.key)
        if self.late:
            self.run(self.world.store.submissions.record_submissions(self.late))
        everything = self._accepted(finished=True)
        random.Random(len(everything)).shuffle(everything)
        if everything:
            self.run(self._deliver(*everything))
        books = self.world.run(self.pipeline.books())
        assert books.posted() == self.provider.bill()
        held = {
            idempotency_key(row["task_id"], row["attempt"])
            for row in books.every_attempt()
            if row["money"] == "held"
        }
        # Refused after a send that nobody accounts for: only the provider knows that it never took that one.
        assert not held & {task.key for task in everything}
        assert not [row for row in books.deliveries if row["state"] == "quarantined"]


@pytest.fixture
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    url = request.getfixturevalue(f"{request.param}_url")
    with asyncio.Runner() as runner:
        world = World(runner, Store(Database(url), read_answer))
        yield world
        runner.run(world.store.close())


@pytest.mark.parametrize("world", ["sqlite", "postgres"], indirect=True)
def test_the_invariants_hold_whatever_happens(world: World) -> None:
    examples = hypothesis.settings().max_examples
    settings = hypothesis.settings(
        # The statements differ little; what PostgreSQL adds is races, which have tests of their own.
        max_examples=max(examples // (SQLITE_SHARE if world.store.db.is_sqlite else POSTGRES_SHARE), 1),
        stateful_step_count=STEPS,
        print_blob=True,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    machine = type("Machine", (PipelineMachine,), {"world": world})
    run_machine(machine, settings=settings)
