"""One call of submit: a feeder that claims, senders, and a recorder, side by side.

Nothing is retried in memory. An attempt that is to be sent again goes back to `pending` with its key and a
time before which it is not claimed, so that a killed process forgets nothing.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import TYPE_CHECKING

from app import tracing
from app.domain.engine_pauses import probe_after_ms
from app.domain.run_reason import NO_CREDITS, ReasonCode, RunReason, not_allowed
from app.domain.send_outcome import QUEUE_FULL_WAIT_S, RETRIED, WAIT_MAX_S, Answer, backoff_s
from app.domain.submission import ClaimedTask, SendOptions, Submission
from app.domain.task import RunState
from app.limits import Limits, to_ms
from app.ports import Clock, CreateAnswer, Jitter, Provider
from app.services.admission import Admission
from app.services.reachability import Reachability
from app.waiting import set_within

if TYPE_CHECKING:
    from app.store import Store

FLUSH_EVERY_S = 0.2
FLUSH_SIZE = 250
RENEWALS = 10
"""Within one lease, so that nine tenths of it are ever left to a process that records."""
BATCH_MAX = 500
"""Of the provider's (C-G.3)."""
KEY_COLLISION_REASON = (
    "the provider knows key {}, unsent by us: another copy of this database sends, and must be stopped; or, "
    "if there is no other, this one is a restored backup: tallyhook resume RUN --restored"
)
OUT_OF_CREDITS = ("INSUFFICIENT_CREDITS", 402, 403)
ALIKE = (Answer.MISDIRECTED, Answer.BAD_KEY, Answer.NO_CREDITS)
"""Behind one of these the next request would be answered alike."""
TOO_LARGE = 413
"""A proxy takes smaller requests than the provider does."""
AHEAD = 1 / 8
"""Of a claim's lease: what is claimed next is sent within this, and what waits before it as well. So at a
slow rate, or a share of one, no claim runs out before its turn has come, and is sent by somebody else."""
TURNS_S = 4.0
"""Those who wait for their turn have it within this; beyond the provider's client's five they go back."""
STALE_WAIT_S = 60.0
"""An attempt too old to be sent again waits this long for the sweep to close it."""


@dataclass(slots=True)
class SubmitSummary:
    """What one call did."""

    answers: Counter[Answer] = field(default_factory=Counter)
    busy: bool = False
    """Another process is sending; nothing was done."""
    again_in_ms: int | None = None
    """When there will be something to send again; None when this call left nothing. What earlier calls left
    waiting, the sweep notices when it is due."""


def _span_of(task: ClaimedTask) -> tracing.Span:
    """Of one send. The first one of an attempt begins the trace that its report will be linked with."""
    ids, is_first = tracing.of_attempt(task.id, task.attempt), task.sends == 1
    return tracing.begin(
        "submit",
        root=ids if is_first else None,
        parent=None if is_first else ids,
        task=task.id,
        run=task.run_id,
        attempt=task.attempt,
        engine=task.task_type,
        sends=task.sends,
    )


@dataclass(frozen=True, slots=True)
class _Claim:
    """What goes with one request, and until when it may be sent."""

    group: list[ClaimedTask]
    until_ms: int


