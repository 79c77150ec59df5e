"""The sweep: does what a lost wake, a lost webhook or a lost process left undone.

The inbox and the task rows say what is still to be done; nothing here depends on Redis.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from app.domain.delivery import RawDelivery
from app.domain.run_reason import ReasonCode
from app.domain.settlement import Source
from app.domain.task import RunState, new_id
from app.limits import Limits, to_ms
from app.ports import Clock, PollAnswer, Provider
from app.services.batch_ends import delete_expired_files, expire_batches
from app.services.early_polls import bring_polls_forward
from app.services.isolated import Isolated
from app.services.reachability import Reachability

if TYPE_CHECKING:
    from app.store import Store
    from app.store.write.polls import DuePoll

VANISHED_POLLS = 3
"""Polls of a task that the provider once named, before a 404, confirmed at once, counts as gone (W13)."""
BATCHES_MAX = 50
"""Deliveries of one sweep are bounded, so that its lease is not overrun; the next sweep goes on."""

Settle = Callable[[Sequence[str]], Awaitable[object]]


@dataclass(slots=True)
class SweepSummary:
    """What one sweep found and did."""

    claims_released: int = 0
    unidentified: int = 0
    deliveries: int = 0
    polled: int = 0
    found_finished: int = 0
    expired: int = 0
    runs_finished: int = 0
    set_aside: dict[str, str] = field(default_factory=dict)
    """Delivery id -> why: they killed their workers."""

    def is_idle(self) -> bool:
        """Nothing was found to do."""
        return not any(
            (
                self.claims_released,
                self.unidentified,
                self.deliveries,
                self.polled,
                self.expired,
                self.set_aside,
            )
        )


async def sweep(
    store: "Store",
    providers: Mapping[str, Provider],
    settle: Settle,
    *,
    limits: Limits,
    clock: Clock,
    unreleased: set[str],
    reach: Callable[[str], Reachability] = lambda _: Reachability(),
    isolated: Isolated | None = None,
) -> SweepSummary:
    """One pass. `providers` by account name; `settle` settles deliveries by id, in this process.
    `unreleased`: the caller's, empty at first and kept from pass to pass, for deliveries whose work ended in
    trouble before that could be written. `reach`: what this process knows of an account's way to the
    provider. A part that fails stops none that does not need it: it is kept in `isolated`, and raised at the
    end without one."""
    summary, kept = SweepSummary(), isolated or Isolated()
    now = clock()
    tries_max, is_any_overdue = limits.deliveries_tries_max, True
    with kept.alone():
        if unreleased:
            await _release(store, unreleased)
        is_any_overdue = await store.inbox.is_any_overdue(now_ms=now, tries_max=tries_max)
        if is_any_overdue:
            summary.set_aside = await store.inbox.quarantine_unended(tries_max=tries_max)
    with kept.alone():
        summary.claims_released = await store.submissions.release_overdue_claims(now)
    with kept.alone():
        await store.spending.fold_spending()
    with kept.alone():
        await store.rollup.fold_rollup()
        await store.rollup.count_runs()
    with kept.alone():
        await store.results.complete_results()
    with kept.alone():
        await expire_batches(store, now)
        await delete_expired_files(store, now)
    with kept.alone():
        summary.runs_finished = await store.run_ends.finish_runs(now)
    all_settled = not is_any_overdue
    if is_any_overdue:
        with kept.alone():
            all_settled = await _settle_overdue(store, settle, limits, clock, summary, unreleased)
    # What is still in the inbox may be the report of a task that would be given up here.
    if all_settled:
        with kept.alone():
            summary.unidentified = await store.submissions.expire_unidentified(
                sent_before_ms=now - to_ms(limits.safe_resend_s),
                reason="accepted or not, the provider may have forgotten the key; retry under a new one",
            )
        with kept.alone():
            await bring_polls_forward(
                store, now_ms=clock(), interval_ms=to_ms(limits.poll_every_s), limit=limits.poll_size
            )
        with kept.alone():
            await _poll_overdue(store, providers, settle, limits, clock, summary, reach, kept)
    if isolated is None:
        kept.finish()
    return summary


async def _settle_overdue(
    store: "Store", settle: Settle, limits: Limits, clock: Clock, summary: SweepSummary, unreleased: set[str]
) -> bool:
    """Whether nothing overdue is left."""
    for _ in range(BATCHES_MAX):
        now = clock()
        ids = await store.inbox.claim_overdue_deliveries(
            limit=limits.settle_size, now_ms=now, next_due_at_ms=now + to_ms(limits.sweep_after_s)
        )
        if not ids:
            return True
        summary.deliveries += len(ids)
        unreleased.update(ids)
        await settle(ids)
        await _release(store, unreleased)
    return False


async def _release(store: "Store", unreleased: set[str]) -> None:
    await store.inbox.release_deliveries(sorted(unreleased))
    unreleased.clear()


async def _poll_overdue(
    store: "Store",
    providers: Mapping[str, Provider],
    settle: Settle,
    limits: Limits,
    clock: Clock,
    summary: SweepSummary,
    reach: Callable[[str], Reachability],
    isolated: Isolated,
) -> None:
    due = await store.polls.claim_due_polls(
        limit=limits.poll_size, now_ms=clock(), interval_ms=to_ms(limits.poll_every_s)
    )
    gate = asyncio.Semaphore(limits.polls_in_flight)

    async def ask(poll: "DuePoll") -> PollAnswer:
        provider = providers.get(poll.account)
        if provider is None:
            # Its key is no longer configured; the task waits until it is, or until its retention is over.
            return PollAnswer(found=None)
        answer = PollAnswer(found=None)
        async with gate:
            with isolated.alone():
                answer = await provider.poll(poll.provider_task_id or poll.idempotency_key)
        return answer

    answers = await asyncio.gather(*(ask(poll) for poll in due))
    now = clock()
    summary.polled = len(due)
    for account in {poll.account for poll in due}:
        own_answers = [answer for poll, answer in zip(due, answers, strict=True) if poll.account == account]
        with isolated.alone():
            await _note_reach(store, account, reach(account), own_answers, now)
    raw = [RawDelivery(new_id(now), Source.POLL, now, answer.body) for answer in answers if answer.finished]
    summary.found_finished = len(raw)
    for start in range(0, len(raw), limits.settle_size):
        group = raw[start : start + limits.settle_size]
        await store.inbox.store_deliveries(group, due_at_ms=now + to_ms(limits.sweep_after_s))
        await settle([delivery.id for delivery in group])
    gone = [poll for poll, answer in zip(due, answers, strict=True) if answer.found is False]
    over = [poll for poll in gone if now - poll.first_sent_at_ms >= to_ms(limits.retention_s)]
    perhaps = [p for p in gone if p not in over and _may_have_vanished(p, now, limits)]
    # Asked once more: earlier polls may have found it, and one 404 alone could be the provider's hiccup.
    again = await asyncio.gather(*(ask(poll) for poll in perhaps))
    vanished = [poll for poll, answer in zip(perhaps, again, strict=True) if answer.found is False]
    summary.expired = await _expire(store, over, vanished)


def _may_have_vanished(poll: "DuePoll", now: int, limits: Limits) -> bool:
    # Polls that came early count when the regular ones would have begun: what is a 404 for some seconds is
    # the provider's hiccup.
    is_old = now - poll.first_sent_at_ms >= to_ms(limits.poll_after_s)
    return is_old and poll.provider_task_id is not None and poll.polls >= VANISHED_POLLS


async def _note_reach(
    store: "Store", account: str, reach: Reachability, answers: Sequence[PollAnswer], now: int
) -> None:
    """Whether it was the provider that answered. When something else goes on doing so, the runs of which all
    is sent pause, so that somebody looks; their polls go on, and the first good one lets them go on."""
    pages = [answer.gateway for answer in answers if answer.gateway is not None]
    if any(answer.found is not None for answer in answers):
        reach.polls.answered()
        await store.accounts.resume_account_if_paused_for(account, ReasonCode.POLLS_UNANSWERED)
    elif pages:
        reach.polls.unheard(pages[-1], now)
        if reach.polls.lasts(now, reach.pause_after_ms):
            await store.accounts.halt_sent_runs_if_running(account, RunState.PAUSED, reach.poll_reason())


async def _expire(store: "Store", over: "Sequence[DuePoll]", vanished: "Sequence[DuePoll]") -> int:
    """Close what the provider no longer knows: past its retention, or gone before it (S21, W13)."""
    expired = await store.polls.expire_if_unreported(
        [(p.task_id, p.attempt) for p in over],
        code="retention_over",
        reason="the provider keeps a task for about 24 h and no report came",
    )
    return expired + await store.polls.expire_if_unreported(
        [(p.task_id, p.attempt) for p in vanished],
        code="vanished",
        reason="the provider no longer knows the task; perhaps its queue was cleared",
    )
