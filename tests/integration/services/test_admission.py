"""Admission, batches and credits that come back, on the real stores."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from decimal import Decimal

from app.domain.accounting.balances import Balance
from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.domain.task import TaskSpec, idempotency_key
from app.domain.time_format import iso_utc
from app.ports import BalanceAnswer, BalanceEnd, CreateAnswer, Slots
from app.services.admission import ASK_MS, Admission, UnknownBalance
from app.services.funding import Funding
from app.services.submit import submit
from app.store import Store
from tests.clock import SteppedClock
from tests.integration.services.pipeline import LIMITS, Pipeline
from tests.scripted_provider import ScriptedProvider


@dataclass(slots=True)
class Account(ScriptedProvider):
    """A provider that tells its slots and its balance, and takes batches."""

    concurrency: int | None = 5
    remaining: Decimal | None = None
    unknown: str | None = None
    """Why nobody tells the balance."""
    batches: list[int] = field(default_factory=list)
    loses_batches: int = 0
    takes_batches: bool = True

    async def slots(self) -> Slots | None:
        return Slots(self.concurrency)

    async def balance(self, now_ms: int) -> BalanceAnswer:
        if self.unknown is not None:
            return BalanceAnswer(BalanceEnd.UNKNOWN, why=self.unknown)
        if self.remaining is None:
            return BalanceAnswer(BalanceEnd.ABSENT)
        return BalanceAnswer(BalanceEnd.REPORTED, Balance(now_ms, self.remaining, None, None))

    async def create_batch(self, tasks: Sequence[ClaimedTask]) -> list[CreateAnswer] | None:
        if not self.takes_batches:
            return None
        self.batches.append(len(tasks))
        answers = [await self.create(task) for task in tasks]
        if self.loses_batches:
            self.loses_batches -= 1
            return [CreateAnswer(Answer.LOST)] * len(tasks)
        return answers


def admission(
    store: Store, provider: Account, clock: SteppedClock, drain_target_s: float = 60.0
) -> Admission:
    return Admission("default", store, provider, clock=clock, drain_target_s=drain_target_s)


async def send(pipeline: Pipeline, provider: Account, gate: Admission | None = None) -> int | None:
    summary = await submit(
        pipeline.store,
        provider,
        admission=gate,
        limits=LIMITS,
        clock=pipeline.clock,
        jitter=lambda: 0.0,
        token=f"t{pipeline.clock()}",
    )
    return summary.again_in_ms


async def reason_of(pipeline: Pipeline) -> tuple[str, str | None]:
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    return run.state, run.reason


async def test_s20_no_more_is_sent_than_the_slots_finish_in_time(pipeline: Pipeline) -> None:
    provider = Account(concurrency=5)  # twice the slots are always let in: 10
    await pipeline.start(25)
    gate = admission(pipeline.store, provider, pipeline.clock)
    assert await send(pipeline, provider, gate) == 1_000, "asked again in a second"
    assert len(provider.sends) == 10
    state, reason = await reason_of(pipeline)
    assert state == "running"
    assert reason is not None
    assert "10 tasks at the provider" in reason
    await pipeline.deliver(*(provider.finish(key) for key in provider.sends[:4]))
    pipeline.clock.advance(2_000)
    await send(pipeline, provider, gate)
    assert len(provider.sends) == 14, "as many as came back"


async def test_the_reason_goes_away_with_the_backlog(pipeline: Pipeline) -> None:
    provider = Account(concurrency=5)
    await pipeline.start(12)
    gate = admission(pipeline.store, provider, pipeline.clock)
    await send(pipeline, provider, gate)
    await pipeline.deliver(*(provider.finish(key) for key in list(provider.sends)))
    pipeline.clock.advance(2_000)
    await send(pipeline, provider, gate)
    assert len(provider.sends) == 12
    pipeline.clock.advance(2_000)
    await gate.quota()
    assert (await reason_of(pipeline))[1] is None


async def test_nothing_is_sent_that_the_balance_does_not_cover(pipeline: Pipeline) -> None:
    provider = Account(concurrency=50, remaining=Decimal(52))
    await pipeline.start(20)
    gate = admission(pipeline.store, provider, pipeline.clock)
    for _ in range(30):
        await send(pipeline, provider, gate)
        pipeline.clock.advance(2_000)
    # 5 credits each; none may be sent with fewer than 3 uncovered.
    assert 8 <= len(provider.sends) <= 10
    state, reason = await reason_of(pipeline)
    assert (state, (reason or "")[:24]) == ("running", "waiting: 52 credits left")


async def test_s10_a_paused_run_goes_on_when_the_balance_is_back(pipeline: Pipeline) -> None:
    provider = Account(remaining=Decimal(0))
    provider.tell(None, CreateAnswer(Answer.NO_CREDITS, 403, "INSUFFICIENT_CREDITS"))
    await pipeline.start(5)
    await send(pipeline, provider)
    assert (await reason_of(pipeline))[0] == "paused"
    funding = Funding(pipeline.store, {"default": provider}, probe_ms=300_000, clock=pipeline.clock)
    assert await funding.resume_due() == 0, "not at once: the balance lags"
    pipeline.clock.advance(300_000)
    assert await funding.resume_due() == 0, "still nothing there"
    provider.remaining = Decimal(650_000)
    pipeline.clock.advance(300_000)
    assert await funding.resume_due() == 1
    await send(pipeline, provider)
    assert (await pipeline.books()).states() == {"submitted": 5}
    assert await pipeline.store.retries.retry_tasks_if_closed(pipeline.task_ids, pipeline.clock()) == 0, (
        "none failed"
    )


async def test_s10_without_a_balance_endpoint_it_is_tried(pipeline: Pipeline) -> None:
    provider = Account()
    provider.tell(CreateAnswer(Answer.NO_CREDITS, 403, "INSUFFICIENT_PERMISSIONS"))
    await pipeline.start(1)
    await send(pipeline, provider)
    funding = Funding(pipeline.store, {"default": provider}, probe_ms=300_000, clock=pipeline.clock)
    await funding.resume_due()
    pipeline.clock.advance(300_000)
    assert await funding.resume_due() == 1
    assert (await reason_of(pipeline))[0] == "running"


async def test_s14_a_bad_key_stops_every_run_of_the_account(pipeline: Pipeline) -> None:
    await pipeline.start(2)
    first = pipeline.run_id
    await pipeline.start(2)
    other = await pipeline.store.runs.create_run(
        name="eu", source="-", budget=None, now_ms=pipeline.clock(), account="eu"
    )
    await pipeline.store.runs.start_run_if_loading(other, sha256="", bad_lines=0)
    provider = Account()
    provider.tell(CreateAnswer(Answer.BAD_KEY, 401, "INVALID_OR_EXPIRED_API_KEY"))
    await send(pipeline, provider)
    states = {run.id: run.state for run in await pipeline.store.queries.list_runs()}
    assert states == {first: "stopped", pipeline.run_id: "stopped", other: "finished"}, "it has no task"
    assert len(provider.sends) <= LIMITS.submit_in_flight


async def test_s14_a_wrong_key_is_refused_once_whatever_is_ready_to_be_sent(pipeline: Pipeline) -> None:
    await pipeline.start(100)
    provider, refused = Account(), CreateAnswer(Answer.BAD_KEY, 401, "INVALID_OR_EXPIRED_API_KEY")

    async def while_others_are_sent(_: ClaimedTask) -> None:
        for _ in range(100):
            await asyncio.sleep(0)

    provider.before_answer = while_others_are_sent
    provider.tell(*[refused] * 100)
    await send(pipeline, provider)
    books = await pipeline.books()
    assert (len(provider.sends), books.states(), books.runs[0]["state"]) == (1, {"pending": 100}, "stopped")


async def test_s14_a_batch_that_is_sent_one_by_one_ends_with_the_first_refusal(pipeline: Pipeline) -> None:
    provider = Account(takes_batches=False)
    await start_batches(pipeline, 20, 20)
    provider.tell(None, *[CreateAnswer(Answer.NO_CREDITS, 403, "INSUFFICIENT_CREDITS")] * 19)
    await send(pipeline, provider)
    assert len(provider.sends) == 2
    assert (await pipeline.books()).states() == {"submitted": 1, "pending": 19}


async def start_batches(pipeline: Pipeline, tasks: int, size: int) -> None:
    pipeline.run_id = await pipeline.store.runs.create_run(
        name="batch", source="-", budget=None, now_ms=pipeline.clock(), batch_size=size
    )
    specs = [(TaskSpec(n, "CHATGPT", {"prompt": f"p{n}"}), Decimal(5)) for n in range(1, tasks + 1)]
    pipeline.task_ids = await pipeline.store.runs.add_tasks(pipeline.run_id, specs, pipeline.clock())
    await pipeline.store.runs.start_run_if_loading(pipeline.run_id, sha256="", bad_lines=0)


async def test_batches_of_the_run_s_size(pipeline: Pipeline) -> None:
    provider = Account()
    await start_batches(pipeline, 45, 20)
    await send(pipeline, provider)
    assert sorted(provider.batches) == [5, 20, 20]
    assert (await pipeline.books()).states() == {"submitted": 45}


async def test_s7_a_lost_batch_is_sent_again_with_the_same_keys_and_smaller(pipeline: Pipeline) -> None:
    provider = Account(loses_batches=1)
    await start_batches(pipeline, 40, 20)
    await send(pipeline, provider)
    pipeline.clock.advance(60_000)
    await send(pipeline, provider)
    assert all(len(tasks) == 1 for tasks in provider.accepted.values()), "one task for each key"
    books = await pipeline.books()
    assert books.states() == {"submitted": 40}
    await pipeline.deliver(*(provider.finish(key) for key in provider.accepted))
    assert (await pipeline.books()).states() == {"completed": 40}


async def test_a_provider_without_batches_gets_them_one_by_one(pipeline: Pipeline) -> None:
    provider = Account(takes_batches=False)
    await start_batches(pipeline, 7, 5)
    await send(pipeline, provider)
    assert provider.batches == []
    assert (await pipeline.books()).states() == {"submitted": 7}


async def test_slots_and_balance_are_not_asked_for_each_claim(pipeline: Pipeline) -> None:
    asked: list[int] = []

    class Counting(Account):
        async def slots(self) -> Slots | None:
            asked.append(pipeline.clock())
            return Slots(5)

    gate = admission(pipeline.store, Counting(), pipeline.clock)
    for _ in range(20):
        await gate.quota()
        pipeline.clock.advance(ASK_MS // 10)
    assert len(asked) == 2


async def test_a_monthly_budget_of_the_account_is_kept(pipeline: Pipeline) -> None:
    provider = Account(concurrency=50)
    await pipeline.start(20)
    gate = Admission(
        "default",
        pipeline.store,
        provider,
        clock=pipeline.clock,
        drain_target_s=3600.0,
        budget_per_month=Decimal(42),
    )
    for _ in range(30):
        await send(pipeline, provider, gate)
        pipeline.clock.advance(2_000)
    # 5 credits each: after eight, 2 are left, and no task costs that little.
    assert len(provider.sends) == 8
    assert (await reason_of(pipeline))[1] == "waiting: the account's budget of this month is reached"
    pipeline.clock.advance(31 * 24 * 3_600_000)
    await send(pipeline, provider, gate)
    assert len(provider.sends) > 8, "a new month, and this run was begun in the last one"


async def test_w19_what_was_over_before_the_restore_is_not_outstanding(pipeline: Pipeline) -> None:
    """Its charges left the balance long ago; what nothing names may stay open for a day."""
    account = Account(remaining=Decimal(60))
    gate = admission(pipeline.store, account, pipeline.clock)
    task_ids = await pipeline.start(20)
    account.bound |= {idempotency_key(task_id, 1) for task_id in task_ids[:12]}
    assert await pipeline.store.runs.resume_restored_run(pipeline.run_id)
    for _ in range(4):
        await send(pipeline, account, gate)
        pipeline.clock.advance(ASK_MS)
    assert len(account.sends) == 20
    assert (await pipeline.books()).states() == {"submitted": 20}


async def drained(pipeline: Pipeline, provider: Account, gate: Admission, turns: int = 30) -> None:
    """Send what may go, and have all of it completed and charged at once, for a minute by the clock."""
    for _ in range(turns):
        await send(pipeline, provider, gate)
        done = {task.key for tasks in provider.accepted.values() for task in tasks if task.charged is None}
        await pipeline.deliver(*(provider.finish(key) for key in sorted(done)))
        pipeline.clock.advance(2_000)


async def test_f6_one_failed_answer_is_no_room_for_thousands(pipeline: Pipeline) -> None:
    """The last balance counts, less what was charged since."""
    provider = Account(concurrency=100, remaining=Decimal(40))
    await pipeline.start(200)
    gate = admission(pipeline.store, provider, pipeline.clock)
    await gate.quota()
    provider.unknown = "HTTP 502, text/html, <h1>"
    await drained(pipeline, provider, gate, turns=120)
    assert len(provider.sends) <= 8, "40 credits are 8 tasks of 5, though nobody said that they are gone"
    assert await reason_of(pipeline) != ("running", None)


async def test_f6_a_balance_that_is_too_old_stops_sending_until_it_is_known_again(pipeline: Pipeline) -> None:
    provider = Account(concurrency=100, remaining=Decimal(10_000))
    await pipeline.start(30)
    gate = admission(pipeline.store, provider, pipeline.clock)
    await gate.quota()
    told_ms = pipeline.clock()
    provider.unknown = "HTTP 403, text/html, <h1>Blocked"
    pipeline.clock.advance(UnknownBalance().age_max_ms + 1)
    assert await send(pipeline, provider, gate) == 1_000
    assert provider.sends == []
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    assert (run.state, run.reason_code) == ("running", "balance_unknown")
    assert (
        run.reason == f"waiting: balance unknown since {iso_utc(told_ms)} (HTTP 403, text/html, <h1>Blocked)"
    )
    provider.unknown = None
    pipeline.clock.advance(ASK_MS)
    await send(pipeline, provider, gate)
    assert len(provider.sends) == 30
    assert await reason_of(pipeline) == ("running", None)


async def test_f6_a_new_process_takes_the_last_balance_that_was_kept(pipeline: Pipeline) -> None:
    provider = Account(concurrency=100, remaining=Decimal(5))
    await pipeline.start(30)
    await admission(pipeline.store, provider, pipeline.clock).quota()
    provider.unknown = "no response: TimeoutError"
    pipeline.clock.advance(60_000)
    await send(pipeline, provider, admission(pipeline.store, provider, pipeline.clock))
    assert len(provider.sends) == 1
    never = Account(concurrency=100, unknown="no response: TimeoutError")
    gate = Admission("eu", pipeline.store, never, clock=pipeline.clock, drain_target_s=60.0)
    room = await gate.quota()
    assert (room.tasks, room.reason and room.reason.code) == (0, "balance_unknown"), "none was ever told"


async def test_f6_sending_without_a_balance_is_a_choice(pipeline: Pipeline) -> None:
    provider = Account(concurrency=100, unknown="no response: TimeoutError")
    await pipeline.start(30)
    gate = Admission(
        "default",
        pipeline.store,
        provider,
        clock=pipeline.clock,
        drain_target_s=60.0,
        unknown=UnknownBalance(sends=True),
    )
    await send(pipeline, provider, gate)
    assert len(provider.sends) == 30


async def test_f6_an_edition_without_a_balance_stays_one_while_it_cannot_be_asked(pipeline: Pipeline) -> None:
    provider = Account(concurrency=100)
    await pipeline.start(30)
    gate = admission(pipeline.store, provider, pipeline.clock)
    assert (await gate.quota()).tasks > 30
    provider.unknown = "no response: TimeoutError"
    pipeline.clock.advance(UnknownBalance().age_max_ms * 2)
    await send(pipeline, provider, gate)
    assert len(provider.sends) == 30


async def test_f6_a_key_that_is_refused_is_found_out_by_one_request(pipeline: Pipeline) -> None:
    class Refusing(Account):
        async def balance(self, now_ms: int) -> BalanceAnswer:
            return BalanceAnswer(BalanceEnd.REFUSED, why="HTTP 401, INVALID_OR_EXPIRED_API_KEY")

    provider = Refusing(concurrency=100)
    await pipeline.start(30)
    provider.tell(Answer.BAD_KEY)
    await send(pipeline, provider, admission(pipeline.store, provider, pipeline.clock))
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    assert (len(provider.sends), run.state, run.reason_code) == (1, "stopped", "bad_key")


async def test_f18_a_clock_that_is_set_back_stops_no_asking(store: Store, clock: SteppedClock) -> None:
    """What was asked for at a moment that is yet to come was asked for by a wrong clock."""
    asked: list[int] = []

    class Counted(Account):
        async def slots(self) -> Slots | None:
            asked.append(clock())
            return None

    admission = Admission("default", store, Counted(), clock=clock, drain_target_s=60.0)
    clock.advance(25 * 3_600_000)
    await admission.quota()
    clock.advance(-25 * 3_600_000)
    await admission.quota()
    await admission.quota()
    assert len(asked) == 2
