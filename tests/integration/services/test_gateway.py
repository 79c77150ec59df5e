"""Something else answers in the provider's place: nothing is rejected, sending rests, runs pause, go on."""

from dataclasses import dataclass, field

import pytest

from app.domain.run_reason import ReasonCode
from app.domain.send_outcome import Answer
from app.domain.submission import ClaimedTask
from app.ports import BalanceEnd, CreateAnswer, PollAnswer
from app.services.funding import Funding
from app.services.notice_triggers import Watcher
from app.services.reachability import IN_A_ROW, Reachability
from app.services.submit import submit
from app.services.sweep import sweep
from tests.integration.services.pipeline import LIMITS, Pipeline
from tests.scripted_provider import ScriptedProvider

PAGE = "HTTP 404, text/html, <h1>404 Not Found</h1>"
GATEWAY_404 = CreateAnswer(Answer.GATEWAY, 404, message=PAGE)
NO_ROUTE = CreateAnswer(Answer.MISDIRECTED, 404, "RESOURCE_NOT_FOUND", PAGE)
PROBE_MS = 300_000


@dataclass(slots=True)
class Behind(ScriptedProvider):
    """A provider behind a gateway that may answer in its place."""

    is_away: bool = True
    requests: int = 0
    away: CreateAnswer = GATEWAY_404
    batches: list[int] = field(default_factory=list)
    batch_max: int = 500

    async def create(self, task: ClaimedTask) -> CreateAnswer:
        self.requests += 1
        if self.is_away:
            return self.away
        return await ScriptedProvider.create(self, task)

    async def create_batch(self, tasks: list[ClaimedTask]) -> list[CreateAnswer] | None:  # type: ignore[override]
        self.batches.append(len(tasks))
        if len(tasks) > self.batch_max:
            return [CreateAnswer(Answer.GATEWAY, 413, message=PAGE)] * len(tasks)
        return [await ScriptedProvider.create(self, task) for task in tasks]

    async def poll(self, task_id_or_key: str) -> PollAnswer:
        if self.is_away:
            return PollAnswer(found=None, gateway=PAGE)
        return await ScriptedProvider.poll(self, task_id_or_key)


async def send(pipeline: Pipeline, provider: Behind, reach: Reachability) -> int | None:
    summary = await submit(
        pipeline.store,
        provider,
        reach=reach,
        limits=LIMITS,
        clock=pipeline.clock,
        jitter=lambda: 0.5,
        token=f"t{pipeline.clock()}",
    )
    return summary.again_in_ms


async def state_of(pipeline: Pipeline) -> tuple[str, str | None]:
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    return run.state, run.reason_code


@pytest.mark.parametrize("away", [GATEWAY_404, NO_ROUTE], ids=["gateway", "no route"])
async def test_f1_pages_of_a_gateway_reject_nothing_and_sending_rests(
    pipeline: Pipeline, away: CreateAnswer
) -> None:
    provider, reach = Behind(away=away), Reachability()
    await pipeline.start(300)
    for _ in range(16):  # 8 s of it
        await send(pipeline, provider, reach)
        pipeline.clock.advance(500)
    assert IN_A_ROW <= provider.requests <= 20, "not one request for each task"
    books = await pipeline.books()
    assert {task["state"] for task in books.tasks} == {"pending"}
    provider.is_away = False
    for _ in range(20):
        await send(pipeline, provider, reach)
        pipeline.clock.advance(5_000)
    books = await pipeline.books()
    assert {(task["state"], task["attempt"]) for task in books.tasks} == {("submitted", 1)}
    assert all(len(tasks) == 1 for tasks in provider.accepted.values())


async def test_f1_one_page_among_good_answers_is_no_outage(pipeline: Pipeline) -> None:
    provider, reach = Behind(is_away=False), Reachability()
    await pipeline.start(40)
    page = CreateAnswer(Answer.GATEWAY, 502, message=PAGE)
    provider.tell(*([page, None, page, page, None] * 8))
    await send(pipeline, provider, reach)
    assert reach.rest_until_ms == 0
    assert len(provider.accepted) == 16, "the others wait for their own turn only"