class Sender:
    """One call of submit: a feeder that claims, senders, and a recorder, side by side."""

    def __init__(
        self,
        store: "Store",
        provider: Provider,
        account: str,
        admission: Admission | None,
        reach: Reachability,
        lease: str,
        limits: Limits,
        clock: Clock,
        jitter: Jitter,
        token: str,
        stopping: Callable[[], bool],
        went_on: Callable[[], None],
        on_end: Callable[[Answer], None],
    ) -> None:
        self._store = store
        self._provider = provider
        self._account = account
        self._admission = admission
        self._reach = reach
        self._is_probe = reach.is_away
        self._lease = lease
        self._limits = limits
        self._clock = clock
        self._jitter = jitter
        self._token = token
        self._stopping = stopping
        self._went_on = went_on
        self._on_end = on_end
        self._leased_ms = clock()
        self._until_ms = self._leased_ms + to_ms(limits.submit_job_s)
        within_s = limits.claim_lease_s * AHEAD
        self._claim_size = max(min(int(provider.share_per_s * within_s), limits.claim_size), 1)
        in_turn = int(provider.share_per_s * min(within_s, TURNS_S))
        self._senders = 1 if self._is_probe else max(min(in_turn, limits.submit_in_flight), 1)
        self._todo: asyncio.Queue[_Claim | None] = asyncio.Queue(maxsize=self._claim_size)
        self._first = asyncio.Lock()
        self._options: dict[str, SendOptions] = {}
        self._batch_max = reach.batch_max or BATCH_MAX
        self._ended: list[Submission] = []
        self._flush_now = asyncio.Event()
        self._flushing: asyncio.Task[None] | None = None
        self._all_sent = False
        self._halted: tuple[RunState, RunReason] | None = None
        self._rest_s = 0.0
        self._replaced = False
        self.has_room = True
        self.summary = SubmitSummary()

    def is_held_up(self) -> bool:
        """The account refuses, or asked for a pause that is too long to wait for."""
        return self._halted is not None or self._rest_s > 0

    async def run(self) -> None:
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._record())
                await self._send_all()
                self._all_sent = True
                self._flush_now.set()
        finally:
            # Shielded: being cancelled must not lose what is known of the sends that ended.
            await asyncio.shield(self._finish())

    async def _send_all(self) -> None:
        async with asyncio.TaskGroup() as sending:
            sending.create_task(self._feed())
            for _ in range(self._senders):
                sending.create_task(self._send())

    def _is_over(self) -> bool:
        late = self._replaced or self._clock() >= self._until_ms
        return late or self.is_held_up() or self._stopping()

    async def _feed(self) -> None:
        while not self._is_over():
            batch = max((run.batch_size for run in self._options.values()), default=1)
            limit = max(min(self._claim_size * batch, self._limits.claim_size), batch)
            if self._admission is not None:
                quota = await self._admission.quota()
                self._went_on()
                if not quota.tasks:
                    self.has_room = False
                    break
                limit = min(limit, quota.tasks)
            if self._is_probe:
                limit = 1
            now = self._clock()
            claimed = await self._store.submissions.claim_pending(
                account=self._account,
                limit=limit,
                claim=self._token,
                now_ms=now,
                lease_until_ms=now + to_ms(self._limits.claim_lease_s),
                probe_after_ms=probe_after_ms(to_ms(self._limits.engine_probe_every_s), self._jitter()),
            )
            self._went_on()
            if not claimed:
                break
            if self._admission is not None:
                estimate = sum((task.credits_estimate for task in claimed), Decimal(0))
                self._admission.sent(len(claimed), estimate)
            # Half of the lease is left to whoever waits for a turn and for the answer.
            until_ms = now + to_ms(self._limits.claim_lease_s / 2)
            for group in await self._grouped(claimed):
                await self._todo.put(_Claim(group, until_ms))
            if self._is_probe:
                break
        for _ in range(self._senders):
            await self._todo.put(None)

    async def _grouped(self, claimed: list[ClaimedTask]) -> list[list[ClaimedTask]]:
        """One request each: a task alone, or as many of one run as it wants in a batch."""
        unseen = {task.run_id for task in claimed} - self._options.keys()
        if unseen:
            self._options |= await self._store.accounts.send_options(sorted(unseen))
        groups: list[list[ClaimedTask]] = []
        for run_id, tasks in itertools.groupby(claimed, key=lambda task: task.run_id):
            size = min(self._options[run_id].batch_size, self._batch_max)
            remaining = list(tasks)
            groups += [remaining[start : start + size] for start in range(0, len(remaining), size)]
        return groups

    async def _send(self) -> None:
        """Send what is claimed. The first request goes alone, so that a wrong key is refused once."""
        while (claim := await self._todo.get()) is not None:
            if not self._reach.is_admitted:
                async with self._first:
                    if not self._reach.is_admitted:
                        await self._send_group(claim)
                        continue
            await self._send_group(claim)

    async def _send_group(self, claim: _Claim) -> None:
        sendable = [task for task in claim.group if not self._is_kept_back(task, claim.until_ms)]
        if not sendable:
            return
        spans = [_span_of(task) for task in sendable] if tracing.is_on() else ()
        answers = await self._create(sendable)
        for span, given in zip(spans, answers, strict=False):  # no spans where nobody traces
            span.end(answer=given.answer.value, http_status=given.http_status, code=given.code)
        await self._note_reach(answers)
        for task, given in zip(sendable, answers, strict=True):
            answer = given
            if given.answer is Answer.EXISTS and await self._is_key_collision(task):
                answer = CreateAnswer(Answer.KEY_COLLISION, given.http_status, given.code, given.message)
            if answer.answer is Answer.DEFERRED:
                self._rest_s = max(self._rest_s, answer.wait_s or 0.0)
            self._end(task, answer)
            await self._halt_if_refused(task, answer)
        if self._halted is not None or answers[0].answer is not Answer.DEFERRED:
            self._reach.is_admitted = self._halted is None

    async def _note_reach(self, answers: Sequence[CreateAnswer]) -> None:
        """Whether it was the provider that answered, where it takes tasks. While it is not, all sending of
        the account rests, longer and longer; when that goes on, its runs pause."""
        now, reach, first = self._clock(), self._reach, answers[0]
        if any(answer.is_providers and answer.answer is not Answer.UNAVAILABLE for answer in answers):
            reach.note_send()
        elif first.answer is Answer.UNAVAILABLE:
            # Its own trouble, or no connection: no reason to pause runs, nor to go through all tasks with it.
            reach.sends.count += 1
            if reach.is_away and not self._rest_s:
                self._rest_s = reach.rest(now, self._jitter(), first.wait_s)
        elif first.answer in (Answer.GATEWAY, Answer.MISDIRECTED):
            reach.sends.unheard(first.message or "", now)
            if reach.is_away and not self._rest_s:
                self._rest_s = reach.rest(now, self._jitter(), first.wait_s)
            if reach.sends.lasts(now, reach.pause_after_ms) and self._halted is None:
                self._halted = (RunState.PAUSED, reach.send_reason())
                # Whoever resumes them wants to know at once.
                reach.rest_until_ms = 0
                await self._store.accounts.halt_account_if_running(self._account, *self._halted)
        elif self._is_probe and first.answer is not Answer.DEFERRED:
            self._rest_s = reach.rest(now, self._jitter(), None)

    async def _is_key_collision(self, task: ClaimedTask) -> bool:
        """Whether a key that the provider knows is somebody else's: accepted before, though we never sent it
        before, nor since. A process that stood still for longer than its claim lasts comes second to the one
        that sent the task meanwhile."""
        if task.sends > 1 or await self._is_restored(task.run_id):
            return False
        return not await self._store.submissions.was_sent_since(task)

    async def _is_restored(self, run_id: str) -> bool:
        if not self._options[run_id].is_restored:
            # The user may have declared it since this call began.
            self._options |= await self._store.accounts.send_options([run_id])
        return self._options[run_id].is_restored

    def _is_kept_back(self, task: ClaimedTask, until_ms: int) -> bool:
        # What is left of the claims when the job is over, or is old, goes back: kept longer, its lease would
        # run out and somebody else would send it as well.
        if self._is_over() or self._clock() >= until_ms:
            self._end(task, CreateAnswer(Answer.DEFERRED, wait_s=self._rest_s))
            return True
        if task.first_sent_at_ms <= self._clock() - to_ms(self._limits.safe_resend_s):
            self._end(task, CreateAnswer(Answer.DEFERRED, wait_s=STALE_WAIT_S))
            return True
        return False

    async def _create(self, tasks: list[ClaimedTask]) -> Sequence[CreateAnswer]:
        if len(tasks) > 1:
            answers = await self._provider.create_batch(tasks)
            self._went_on()
            if answers is not None:
                if all(answer.answer is Answer.LOST for answer in answers):
                    # One lost answer is so many tasks that we know no id of: smaller ones from here on (S7).
                    self._batch_max = max(self._batch_max // 2, 1)
                elif answers[0].answer is Answer.GATEWAY and answers[0].http_status == TOO_LARGE:
                    self._batch_max = self._reach.batch_max = max(len(tasks) // 2, 1)
                return answers
            self._batch_max = 1
        alone: list[CreateAnswer] = []
        for task in tasks:
            if alone and alone[-1].answer in ALIKE:
                alone += [CreateAnswer(Answer.DEFERRED)] * (len(tasks) - len(alone))
                break
            alone.append(await self._provider.create(task))
            self._went_on()
        return alone

    async def _halt_if_refused(self, task: ClaimedTask, answer: CreateAnswer) -> None:
        """A refusal that is not about the task: halt the run, or with it all runs of the account, and send
        nothing more in this call."""
        if answer.answer is Answer.KEY_COLLISION:
            self._halted = (
                RunState.STOPPED,
                RunReason(ReasonCode.KEY_COLLISION, KEY_COLLISION_REASON.format(task.idempotency_key)),
            )
            await self._store.runs.halt_run_if_running(task.run_id, *self._halted)
        elif answer.answer in (Answer.NO_CREDITS, Answer.BAD_KEY) and self._halted is None:
            shown = answer.code or answer.http_status
            bad_key = RunReason(ReasonCode.BAD_KEY, f"the provider refuses the API key ({shown})")
            is_bad_key = answer.answer is Answer.BAD_KEY
            no_credits = NO_CREDITS if shown in OUT_OF_CREDITS else not_allowed(f"{shown}: {answer.message}")
            self._halted = (RunState.STOPPED, bad_key) if is_bad_key else (RunState.PAUSED, no_credits)
            await self._store.accounts.halt_account_if_running(self._account, *self._halted)

    def _end(self, task: ClaimedTask, answer: CreateAnswer) -> None:
        now = self._clock()
        wait_ms = self._wait_ms(task, answer)
        self.summary.answers[answer.answer] += 1
        self._on_end(answer.answer)
        if wait_ms > 0:
            soonest = self.summary.again_in_ms
            self.summary.again_in_ms = wait_ms if soonest is None else min(soonest, wait_ms)
        self._ended.append(
            Submission(
                task,
                answer.answer,
                now,
                not_before_ms=now + wait_ms,
                next_poll_at_ms=now + to_ms(self._limits.poll_after_s),
                http_status=answer.http_status,
                code=answer.code,
                message=answer.message,
                provider_task_id=answer.provider_task_id,
                credits_to_charge=answer.credits_to_charge,
                request_id=answer.request_id,
            )
        )
        if len(self._ended) >= FLUSH_SIZE:
            self._flush_now.set()

    def _wait_ms(self, task: ClaimedTask, answer: CreateAnswer) -> int:
        return round(1000 * min(self._wait_s(task, answer), WAIT_MAX_S))

    def _wait_s(self, task: ClaimedTask, answer: CreateAnswer) -> float:
        if answer.answer is Answer.DEFERRED:
            return answer.wait_s or 0.0
        if answer.answer not in RETRIED:
            return 0.0
        floor_s = answer.wait_s
        if answer.answer is Answer.QUEUE_FULL:
            floor_s = max(floor_s or 0.0, QUEUE_FULL_WAIT_S)
        return backoff_s(task.sends, self._jitter(), floor_s)

    async def _record(self) -> None:
        """Record ended sends in groups, and keep the lease while doing so."""
        while not self._all_sent:
            await set_within(self._flush_now, FLUSH_EVERY_S)
            self._flush_now.clear()
            # Shielded: being cancelled must not cut a commit in two.
            self._flushing = asyncio.create_task(self._flush())
            await asyncio.shield(self._flushing)

    async def _finish(self) -> None:
        """Record what is left, whatever ended the call, and give back what was never sent."""
        if self._flushing is not None:
            await asyncio.gather(self._flushing, return_exceptions=True)
        while not self._todo.empty():
            claim = self._todo.get_nowait()
            for task in claim.group if claim else ():
                self._end(task, CreateAnswer(Answer.DEFERRED))
        await self._flush()

    async def _flush(self) -> None:
        ended, self._ended = self._ended, []
        if not ended:
            return
        try:
            await self._store.submissions.record_submissions(ended)
        except BaseException:
            self._ended = ended + self._ended
            raise
        now = self._clock()
        lease_ms = to_ms(self._limits.submit_lease_s)
        if 0 <= now - self._leased_ms < lease_ms // RENEWALS:
            return
        self._leased_ms = now
        until_ms = now + lease_ms
        # Lost: this process stood still for longer than its lease, and another one sends now.
        self._replaced = not await self._store.runs.acquire_lease(
            self._lease, self._token, until_ms=until_ms, now_ms=now
        )
