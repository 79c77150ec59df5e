"""Asking: one answer now, in the same books as everything else.

The hold is written before the call, so that a call whose end is never known is an open hold and not a 0. An
answer goes through the inbox like any report: its raw bytes are kept, and one settlement posts or voids.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Protocol

from app.domain.accounting.balances import Balance
from app.domain.delivery import RawDelivery
from app.domain.send_outcome import Answer
from app.domain.settlement import Source
from app.domain.sync_call import SyncAnswer, SyncEnd, busy_wait_s
from app.domain.task import TaskSpec, idempotency_key, new_id
from app.limits import Limits, to_ms
from app.ports import Clock, Jitter, StoreUnavailable

if TYPE_CHECKING:
    from app.store import Store

LOST = "lost"
LOST_REASON = "the call was sent and not answered; it may have been billed, so it is not repeated"

Settle = Callable[[Sequence[str]], Awaitable[object]]
Sleep = Callable[[float], Awaitable[object]]


class SyncProvider(Protocol):
    """The provider's sync side. Never raises for what the provider does."""

    async def ask(self, task_type: str, payload_json: str) -> SyncAnswer: ...


class Report(Protocol):
    """Puts the end of a call into the form of a report that settlement reads."""

    def __call__(self, key: str, end: SyncAnswer) -> bytes: ...


@dataclass(frozen=True, slots=True)
class SyncRequest:
    """What to ask, who pays, and what it should cost."""

    spec: TaskSpec
    payload_json: str
    estimate: Decimal
    """Surcharge included."""
    name: str
    account: str


@dataclass(frozen=True, slots=True)
class SyncResult:
    """What became of a question."""

    run_id: str
    task_id: str
    answer: SyncAnswer
    calls: int


async def ask(
    store: "Store",
    provider: SyncProvider,
    report: Report,
    settle: Settle,
    question: SyncRequest,
    *,
    limits: Limits,
    slot_wait_s: float,
    clock: Clock,
    jitter: Jitter,
    sleep: Sleep = asyncio.sleep,
    opened: Callable[[str], None] = lambda _: None,
) -> SyncResult:
    """Ask once; `opened` gets the run's id before the call. Only a call that was certainly not tried is made
    again: no slot, no turn. Being cancelled in the middle of a call leaves its hold open, because the
    provider may go on and bill it."""
    began = clock()
    run_id, task_id = await store.sync_calls.open_call(
        question.spec,
        question.estimate,
        name=question.name,
        account=question.account,
        next_poll_at_ms=began + to_ms(limits.retention_s),
        now_ms=began,
    )
    opened(run_id)
    calls, answered_ms = 0, began
    answer = SyncAnswer(SyncEnd.NOT_SENT, message="interrupted before it was sent")
    try:
        while True:
            calls += 1
            answer = SyncAnswer(SyncEnd.LOST, message="interrupted")
            answer = await provider.ask(question.spec.task_type, question.payload_json)
            answered_ms = clock()
            await store.sync_calls.log_call(task_id, _ANSWER_OF[answer.end], answer, clock())
            wait_s = busy_wait_s(calls, jitter(), answer)
            out_of_time = clock() + to_ms(wait_s) > began + to_ms(slot_wait_s)
            if answer.end is not SyncEnd.BUSY or out_of_time:
                break
            await sleep(wait_s)
    finally:
        # Shielded: being cancelled must not lose what is known of the call.
        await asyncio.shield(_close(store, report, settle, task_id, answer, limits, clock))
    await _keep_balance(store, question.account, answer, answered_ms)
    return SyncResult(run_id, task_id, answer, calls)


async def _keep_balance(store: "Store", account: str, answer: SyncAnswer, at_ms: int) -> None:
    """For the audit; a snapshot that cannot be kept now is not worth losing the answer for."""
    if answer.remaining is None:
        return
    with contextlib.suppress(StoreUnavailable):
        await store.accounts.store_balance(
            account, Balance(at_ms, answer.remaining, None, None, source="header")
        )


async def _close(
    store: "Store",
    report: Report,
    settle: Settle,
    task_id: str,
    answer: SyncAnswer,
    limits: Limits,
    clock: Clock,
) -> None:
    now = clock()
    # An answer that cannot be read, but that says what it cost, is a failure that was charged.
    unreadable_but_charged = answer.end is SyncEnd.LOST and answer.charged is not None
    if answer.end in (SyncEnd.ANSWERED, SyncEnd.FAILED) or unreadable_but_charged:
        body = report(idempotency_key(task_id, 1), answer)
        delivery = RawDelivery(new_id(now), Source.SYNC, now, body)
        await store.inbox.store_deliveries([delivery], due_at_ms=now + to_ms(limits.sweep_after_s))
        await settle([delivery.id])
    elif answer.end is SyncEnd.LOST:
        await store.polls.expire_if_unreported([(task_id, 1)], code=LOST, reason=LOST_REASON)
    else:
        await store.sync_calls.void_call(
            task_id, code=answer.code or answer.end.value, message=answer.message, now_ms=now
        )


_ANSWER_OF = {
    SyncEnd.ANSWERED: Answer.ACCEPTED,
    SyncEnd.FAILED: Answer.ACCEPTED,
    SyncEnd.REFUSED: Answer.REJECTED,
    SyncEnd.BUSY: Answer.RATE_LIMITED,
    SyncEnd.NOT_SENT: Answer.UNAVAILABLE,
    SyncEnd.LOST: Answer.LOST,
}