@pytest.mark.parametrize("away", [GATEWAY_404, NO_ROUTE], ids=["gateway", "no route"])
async def test_f1_when_it_goes_on_runs_pause_and_try_again_by_themselves(
    pipeline: Pipeline, away: CreateAnswer
) -> None:
    provider, reach = Behind(away=away), Reachability()
    await pipeline.start(100)
    funding = Funding(pipeline.store, {"default": provider}, probe_ms=PROBE_MS, clock=pipeline.clock)
    watcher = Watcher(pipeline.store, clock=pipeline.clock)
    while (await state_of(pipeline))[0] == "running":
        await send(pipeline, provider, reach)
        pipeline.clock.advance(1_000)
    assert await state_of(pipeline) == ("paused", ReasonCode.PROVIDER_AWAY)
    [run] = await pipeline.store.queries.find_runs(pipeline.run_id)
    assert PAGE in (run.reason or "")
    await watcher.look()
    assert [notice.kind for notice in await pipeline.store.notices.list_notices()] == ["run.paused"]
    assert PAGE.split("<", maxsplit=1)[0] in (await pipeline.store.notices.list_notices())[0].body
    # Tried again, by one request, and paused again at once.
    assert await funding.resume_due() == 0
    pipeline.clock.advance(PROBE_MS)
    assert await funding.resume_due() == 1
    before = provider.requests
    await send(pipeline, provider, reach)
    assert provider.requests == before + 1
    assert await state_of(pipeline) == ("paused", ReasonCode.PROVIDER_AWAY)
    provider.is_away = False
    assert await funding.resume_due() == 0, "not sooner than every few minutes"
    pipeline.clock.advance(PROBE_MS)
    assert await funding.resume_due() == 1
    for _ in range(5):
        await send(pipeline, provider, reach)
        pipeline.clock.advance(60_000)
    assert await state_of(pipeline) == ("running", None)
    assert len(provider.accepted) == 100


async def test_f1_a_batch_too_large_for_a_proxy_is_sent_in_smaller_ones(pipeline: Pipeline) -> None:
    provider, reach = Behind(is_away=False, batch_max=4), Reachability()
    await pipeline.start(60)
    async with pipeline.store.db.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE runs SET batch_size = 20")
    for _ in range(40):
        await send(pipeline, provider, reach)
        pipeline.clock.advance(61_000)
    books = await pipeline.books()
    assert {task["state"] for task in books.tasks} == {"submitted"}
    assert all(len(tasks) == 1 for tasks in provider.accepted.values())
    assert reach.batch_max is not None and reach.batch_max <= 4


async def test_f1_a_gateway_that_answers_polls_expires_nothing_and_is_reported(pipeline: Pipeline) -> None:
    provider = Behind(is_away=False)
    reach = Reachability()
    await pipeline.start(3)
    await send(pipeline, provider, reach)
    provider.is_away = True

    async def look() -> None:
        await sweep(
            pipeline.store,
            {"default": provider},
            lambda ids: pipeline.settle(list(ids)),
            limits=LIMITS,
            clock=pipeline.clock,
            unreleased=set(),
            reach=lambda _: reach,
        )

    for _ in range(6):
        pipeline.clock.advance(600_000)
        await look()
    books = await pipeline.books()
    assert {task["state"] for task in books.tasks} == {"submitted"}
    assert await state_of(pipeline) == ("paused", ReasonCode.POLLS_UNANSWERED)
    provider.is_away = False
    for key in list(provider.accepted):
        provider.finish(key)
    pipeline.clock.advance(600_000)
    await look()
    books = await pipeline.books()
    assert {task["state"] for task in books.tasks} == {"completed"}
    assert await state_of(pipeline) == ("finished", None)


