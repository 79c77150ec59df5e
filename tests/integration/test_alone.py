"""Loops over items in which one is bad, for a reason that nobody foresaw: the others have their turn."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

import workers.duties.notices
from app.config import load_settings
from app.domain.evidence.records import AcknowledgedWebhook
from app.domain.notices.notice import Answered, Notice, NoticeKind, NoticeState
from app.domain.run_reason import ReasonCode
from app.domain.task import idempotency_key
from app.limits import NoticeLimits, to_ms
from app.ports import BalanceAnswer, PollAnswer, StoreUnavailable
from app.provider.client import Client
from app.services.audit import Audits
from app.services.funding import Funding
from app.services.isolated import Isolated
from app.services.lost_webhooks import LostWebhookSearch
from app.services.notice_triggers import Watcher
from app.services.notify import Notifier
from app.services.schedule import Opened, start_due
from app.store import Store
from app.store.read.notice_triggers import NoticeTriggerReads
from app.store.read.runs import Queries
from app.store.tables import schedules
from app.store.write.inbox import InboxWrites
from app.store.write.run_ends import RunEndWrites
from app.store.write.schedules import ScheduleRow
from app.store.write.spending import SpendingWrites
from app.store.write.submission import SubmissionWrites
from app.views.schedules import schedule_document
from tests.clock import SteppedClock
from tests.integration.loading.reading import write_prompts
from tests.integration.services.pipeline import LIMITS, Pipeline
from tests.integration.test_workers import Scene, scene_on
from workers import sending as worker_sending
from workers.context import Context
from workers.duties.schedules import source_opener

HOUR_MS = 3_600_000
NAMES = ["a-bug", "b-number", "c-options", "d-moment", "e-good"]


async def test_f19_one_bad_schedule_stops_no_other(
    store: Store, clock: SteppedClock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in NAMES:
        options = "{not JSON" if name == "c-options" else json.dumps({"account": "default"})
        await store.schedules.add_schedule(
            name=name,
            source=str(write_prompts(tmp_path / f"{name}.csv", ["x"])),
            options=options,
            every_ms=HOUR_MS,
            next_at_ms=clock(),
            now_ms=clock(),
        )
    far = 2**63 - 1

    async def far_off(connection: Any) -> None:
        # Its next slot is no moment that a database can hold.
        await connection.execute(
            sa.update(schedules).where(schedules.c.name == "d-moment").values(every_ms=far, next_at_ms=1)
        )

    await store.db.write(far_off)
    usual = source_opener(load_settings())

    def open_source(schedule: ScheduleRow) -> Opened:
        if schedule.name == "a-bug":
            raise LookupError("prompt of somebody")
        opened = usual(schedule)
        wrong = schedule.name == "b-number"
        return replace(opened, new=replace(opened.new, budget=Decimal("1e13"))) if wrong else opened

    outcomes = await start_due(store, open_source, clock=clock, owner="me")
    assert [outcome.schedule for outcome in outcomes if outcome.tasks] == ["e-good"]
    errors = {row.name: row.last_error for row in await store.schedules.list_schedules()}
    assert {name for name, error in errors.items() if error} == set(NAMES[:4])
    assert errors["a-bug"] == "it cannot be run (LookupError): look at the worker's log"
    # Listed with what is wrong, and told once.
    assert len([schedule_document(row) for row in await store.schedules.list_schedules()]) == len(NAMES)
    watcher = Watcher(store, clock=clock)
    await watcher.look()
    await Watcher(store, clock=clock).look()
    stored = [row for row in await store.notices.list_notices() if row.kind == NoticeKind.SCHEDULE_FAILED]
    assert len(stored) == 4
    assert "somebody" not in "".join(row.body for row in stored)
    # What stays where it is, is not said over and over.
    again = await start_due(store, open_source, clock=clock, owner="me")
    assert again == []


async def raises(*_: Any, **__: Any) -> Any:
    raise OverflowError("too large")


def raising_for(real: Callable[..., Awaitable[Any]], bad: str) -> Callable[..., Awaitable[Any]]:
    """The method, which cannot bear one argument."""

    async def called(self: Any, *args: Any, **kwargs: Any) -> Any:
        if bad in args or bad in kwargs.values():
            raise OverflowError("too large")
        return await real(self, *args, **kwargs)

    return called


async def test_f19_one_account_that_cannot_be_sent_for_holds_up_no_other(
    sqlite_store: Store, clock: SteppedClock, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_on(sqlite_store, clock, valkey_url) as scene:
        await _also_another_account(scene)
        real = worker_sending.submit_account

        async def submit_account(context: Context, account: str) -> int | None:
            if account == "another":
                raise OverflowError("too large")
            return await real(context, account)

        monkeypatch.setattr(worker_sending, "submit_account", submit_account)
        with capture_logs() as logs:
            await worker_sending.start_sending(scene.context)
        failed = [line["account"] for line in logs if line["event"] == "sending_failed"]
        assert set(failed) == {"another"}
        assert await scene.count("submitted") == 2


async def test_f19_an_account_that_takes_long_keeps_no_other_waiting(
    sqlite_store: Store, clock: SteppedClock, valkey_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with scene_on(sqlite_store, clock, valkey_url) as scene:
        scene.context.providers = {**scene.context.providers, "another": scene.context.providers["default"]}
        real, go_on, hung = worker_sending.submit_account, asyncio.Event(), asyncio.Event()
        real_due = Queries.accounts_with_due

        async def due(now_ms: int) -> list[str]:
            # The other has something only once the first is on its way.
            others = await real_due(sqlite_store, now_ms) if hung.is_set() else []
            return others if go_on.is_set() else ["another", *others]

        async def submit_account(context: Context, account: str) -> int | None:
            if account == "another":
                hung.set()
                await go_on.wait()
                return None
            return await real(context, account)

        monkeypatch.setattr(worker_sending, "submit_account", submit_account)
        await scene.pipeline.start(2)
        scene.context.store.queries.accounts_with_due = due  # type: ignore[method-assign]
        sending = worker_sending.start_sending(scene.context)
        async with asyncio.timeout(20):
            while await scene.count("submitted") != 2:  # noqa: ASYNC110 - rows have no event
                await asyncio.sleep(0.02)
        assert not sending.done()
        # And once more, when it has something again.
        await scene.pipeline.start(2)
        async with asyncio.timeout(20):
            while await scene.count("submitted") != 4:  # noqa: ASYNC110 - rows have no event
                await asyncio.sleep(0.02)
        assert not sending.done()
        go_on.set()
        await sending


async def _also_another_account(scene: Scene) -> None:
    await scene.pipeline.start(2)
    provider = cast(Client, scene.pipeline.provider)
    scene.context.providers = {"another": provider, "default": provider}
    real = Queries.accounts_with_due

    async def both(now_ms: int) -> list[str]:
        return ["another", *await real(scene.context.store, now_ms)]

    scene.context.store.queries.accounts_with_due = both  # type: ignore[method-assign]


async def test_f19_one_account_that_cannot_be_audited_holds_up_no_other(clock: SteppedClock) -> None:
    asked: list[str] = []

    def balances(name: str) -> Any:
        async def balance(_now_ms: int) -> BalanceAnswer:
            asked.append(name)
            raise OverflowError("too large")

        return SimpleNamespace(balance=balance)

    async def accounts_with_runs() -> list[str]:
        return ["a", "b", "c"]

    store = cast(Any, SimpleNamespace(audits=SimpleNamespace(accounts_with_runs=accounts_with_runs)))
    audits = Audits(store, {name: balances(name) for name in "abc"}, every_ms=1, clock=clock)
    with pytest.raises(ExceptionGroup):
        await audits.audit_due()
    assert asked == ["a", "b", "c"]
    isolated = Isolated()
    clock.advance(10)
    assert await audits.audit_due(isolated) == []
    assert len(isolated.failed) == 3


async def test_f19_one_account_that_cannot_be_resumed_holds_up_no_other(clock: SteppedClock) -> None:
    resumed: list[str] = []

    async def resume(account: str, code: ReasonCode) -> int:
        if account == "a":
            raise OverflowError("too large")
        resumed.append(account)
        return 1

    async def paused(code: ReasonCode) -> list[str]:
        return ["a", "b"] if code is ReasonCode.PROVIDER_AWAY else []

    store = cast(
        Any,
        SimpleNamespace(
            accounts=SimpleNamespace(paused_accounts=paused, resume_account_if_paused_for=resume)
        ),
    )
    funding = Funding(store, {}, probe_ms=10, clock=clock)
    await funding.resume_due()
    clock.advance(10)
    with pytest.raises(OverflowError):
        await funding.resume_due()
    assert resumed == ["b"]


async def test_f19_one_poll_or_part_of_the_sweep_that_fails_stops_no_other(
    sqlite_store: Store, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(sqlite_store, clock)
    task_ids = await pipeline.start(3)
    await pipeline.submit()
    for task_id in task_ids:
        pipeline.provider.finish(idempotency_key(task_id, 1))
    clock.advance(to_ms(LIMITS.poll_after_s))
    real, polled = type(pipeline.provider).poll, []

    async def poll(self: Any, key: str) -> PollAnswer:
        polled.append(key)
        if len(polled) == 1:
            raise OverflowError("too large")
        return await real(self, key)

    monkeypatch.setattr(type(pipeline.provider), "poll", poll)
    for part, method in (
        (InboxWrites, "is_any_overdue"),
        (SubmissionWrites, "release_overdue_claims"),
        (SpendingWrites, "fold_spending"),
        (RunEndWrites, "finish_runs"),
    ):
        monkeypatch.setattr(part, method, raises)
    with pytest.raises(ExceptionGroup) as caught:
        await pipeline.sweep()
    assert len(caught.value.exceptions) == 5
    assert (await pipeline.books()).states() == {"completed": 2, "submitted": 1}


async def test_f19_one_notice_that_cannot_be_sent_stops_no_other(
    sqlite_store: Store, clock: SteppedClock
) -> None:
    found = [Notice(NoticeKind.TEST, "default", f"test:{n}", f"number {n}", clock()) for n in range(3)]
    await sqlite_store.notices.add_notices(found, clock())

    async def post(_id: str, _at_s: int, body: bytes) -> Answered:
        if b"number 1" in body:
            raise OverflowError("too large")
        return Answered(204)

    limits = NoticeLimits(notice_tries_max=1)
    notifier = Notifier(sqlite_store, post, limits=limits, clock=clock, jitter=lambda: 0.0)
    ended = await notifier.send_due()
    workers.duties.notices.tell([(replace(ended[0][0], body="[]"), ended[0][1]), *ended[1:]])
    states = sorted(row.state for row in await sqlite_store.notices.list_notices())
    assert states == [NoticeState.FAILED, NoticeState.SENT, NoticeState.SENT]


async def test_f19_one_run_or_kind_of_news_that_cannot_be_reported_stops_no_other(
    sqlite_store: Store, clock: SteppedClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline(sqlite_store, clock)
    ends = []
    for _ in range(3):
        task_ids = await pipeline.start(1)
        await pipeline.submit()
        await pipeline.deliver(pipeline.provider.finish(idempotency_key(task_ids[0], 1)))
        ends.append(pipeline.run_id)
    await sqlite_store.schedules.add_schedule(
        name="s", source="s", options="{}", every_ms=HOUR_MS, next_at_ms=clock(), now_ms=clock()
    )
    (schedule,) = await sqlite_store.schedules.list_schedules()
    await sqlite_store.schedules.note_schedule_error(schedule.id, "no such file")
    monkeypatch.setattr(Queries, "progress", raising_for(Queries.progress, ends[1]))
    monkeypatch.setattr(NoticeTriggerReads, "newest_finding", raises)
    monkeypatch.setattr(NoticeTriggerReads, "accounts_waiting", raises)
    with pytest.raises(ExceptionGroup):
        await Watcher(sqlite_store, clock=clock).look()
    stored = [(row.kind, row.run_id) for row in await sqlite_store.notices.list_notices()]
    assert sorted(stored, key=str) == sorted(
        [
            (NoticeKind.RUN_FINISHED, ends[0]),
            (NoticeKind.RUN_FINISHED, ends[2]),
            (NoticeKind.SCHEDULE_FAILED, None),
        ],
        key=str,
    )


async def test_f19_one_poll_that_cannot_be_read_hides_no_lost_delivery(clock: SteppedClock) -> None:
    polls = [SimpleNamespace(id=f"{n}", first_sent_at_ms=clock(), body=b"%d" % n) for n in range(3)]
    noted: list[Any] = []

    def read(body: bytes) -> AcknowledgedWebhook | None:
        if body == b"0":
            raise RecursionError
        return cast(AcknowledgedWebhook, SimpleNamespace(provider_task_id=body.decode(), at=None, url="u"))

    async def polls_without_delivery(*, after: str, before: str, limit: int) -> list[Any]:
        return [] if after == "2" else polls

    async def note(lost: Any, _now_ms: int) -> int:
        noted.extend(lost)
        return len(lost)

    async def nothing(*_: Any) -> Any:
        return None

    async def none_stored(_since: str) -> set[str]:
        return set()

    store = SimpleNamespace(
        oldest_waiting_poll=nothing,
        polls_without_delivery=polls_without_delivery,
        webhooks_without_task=none_stored,
        note_lost_after_ack=note,
    )
    acked: LostWebhookSearch = LostWebhookSearch(
        cast(Any, SimpleNamespace(polls=store)), read, clock=clock, grace_ms=1, look_back_ms=1
    )
    with pytest.raises(RecursionError):
        await acked.judge()
    assert len(noted) == 2


def test_f19_an_absent_database_is_reported_as_that() -> None:
    isolated = Isolated()
    for error in (StoreUnavailable("one"), StoreUnavailable("two")):
        with isolated.alone():
            raise error
    with pytest.raises(StoreUnavailable, match="one"):
        isolated.finish()
    isolated.finish()