async def test_f1_a_batch_that_nobody_serves_goes_one_by_one_and_not_all_of_it(pipeline: Pipeline) -> None:
    class NoRoute(Behind):
        async def create_batch(self, tasks: list[ClaimedTask]) -> list[CreateAnswer] | None:  # type: ignore[override]
            self.batches.append(len(tasks))
            return None

    provider, reach = NoRoute(away=NO_ROUTE), Reachability()
    await pipeline.start(60)
    async with pipeline.store.db.engine.begin() as connection:
        await connection.exec_driver_sql("UPDATE runs SET batch_size = 20")
    for _ in range(16):
        await send(pipeline, provider, reach)
        pipeline.clock.advance(500)
    assert IN_A_ROW <= provider.requests <= 20
    assert {task["state"] for task in (await pipeline.books()).tasks} == {"pending"}
    provider.is_away = False
    for _ in range(20):
        await send(pipeline, provider, reach)
        pipeline.clock.advance(5_000)
    assert {task["state"] for task in (await pipeline.books()).tasks} == {"submitted"}


async def test_f1_a_task_is_not_given_up_by_a_gateway_s_404_after_its_retention(pipeline: Pipeline) -> None:
    provider = Behind(is_away=False)
    await pipeline.start(1)
    await send(pipeline, provider, Reachability())
    provider.is_away = True
    pipeline.clock.advance(30 * 3_600_000)
    await pipeline.sweep(provider)
    books = await pipeline.books()
    assert books.tasks[0]["state"] == "submitted"


async def test_f1_an_unknown_balance_is_not_taken_for_funds(pipeline: Pipeline) -> None:
    """A run that paused for credits is tried where the provider says that it tells no balance, and not
    because something else answered."""

    class Silent(Behind):
        async def balance(self, now_ms: int):  # type: ignore[no-untyped-def]
            from app.ports import BalanceAnswer

            return BalanceAnswer(BalanceEnd.UNKNOWN, why=PAGE)

    provider = Silent(is_away=False)
    await pipeline.start(1)
    provider.tell(Answer.NO_CREDITS)
    await send(pipeline, provider, Reachability())
    funding = Funding(pipeline.store, {"default": provider}, probe_ms=PROBE_MS, clock=pipeline.clock)
    await funding.resume_due()
    pipeline.clock.advance(PROBE_MS)
    assert await funding.resume_due() == 0
    assert await state_of(pipeline) == ("paused", ReasonCode.NO_CREDITS)


@pytest.mark.parametrize(
    "trouble",
    [
        CreateAnswer(Answer.UNAVAILABLE, 503, "SERVICE_UNAVAILABLE", wait_s=0.0),
        CreateAnswer(Answer.UNAVAILABLE, 500, "INTERNAL_SERVER_ERROR"),
        CreateAnswer(Answer.UNAVAILABLE, message="cannot connect"),
    ],
    ids=["503", "500", "no connection"],
)
async def test_f9_trouble_of_the_provider_is_not_met_by_every_task(
    pipeline: Pipeline, trouble: CreateAnswer
) -> None:
    provider, reach = Behind(away=trouble), Reachability()
    await pipeline.start(300)
    for _ in range(240):  # two minutes of it
        await send(pipeline, provider, reach)
        pipeline.clock.advance(500)
    assert IN_A_ROW <= provider.requests <= 25
    assert await state_of(pipeline) == ("running", None), "nobody has to do anything"
    provider.is_away = False
    for _ in range(20):
        await send(pipeline, provider, reach)
        pipeline.clock.advance(5_000)
    assert {task["state"] for task in (await pipeline.books()).tasks} == {"submitted"}


async def test_f9_a_rest_is_as_long_as_the_provider_asks(pipeline: Pipeline) -> None:
    later = CreateAnswer(Answer.UNAVAILABLE, 503, "SERVICE_UNAVAILABLE", wait_s=90.0)
    provider, reach = Behind(away=later), Reachability()
    await pipeline.start(300)
    again_ms = await send(pipeline, provider, reach)
    assert again_ms is not None and 90_000 <= again_ms < 100_000
    before = provider.requests
    assert before <= IN_A_ROW + LIMITS.submit_in_flight, "and nobody else tries meanwhile"
    pipeline.clock.advance(89_000)
    await send(pipeline, provider, reach)
    assert provider.requests == before
